//! Other sources of a build than its context: git repositories, named contexts, SSH agents.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use common::{Built, Fixture, answers};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .env("TZ", "UTC")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bare repository `r.git` with two commits, the first of which has the tag `v1`.
fn repository(below: &Path, format: &str) -> PathBuf {
    let work = below.join("work");
    fs::create_dir_all(work.join("sub")).unwrap();
    git(&work, &["init", "-q", "-b", "main", "--object-format", format]);
    fs::write(work.join("top"), "one").unwrap();
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(work.join("sub/file"), "deep").unwrap();
    std::os::unix::fs::symlink("sub/file", work.join("link")).unwrap();
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-qm", "one"]);
    git(&work, &["tag", "-a", "v1", "-m", "one"]);
    fs::write(work.join("top"), "two").unwrap();
    git(&work, &["commit", "-qam", "two"]);
    git(below, &["clone", "-q", "--bare", "work", "r.git"]);
    let bare = below.join("r.git");
    git(&bare, &["update-server-info"]);
    bare
}

/// A web server for the repositories in a directory. A smart one runs git to answer.
fn serve(directory: PathBuf, smart: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), &directory, smart)));
    address
}

fn answer(mut stream: TcpStream, directory: &Path, smart: bool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(request) = lines.first() else { return };
    let mut requests =
        fs::File::options().create(true).append(true).open(directory.join("requests")).unwrap();
    requests.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let length =
        lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let (kind, content) = match path.split_once("/info/refs?service=git-upload-pack") {
        Some((name, _)) if smart => {
            let refs = upload_pack(&directory.join(name), &["--advertise-refs"], &[]);
            ("advertisement", Some([b"001e# service=git-upload-pack\n0000", &*refs].concat()))
        }
        _ if request.starts_with("POST") => {
            let name = path.trim_end_matches("/git-upload-pack");
            ("result", Some(upload_pack(&directory.join(name), &[], &body)))
        }
        _ => ("file", fs::read(directory.join(path.split('?').next().unwrap())).ok()),
    };
    let status = if content.is_some() { "200 OK" } else { "404 Not Found" };
    let content = content.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &content].concat());
}

fn upload_pack(repository: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut git = Command::new("git");
    git.args(["upload-pack", "--stateless-rpc"]).args(arguments).arg(repository);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(input).unwrap();
    git.wait_with_output().unwrap().stdout
}

fn files(fixture: &Fixture, built: &Built) -> Vec<String> {
    fixture.layers(built, 0).into_iter().flatten().map(|(name, what)| format!("{name} {what}")).collect()
}

#[test]
fn add_of_a_repository() {
    for (format, smart) in [("sha1", true), ("sha1", false), ("sha256", true)] {
        // A store of its own: repositories that were made in the same second have the same commits, and a commit is cached
        // wherever it comes from.
        let fixture = Fixture::new();
        let below = fixture.path(&format!("{format}-{smart}"));
        let bare = repository(&below, format);
        let address = format!("{}/r.git", serve(below, smart));
        let built = fixture.build(&format!("FROM scratch\nADD {address} /a/\nADD {address}#v1:sub /b\n"));
        let all = [
            "a/ 755 0:0",
            "a/Dockerfile 644 0:0 FROM scratch\nCOPY . /",
            "a/link 777 0:0 -> sub/file",
            "a/sub/ 755 0:0",
            "a/sub/file 644 0:0 deep",
            "a/top 644 0:0 two",
            "b/ 755 0:0",
            "b/file 644 0:0 deep",
        ];
        assert_eq!(files(&fixture, &built), all, "{format} {smart}");
        assert_eq!(fixture.build(&format!("FROM scratch\nADD {address} /a/\n")).cached(), 1);
        // What is left out counts.
        let built = fixture.build(&format!("FROM scratch\nADD --exclude=**file {address} /a/\n"));
        assert_eq!(built.cached(), 0, "{}", built.stderr);
        assert_eq!(files(&fixture, &built), [all[0], all[2], all[3], all[5]], "{format} {smart}");
        // A commit by its id, older than the newest one.
        let first = git(&bare, &["rev-parse", "v1^{commit}"]);
        let built = fixture.build(&format!("FROM scratch\nADD --chown=5 {address}#{first} /\n"));
        assert!(files(&fixture, &built).contains(&"top 644 5:5 one".to_owned()), "{}", built.stderr);
        // With --keep-git-dir the repository stays, and git can read it.
        let out = fixture.path(&format!("out-{format}-{smart}"));
        let text = format!("FROM scratch\nADD --keep-git-dir=true {address} /\n");
        fixture.build_with(&text, &["-o", out.to_str().unwrap()]).ok();
        assert_eq!(git(&out, &["status", "--short"]), "");
        assert_eq!(git(&out, &["rev-parse", "HEAD"]), git(&bare, &["rev-parse", "main"]));
        // As in BuildKit, HEAD is the commit itself, and the branch is there.
        assert_eq!(git(&out, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
        assert_eq!(git(&out, &["rev-parse", "refs/heads/main"]), git(&bare, &["rev-parse", "main"]));
    }
}

#[test]
fn a_repository_must_be_the_one_that_is_meant() {
    let fixture = Fixture::new();
    let bare = repository(&fixture.path("r"), "sha1");
    let address = format!("{}/r.git", serve(fixture.path("r"), true));
    let newest = git(&bare, &["rev-parse", "main"]);
    for known in [&newest[..], &newest[..1]] {
        fixture.build(&format!("FROM scratch\nADD --checksum={known} {address} /\n"));
    }
    fixture.build(&format!("FROM scratch\nADD {address}?commit={}&branch=main /\n", &newest[..12]));
    let other = "0123456789012345678901234567890123456789";
    for (add, error) in [
        (
            format!("--checksum={other} {address}#main /"),
            format!("{address}: expected commit {other}, found {newest}"),
        ),
        (format!("{address}#none /"), format!("{address} has no \"none\"")),
        (format!("{address}#:none /"), format!("{address} has no directory \"none\"")),
        (
            "git@host:a/b /".to_owned(),
            "git@host:a/b: repositories over SSH are not fetched; write its address with https://".to_owned(),
        ),
        (
            format!("--keep-git-dir=false {address}?keep-git-dir=true /"),
            "inconsistent keep-git-dir configuration".to_owned(),
        ),
        (format!("{address}?x=y /"), format!("address \"{address}?x=y\": unexpected query \"x\"")),
    ] {
        let built = fixture.build_with(&format!("FROM scratch\nADD {add}\n"), &[]);
        let file = fixture.path("context/Dockerfile");
        assert_eq!(built.error(), format!("img-build: {}:2: step 2/2: {error}", file.display()), "{add}");
    }
    let built = fixture.build_with(&format!("FROM scratch\nCOPY {address} /\n"), &[]);
    assert!(built.error().ends_with("source can't be a git ref for COPY"), "{}", built.stderr);
}

#[test]
fn a_submodule_comes_with_its_repository() {
    let fixture = Fixture::new();
    let below = fixture.path("m");
    repository(&below, "sha1");
    let outer = below.join("outer");
    fs::create_dir(&outer).unwrap();
    git(&outer, &["init", "-q", "-b", "main"]);
    git(&outer, &["submodule", "--quiet", "add", "../r.git", "lib/r"]);
    git(&outer, &["commit", "-qm", "with a module"]);
    git(&below, &["clone", "-q", "--bare", "outer", "o.git"]);
    let address = format!("{}/o.git", serve(below, true));
    let built = fixture.build(&format!("FROM scratch\nADD {address} /\n"));
    assert!(
        files(&fixture, &built).contains(&"lib/r/top 644 0:0 two".to_owned()),
        "{:?}",
        files(&fixture, &built)
    );
    let built = fixture.build(&format!("FROM scratch\nADD {address}?submodules=false /\n"));
    assert!(!files(&fixture, &built).iter().any(|file| file.starts_with("lib/r/top")));
}

/// The repository chooses the address of a submodule, so the submodule must not get the repository's secrets.
#[test]
fn secrets_stay_with_the_repository_that_was_named() {
    let fixture = Fixture::new();
    let (own, other) = (fixture.path("own"), fixture.path("other"));
    let module = repository(&other, "sha1");
    let commit = git(&module, &["rev-parse", "main"]);
    let elsewhere = format!("{}/r.git", serve(other.clone(), true));
    let outer = own.join("outer");
    fs::create_dir_all(&outer).unwrap();
    git(&outer, &["init", "-q", "-b", "main"]);
    git(&outer, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},r")]);
    let server = serve(own.clone(), true);
    let build = |name: &str, module: &str| {
        let text = format!("[submodule \"r\"]\n\tpath = r\n\turl = {module}\n");
        fs::write(outer.join(".gitmodules"), text).unwrap();
        git(&outer, &["add", ".gitmodules"]);
        git(&outer, &["commit", "-qm", "with a module"]);
        git(&own, &["clone", "-q", "--bare", "outer", name]);
        let text = format!("FROM scratch\nADD {server}/{name} /\n");
        fs::write(fixture.path("Dockerfile"), text).unwrap();
        let mut command = fixture.command();
        command.env("TOKEN", "s3cret").args(["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN", "-t", "built"]);
        Built::new(command.arg(fixture.path("")).output().unwrap())
    };
    let built = build("o.git", &elsewhere).ok();
    assert!(files(&fixture, &built).contains(&"r/top 644 0:0 two".to_owned()));
    // The repository's own host is in a query and in a fragment: the request goes elsewhere.
    let (host, own_host) = (elsewhere.trim_end_matches("/r.git"), server.trim_start_matches("http://"));
    for (name, module) in
        [("p.git", format!("{host}?@{own_host}/r.git")), ("q.git", format!("{host}#@{own_host}/r.git"))]
    {
        let before = fs::read_to_string(other.join("requests")).unwrap().len();
        build(name, &module).error();
        assert!(fs::read_to_string(other.join("requests")).unwrap().len() > before, "{module} is asked");
    }
    let sent = |directory: &Path| {
        let requests = fs::read_to_string(directory.join("requests")).unwrap().to_lowercase();
        requests.lines().filter(|line| line.starts_with("authorization: basic ")).count()
    };
    assert!(sent(&own) > 0, "the repository itself gets it");
    assert_eq!(sent(&other), 0);
}

#[test]
fn a_context_in_a_repository() {
    let fixture = Fixture::new();
    let bare = repository(&fixture.path("r"), "sha1");
    let address = format!("{}/r.git", serve(fixture.path("r"), true));
    let build = |context: &str, arguments: &[&str]| {
        let mut command = fixture.command();
        Built::new(command.args(["-t", "built"]).args(arguments).arg(context).output().unwrap()).ok()
    };
    let built = build(&format!("{address}#v1"), &[]);
    assert!(files(&fixture, &built).contains(&"top 644 0:0 one".to_owned()));
    let built = build(&address, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=True"]);
    // As in BuildKit, HEAD is the commit, and no branch.
    let head = format!(".git/HEAD 644 0:0 {}", git(&bare, &["rev-parse", "main"]));
    assert!(files(&fixture, &built).contains(&head), "{head}");
}

#[test]
fn contexts_with_names() {
    let fixture = Fixture::new();
    let other = fixture.path("other");
    fs::create_dir_all(other.join("bin")).unwrap();
    fs::write(other.join("file"), "named").unwrap();
    fs::write(other.join("secret"), "x").unwrap();
    fs::write(other.join(".dockerignore"), "secret\n").unwrap();
    let named = format!("other={}", other.display());
    let text = "FROM scratch\nCOPY --from=other . /\nCOPY --from=OTHER file /again\n";
    let built = fixture.build_with(text, &["--build-context", &named]).ok();
    assert_eq!(
        files(&fixture, &built),
        [".dockerignore 644 0:0 secret", "bin/ 755 0:0", "file 644 0:0 named", "again 644 0:0 named"]
    );
    let text = "FROM busybox\nRUN --mount=from=other,target=/m cat /m/file > /out; ! cat /m/secret\n";
    let built = fixture.build_with(text, &["--build-context", &named]).ok();
    assert_eq!(fixture.layers(&built, 1)[0]["out"], "644 0:0 named");
    // As a base image, and instead of a whole stage.
    let built = fixture.build_with("FROM other\n", &["--build-context", &named]).ok();
    assert!(files(&fixture, &built).contains(&"file 644 0:0 named".to_owned()));
    let text = "FROM nowhere.example/x AS other\nRUN false\nFROM scratch\nCOPY --from=other file /\n";
    let built = fixture.build_with(text, &["--build-context", &named]).ok();
    assert_eq!(files(&fixture, &built), ["file 644 0:0 named"]);
    // An image under another name, in different spellings.
    for (name, from) in [("base", "base"), ("nowhere.example/a", "nowhere.example/a:latest")] {
        let context = format!("{name}=docker-image://busybox");
        let built =
            fixture.build_with(&format!("FROM {from}\nRUN true\n"), &["--build-context", &context]).ok();
        assert_eq!(
            built.document["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len(),
            2
        );
    }
    fixture.build_with("FROM base\n", &["--build-context", "base=docker-image://scratch"]).ok();
    // An OCI layout.
    let layout = format!("base=oci-layout://{}", fixture.root().join("images").display());
    fixture.build_with("FROM base\nRUN true\n", &["--build-context", &format!("{layout}:latest")]).ok();
    let missing = fixture.build_with("FROM base\n", &["--build-context", &format!("{layout}:none")]);
    assert!(missing.error().contains("there is no image \"none\" in "), "{}", missing.stderr);
}

#[test]
fn an_agent_of_ssh() {
    let fixture = Fixture::new();
    let path = fixture.path("agent");
    let agent = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for client in agent.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 5];
            while client.read_exact(&mut request).is_ok() {
                client.write_all(b"\0\0\0\x05\x0c\0\0\0\0").unwrap();
            }
        }
    });
    let ask = "printf '\\000\\000\\000\\001\\013' | nc -U $SSH_AUTH_SOCK | head -c 9 | od -An -tx1 > /out; ls -ln $SSH_AUTH_SOCK >> /out";
    let text = format!("FROM busybox\nRUN --mount=type=ssh,uid=5,mode=0660 {ask}\n");
    let given = format!("default={}", path.display());
    let built = fixture.build_with(&text, &["--ssh", &given]);
    let out = match built.stderr.contains("nc: ") {
        // This busybox has no `nc -U`, so only the socket can be checked.
        true => String::new(),
        false => fixture.layers(&built.ok(), 1)[0]["out"].clone(),
    };
    assert!(
        out.is_empty() || out.contains("srw-rw----") && out.contains("/run/buildkit/ssh_agent.0"),
        "{out}"
    );
    let text = "FROM busybox\nRUN --mount=type=ssh,id=x,target=/s,required test -S /s\nRUN test ! -e /s\n";
    fixture.build_with(text, &["--ssh", &format!("x={}", path.display())]).ok();
    fixture.build("FROM busybox\nRUN --mount=type=ssh test -z \"$SSH_AUTH_SOCK\"\n");
    let missing = fixture.build_with(text, &["--ssh", &given, "--no-cache"]);
    let error = "mount \"type=ssh,id=x,target=/s,required\": the SSH agent \"x\" is required, and was not given: --ssh x";
    assert!(missing.error().ends_with(error), "{}", missing.stderr);
    let key = fixture.write("key", "x");
    let wrong = fixture.build_with("FROM scratch\n", &["--ssh", &format!("default={}", key.display())]);
    assert!(wrong.error().contains("it is no socket; an agent holds keys"), "{}", wrong.stderr);
}

#[test]
fn a_web_server_is_told_who_asks_and_may_compress() {
    let fixture = Fixture::new();
    let (token, header) = (fixture.path("token"), fixture.path("header"));
    fs::write(&token, "tok\n").unwrap();
    fs::write(&header, "Custom x").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"plain").unwrap();
    let (host, requests) = answers(vec![
        ("", b"1".to_vec()),
        ("", b"2".to_vec()),
        ("", b"3".to_vec()),
        ("Content-Encoding: gzip\r\n", gzip.finish().unwrap()),
        ("Content-Encoding: br\r\n", b"4".to_vec()),
        ("Content-Encoding: gzip\r\n", b"no gzip".to_vec()),
    ]);
    let name = host.split(':').next().unwrap();
    let add = |user: &str, secret: &str| {
        let text = format!("FROM scratch\nADD http://{user}{host}/f /f\n");
        let built = fixture.build_with(&text, &["--secret", secret]);
        let kept = built.stderr.clone() + &built.configuration().to_string();
        assert!(!kept.contains("pass"), "{kept}");
        built
    };
    let none = format!("id=none,src={}", token.display());
    let of = |id: &str, path: &Path| format!("id={id}_{name},src={}", path.display());
    let file = |built: Built| fixture.layers(&built.ok(), 0)[0]["f"].clone();
    assert_eq!(file(add("us%40er:pass@", &none)), "600 0:0 1");
    assert_eq!(file(add("", &of("HTTP_AUTH_TOKEN", &token))), "600 0:0 2");
    assert_eq!(file(add("", &of("HTTP_AUTH_HEADER", &header))), "600 0:0 3");
    assert_eq!(file(add("", &none)), "600 0:0 plain");
    let refused = add("user:pass@", &none);
    let error = format!("\"http://{host}/f\": the server has encoded it with \"br\", and was not asked to");
    assert!(refused.error().ends_with(&error), "{}", refused.stderr);
    let damaged = add("user:pass@", &none);
    assert!(damaged.error().contains(&format!("read \"http://{host}/f\": ")), "{}", damaged.stderr);
    // Without a login that was asked for, nothing is requested.
    fs::write(&token, b"\xff").unwrap();
    let unread = add("", &of("HTTP_AUTH_TOKEN", &token));
    let error = format!("read secret \"HTTP_AUTH_TOKEN_{name}\": it is no text, as a header must be");
    assert!(unread.error().ends_with(&error), "{}", unread.stderr);
    let twice = fixture.build_with("FROM scratch\nADD https://me:pass@h/a.git?ref=x&ref=y /\n", &[]);
    assert!(twice.error().contains("\"https://h/a.git?ref=x&ref=y\""), "{}", twice.stderr);
    let requests = requests.join().unwrap();
    let sent: Vec<_> = requests.iter().map(|request| request.split("authorization: ").nth(1)).collect();
    let sent: Vec<_> = sent.into_iter().map(|sent| sent.and_then(|sent| sent.lines().next())).collect();
    // The requests are in lower case. This is us@er:pass.
    let basic = "Basic dXNAZXI6cGFzcw==".to_lowercase();
    assert_eq!(sent[..4], [Some(basic.as_str()), Some("bearer tok"), Some("custom x"), None]);
}

#[test]
fn a_dockerfile_on_a_web_server_has_any_name() {
    let fixture = Fixture::new();
    let (host, requests) = answers(vec![("", b"FROM scratch\nLABEL a=b\n".to_vec())]);
    let mut command = fixture.command();
    command.args(["-t", "built", "-f", "other", &format!("http://{host}/df")]);
    let built = Built::new(command.output().unwrap()).ok();
    assert_eq!(built.configuration()["config"]["Labels"]["a"], "b");
    requests.join().unwrap();
}

/// An archive with the Dockerfile `text` of 9 September 2001, and an older file.
fn archive(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content, time) in [("Dockerfile", text, 1_000_000_000), ("old", "", 5)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(time);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn the_epoch_is_the_time_of_a_source() {
    let fixture = Fixture::new();
    let (modified, body) = ("Last-Modified: Fri, 13 Feb 2009 23:31:30 GMT\r\n", archive("x"));
    let (host, requests) = answers(vec![("", body.clone()), (modified, body.clone()), ("", body)]);
    let rest = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /e\n";
    let stage = |instructions: &str| {
        format!("ARG SOURCE_DATE_EPOCH=source\nFROM scratch AS Source\nARG N=c\n{instructions}\n{rest}")
    };
    let added = stage(&format!("ADD http://{host}/$N.tar /"));
    let epoch = |built: &Built| fixture.layers(built, 1)[0]["e"].clone();
    for time in ["1000000000", "1234567890"] {
        assert_eq!(epoch(&fixture.build(&added)), format!("644 0:0 {time}"));
    }
    let context = ["--build-context", &format!("source=http://{host}/c.tar")];
    let given = ["--build-arg", "SOURCE_DATE_EPOCH=source"];
    let built = fixture.build_with(rest, &[context, given].concat()).ok();
    assert_eq!(epoch(&built), "644 0:0 1000000000");
    requests.join().unwrap();
    for (instructions, problem) in [
        ("COPY Dockerfile /", "must have no other instructions than ARG and ADD"),
        ("ADD Dockerfile /", "must fetch from a web server or a repository of git"),
        ("", "must have one ADD, of one source"),
    ] {
        let built = fixture.build_with(&stage(instructions), &[]);
        let error = format!("Dockerfile:2: the stage of SOURCE_DATE_EPOCH {problem}");
        assert!(built.error().ends_with(&error), "{}", built.stderr);
    }
    // A number given counts before the name.
    let built = fixture.build_with(&added, &["--build-arg", "SOURCE_DATE_EPOCH=7"]).ok();
    assert_eq!(epoch(&built), "644 0:0 7");
}

#[test]
fn the_epoch_is_the_time_of_the_context() {
    let fixture = Fixture::new();
    let dockerfile = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo ${SOURCE_DATE_EPOCH-unset} > /e\n";
    let with_default = format!("ARG SOURCE_DATE_EPOCH=context\n{dockerfile}");
    let build = |context: &str, flags: &[&str]| {
        let mut command = fixture.command();
        let built = Built::new(command.args(["-t", "built"]).args(flags).arg(context).output().unwrap()).ok();
        let created = built.configuration()["created"].as_str().unwrap().to_owned();
        (fixture.layers(&built, 1)[0]["e"].clone(), created)
    };
    let given = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    let is_of = |seconds: &str, created: &str| (format!("644 0:0 {seconds}"), created.to_owned());
    // The newest time in an archive, unless the server says one.
    let (host, requests) = answers(vec![
        ("", archive(dockerfile)),
        ("Last-Modified: Fri, 13 Feb 2009 23:31:30 GMT\r\n", archive(&with_default)),
    ]);
    let address = format!("http://{host}/c.tar");
    assert_eq!(build(&address, &given), is_of("1000000000", "2001-09-09T01:46:40Z"));
    assert_eq!(build(&address, &[]), is_of("1234567890", "2009-02-13T23:31:30Z"));
    requests.join().unwrap();
    // The time of a commit.
    let bare = repository(&fixture.path("r"), "sha1");
    let address = format!("{}/r.git#v1", serve(fixture.path("r"), true));
    let mut command = fixture.command();
    let built = command.args(["-t", "built"]).args(given).arg(&address).output().unwrap();
    let created = Built::new(built).ok().configuration()["created"].clone();
    let shown = git(&bare, &["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "v1"]);
    assert_eq!(created, shown);
    // A directory has none.
    let base =
        fixture.config("FROM busybox\n")["created"].as_str().unwrap_or("1980-01-01T00:00:00Z").to_owned();
    let context = fixture.path("context").display().to_string();
    for (text, flags) in [(dockerfile, &given[..]), (&with_default, &[])] {
        fixture.write("Dockerfile", text);
        assert_eq!(build(&context, flags), is_of("unset", &base), "{text}");
    }
}
