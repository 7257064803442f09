//! The same results as other builders, where earlier versions differed: links, caches, mounts, variables.

#![allow(clippy::unwrap_used)] // A broken server is a failed test.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, chown},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{Fixture, files};
use serde_json::json;

#[test]
fn a_pattern_names_links_and_not_what_they_lead_to() {
    let fixture = Fixture::new();
    fixture.write("a", "one");
    for link in ["l1", "l2"] {
        std::os::unix::fs::symlink("a", fixture.path("context").join(link)).unwrap();
    }
    let built = fixture.build(
        "FROM busybox AS s\nCOPY a l1 /o/\nRUN ln -s a /o/l2\nFROM scratch\nCOPY l* /d/\nCOPY --from=s /o/l* /e/\nCOPY *.none /n/\n\
         COPY --from=s /o/*.none /n/\n",
    );
    let both = |name: &str| {
        files([
            (name, "755 0:0"),
            (&format!("{name}l1"), "644 0:0 one"),
            (&format!("{name}l2"), "644 0:0 one"),
        ])
    };
    let layers = fixture.layers(&built, 0);
    assert_eq!(layers, [both("d/"), both("e/"), files([]), files([])]);
}

#[test]
fn destinations_that_are_links() {
    let fixture = Fixture::new();
    fixture.write("d/f", "new");
    let base = "FROM busybox\nRUN echo t > /t; ln -s /t /l; ln -s /nope /m; ln -s /var/x /v\n";
    let built = fixture.build(&format!(
        "{base}COPY d/f /l\nCOPY d/f /m\nCOPY d /v\nWORKDIR /v\nWORKDIR s\nRUN pwd -P > p\n"
    ));
    let layers = fixture.layers(&built, 2);
    assert_eq!(layers[0], files([("t", "644 0:0 new")]));
    assert_eq!(layers[1], files([("nope", "644 0:0 new")]));
    assert_eq!(layers[2], files([("var/", "755 0:0"), ("var/x/", "755 0:0"), ("var/x/f", "644 0:0 new")]));
    assert_eq!(layers[3], files([("var/", "755 0:0"), ("var/x/", "755 0:0"), ("var/x/s/", "755 0:0")]));
    assert_eq!(layers[4]["var/x/s/p"], "644 0:0 /var/x/s");
    for step in ["COPY d/f /v/", "WORKDIR /v", "WORKDIR /v/s"] {
        let built = fixture.build(&format!("{base}{step}\n"));
        assert!(fixture.layers(&built, 2)[0].contains_key("var/x/"), "{step}");
    }
    let circle = fixture.build_with("FROM busybox\nRUN ln -s c /c\nCOPY d/f /c/x\n", &[]);
    assert!(circle.error().contains("COPY failed: open \"c/x\": Too many levels"), "{}", circle.stderr);
}

#[test]
fn a_linked_copy_knows_nothing_of_the_layers_below() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    let text = |first: &str| {
        format!(
            "FROM busybox\nRUN {first}; chmod 711 / && mkdir /t /p && ln -s /t /l && chmod 711 /p && chown 5:5 /p\nCOPY --link a /l/\n\
             COPY --link --chown=7:8 a /p/q/\nRUN stat -c '%n %a %u:%g' / /l /p /p/q/a > /o; cat /l/a >> /o\n"
        )
    };
    let built = fixture.build(&text("true"));
    let layers = fixture.layers(&built, 2);
    assert_eq!(layers[0], files([("l/", "755 0:0"), ("l/a", "644 0:0 1")]));
    assert_eq!(layers[1], files([("p/", "755 7:8"), ("p/q/", "755 7:8"), ("p/q/a", "644 7:8 1")]));
    assert_eq!(layers[2]["o"], "644 0:0 / 711 0:0\n/l 755 0:0\n/p 755 7:8\n/p/q/a 644 7:8\n1");
    assert_eq!(fixture.build(&text("true")).cached(), 4);
    let other = fixture.build(&text("echo other"));
    assert_eq!(other.cached(), 3, "another command with the same result: {}", other.stderr);
    let name = fixture.build_with("FROM busybox\nCOPY --link --chown=root a /l/\n", &[]);
    assert!(name.error().contains("unable to find user root"), "{}", name.stderr);
}

#[test]
fn of_arg_and_env_the_later_counts() {
    let fixture = Fixture::new();
    let built = fixture.build(
        "FROM busybox\nENV X=2\nARG X=3\nLABEL a=$X\nRUN echo $X > /x\nENV X=4\nLABEL b=$X\nRUN echo $X > /x\nARG X\nLABEL c=$X\n",
    );
    let configuration = built.configuration();
    assert_eq!(configuration["config"]["Labels"], json!({"a": "3", "b": "4", "c": "4"}));
    assert!(configuration["config"]["Env"].as_array().unwrap().contains(&json!("X=4")));
    let layers = fixture.layers(&built, 1);
    assert_eq!([&layers[0]["x"], &layers[1]["x"]], ["644 0:0 3", "644 0:0 4"]);
}

#[test]
fn the_environment_of_a_command() {
    let fixture = Fixture::new();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let built = fixture.build("FROM busybox\nENV PATH /opt/bin:$PATH\nRUN env > /e\n");
    assert_eq!(built.configuration()["config"]["Env"], json!([format!("PATH=/opt/bin:{path}")]));
    let layers = fixture.layers(&built, 1);
    let told = layers[0]["e"].strip_prefix("644 0:0 ").unwrap();
    // Variables that a shell adds by itself.
    let own = |line: &&str| ["SHLVL=", "PWD=", "OLDPWD="].iter().any(|name| line.starts_with(name));
    let mut told: Vec<&str> = told.lines().filter(|line| !own(line)).collect();
    told.sort_unstable();
    assert_eq!(told, ["HOME=/root", &format!("PATH=/opt/bin:{path}")]);
    let scratch = fixture.config("FROM scratch\nLABEL a=b\n");
    assert_eq!(scratch["config"]["WorkingDir"], "/");
    assert_eq!(scratch["config"]["Env"], json!([format!("PATH={path}")]));
}

#[test]
fn bind_mounts_of_the_context_belong_to_root() {
    let fixture = Fixture::new();
    let file = fixture.write("src/x", "x");
    chown(&file, Some(5), Some(6)).unwrap();
    fs::set_permissions(fixture.path("context/src"), fs::Permissions::from_mode(0o711)).unwrap();
    fixture.write("odd[1]*", "odd");
    let text = "FROM busybox\nWORKDIR /w\nRUN --mount=target=/c stat -c '%a %u:%g' /c/src/x /c/src > /o\nRUN --mount=source=src cat x > /x; stat -c %a . >> /x\n\
                RUN --mount=source=odd[1]*,target=/odd cat /odd > /x\nRUN --mount=target=/c,rw rm /c/src/x\n";
    let built = fixture.build(text);
    let layers = fixture.layers(&built, 2);
    assert_eq!(layers[0]["o"], "644 0:0 644 0:0\n711 0:0");
    assert_eq!(layers[1]["x"], "644 0:0 x711", "mounted at the working directory");
    assert_eq!(layers[2]["x"], "644 0:0 odd", "a path is no pattern");
    assert!(file.exists());
    chown(&file, Some(7), Some(8)).unwrap();
    assert_eq!(fixture.build(text).cached(), 5, "owners count for nothing");
    let missing = fixture.build_with("FROM busybox\nRUN --mount=source=x*,target=/x true\n", &[]);
    assert!(missing.error().contains("stat x*: file does not exist"), "{}", missing.stderr);
    let root = fixture.build_with("FROM busybox\nRUN --mount=source=src true\n", &[]);
    assert!(root.error().ends_with("invalid mount target \"/\""), "{}", root.stderr);
}

#[test]
fn a_cache_begins_with_what_its_stage_has() {
    let fixture = Fixture::new();
    let text = "FROM scratch AS s\nCOPY f /s/f\nCOPY f /r/f\nFROM busybox\n\
                RUN --mount=type=cache,id=c,from=s,source=/s,target=/c cat /c/f > /o; echo used > /c/f\n\
                RUN --mount=type=cache,id=c,from=s,source=/s,target=/c cat /c/f > /o\n\
                RUN --mount=type=cache,id=c,from=s,source=/r,target=/c cat /c/f > /o\n\
                RUN --mount=type=cache,id=c,target=/c ls -A /c > /o\n\
                RUN --mount=type=cache,id=c,target=/c,uid=7,mode=700 stat -c '%a %u' /c > /o\n";
    for content in ["one", "two"] {
        fixture.write("f", content);
        let built = fixture.build(text);
        let seen: Vec<String> = fixture.layers(&built, 1).iter().map(|layer| layer["o"].clone()).collect();
        let content = format!("644 0:0 {content}");
        assert_eq!(seen, [&content, "644 0:0 used", &content, "644 0:0", "644 0:0 700 7"]);
    }
    let broken = "FROM scratch AS s\nCOPY f /f\nFROM busybox\nRUN --mount=type=cache,id=b,from=s,source=/none,target=/c ls /c\n";
    for _ in 0..2 {
        let failed = fixture.build_with(broken, &[]);
        assert!(failed.error().contains("stat /none: file does not exist"), "{}", failed.stderr);
    }
}

#[test]
fn what_onbuild_copies_from_is_built() {
    let fixture = Fixture::new();
    let built = fixture.build(
        "FROM busybox AS a\nONBUILD COPY --from=b /x /y\nFROM busybox AS b\nRUN echo 1 > /x\nFROM a\n",
    );
    assert_eq!(fixture.layers(&built, 1), [files([("y", "644 0:0 1")])]);
    fixture.build("FROM busybox\nONBUILD COPY --from=tool /x /y\n");
    fixture.command().args(["-t", "with"]).arg(fixture.path("context")).assert().success();
    let built = fixture.build("FROM busybox AS tool\nRUN echo 2 > /x\nFROM with\n");
    assert_eq!(fixture.layers(&built, 1), [files([("y", "644 0:0 2")])]);
}

#[test]
fn the_epoch_as_an_argument() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /e\n";
    let built = fixture.build_with(text, &["--build-arg", "SOURCE_DATE_EPOCH=1000000000"]).ok();
    assert_eq!(built.configuration()["created"], "2001-09-09T01:46:40Z");
    assert_eq!(fixture.layers(&built, 1)[0]["e"], "644 0:0 1000000000");
    fixture.write("Dockerfile", text);
    let variable = |value: &str, arguments: &[&str]| {
        let mut command = fixture.command();
        command.env("SOURCE_DATE_EPOCH", value).args(["-t", "built"]).args(arguments);
        common::Built::new(command.arg(fixture.path("context")).output().unwrap())
    };
    let built = variable("1", &[]).ok();
    assert_eq!(built.configuration()["created"], "1970-01-01T00:00:01Z");
    assert_eq!(fixture.layers(&built, 1)[0]["e"], "644 0:0 1");
    let built = variable("1", &["--build-arg", "SOURCE_DATE_EPOCH=2"]).ok();
    assert_eq!(built.configuration()["created"], "1970-01-01T00:00:02Z", "the argument goes before");
    assert_eq!(
        variable("soon", &[]).error(),
        "img-build: read SOURCE_DATE_EPOCH \"soon\": it is not a number of seconds since 1970"
    );
}

#[test]
fn secrets() {
    let fixture = Fixture::new();
    let secret = fixture.path("secret");
    fs::write(&secret, "xyzzyx").unwrap();
    let text = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null && stat -c '%a %u' /run/secrets/s > /o\n\
                RUN --mount=type=secret,id=s,env=TOLD --mount=type=secret,target=/x/s,mode=444,uid=7 test $TOLD = xyz\"\"zyx && test $(cat /x/s) = xyz\"\"zyx && stat -c '%a %u' /x/s > /o\n\
                RUN --mount=type=secret,id=none --mount=type=secret,id=none,env=NONE --mount=type=ssh ls /run/secrets || echo ${NONE-unset} > /o\n";
    let given = format!("id=s,src={}", secret.display());
    let built = fixture.build_with(text, &["--secret", &given]).ok();
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[0], files([("o", "644 0:0 400 0")]), "and no place to mount it on");
    assert_eq!(layers[1], files([("o", "644 0:0 444 7")]));
    assert_eq!(layers[2], files([("o", "644 0:0 unset")]));
    fs::write(&secret, "other").unwrap();
    assert_eq!(fixture.build_with(text, &["--secret", &given]).ok().cached(), 3, "no part of the key");
    let found =
        std::process::Command::new("grep").args(["-rqa", "xyzzyx"]).arg(fixture.root()).status().unwrap();
    assert_eq!(found.code(), Some(1), "it stands nowhere in the store");
    let mut command = fixture.command();
    fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=V,env=A --mount=type=secret,id=w,env=B echo $A$B > /o\n",
    );
    command.env("V", "a").env("W", "b").args(["-t", "built", "--secret", "id=V", "--secret", "id=w,env=W"]);
    let built = common::Built::new(command.arg(fixture.path("context")).output().unwrap()).ok();
    assert_eq!(fixture.layers(&built, 1)[0]["o"], "644 0:0 ab");
    for (secret, expected) in [
        ("src=x", "secret \"src=x\" has no id: write id=ID,src=FILE"),
        ("id=a,src=b,env=c", "secret \"id=a,src=b,env=c\" has both src and env"),
        (
            "id=a,what=b",
            "secret \"id=a,what=b\": \"what=b\" is none of id=ID, src=FILE, env=VARIABLE, type=file|env",
        ),
    ] {
        let failed = fixture.build_with("FROM busybox\n", &["--secret", secret]);
        assert_eq!(failed.error(), format!("img-build: {expected}"));
    }
}

/// A web server with one file, which counts the requests for it.
fn serve(content: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut request).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let head = match request.split(' ').nth(1) {
                Some("/moved") => {
                    "HTTP/1.1 302 Found\r\nLocation: /dir/f.tar\r\nContent-Length: 0".to_owned()
                }
                Some("/none") => "HTTP/1.1 404 Not Found\r\nContent-Length: 0".to_owned(),
                _ => format!(
                    "HTTP/1.1 200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: {}",
                    content.len()
                ),
            };
            stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            if head.contains(" 200 ") {
                stream.write_all(content).unwrap();
            }
        }
    });
    (address, count)
}

#[test]
fn files_of_web_servers() {
    let fixture = Fixture::new();
    let (server, asked) = serve(b"hi");
    let digest = oci::Digest::of(b"hi").to_string();
    let text = format!(
        "FROM busybox\nADD {server}/f?x=1 /d/\nADD --chmod=755 --chown=7:8 {server}/moved /e\nRUN stat -c %Y /d/f > /t\n"
    );
    let built = fixture.build_with(&text, &["--keep-mtime"]).ok();
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[0], files([("d/", "755 0:0"), ("d/f", "600 0:0 hi")]));
    assert_eq!(layers[1], files([("e", "755 7:8 hi")]));
    assert_eq!(layers[2]["t"], "644 0:0 784111777");
    let checked = format!("FROM busybox\nADD --checksum={digest} {server}/f /d/\n");
    fixture.build(&checked);
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(fixture.build(&checked).cached(), 1);
    assert_eq!(asked.load(Ordering::SeqCst), before, "what may have one digest only is not asked for again");
    let zeros = "0".repeat(64);
    for (line, expected) in [
        (
            format!("ADD --checksum=sha256:{zeros} {server}/f /d/"),
            format!("ADD of \"{server}/f\": it has the digest {digest}, not sha256:{zeros}"),
        ),
        (format!("ADD {server}/none /d/"), format!("ADD failed: get {server}/none: 404 Not Found")),
        (
            format!("ADD --checksum={digest} x /d/"),
            format!("checksum \"{digest}\": its source is neither on a web server nor a repository of git"),
        ),
    ] {
        let failed = fixture.build_with(&format!("FROM busybox\n{line}\n"), &[]);
        assert!(failed.error().ends_with(&format!(":2: step 2/2: {expected}")), "{}", failed.stderr);
    }
}

#[test]
fn a_failed_build_leaves_no_file_of_an_earlier_one() {
    let fixture = Fixture::new();
    let (id, metadata) = (fixture.path("id"), fixture.path("metadata"));
    let files = ["--iidfile", id.to_str().unwrap(), "--metadata-file", metadata.to_str().unwrap()];
    fixture.build_with("FROM busybox\n", &files).ok();
    assert!(id.exists() && metadata.exists());
    fixture.build_with("FROM busybox\nRUN false\n", &files).error();
    assert!(!id.exists() && !metadata.exists());
    // What is no regular file stays.
    fixture.build_with("FROM busybox\nRUN false\n", &["--iidfile", "/dev/null"]).error();
    assert!(std::path::Path::new("/dev/null").exists());
}

#[test]
fn a_name_with_a_digest_cannot_be_given() {
    let fixture = Fixture::new();
    let name = format!("a@sha256:{}", "0".repeat(64));
    for arguments in [&["-t", &name][..], &["-o", &format!("type=image,name={name}")]] {
        let built = fixture.build_with("FROM scratch\n", arguments);
        assert_eq!(built.status, 2, "{}", built.stderr);
        assert!(built.stderr.contains("a name with a digest cannot be given"), "{}", built.stderr);
    }
}

#[test]
fn sources_of_several_kinds_are_copied_in_their_order() {
    let fixture = Fixture::new();
    let (server, _) = serve(b"web");
    fixture.write("dir/same", "local");
    fixture.write("other", "other");
    let file = |sources: &str| {
        let built = fixture.build(&format!("FROM scratch\nADD {sources} /d/\n"));
        let layer = &fixture.layers(&built, 0)[0];
        assert_eq!(layer["d/other"], "644 0:0 other");
        (layer["d/same"].clone(), built.cached())
    };
    let (web, local) = ("600 0:0 web".to_owned(), "644 0:0 local".to_owned());
    assert_eq!(file(&format!("other dir/same {server}/same")), (web.clone(), 0));
    assert_eq!(file(&format!("other {server}/same dir/same")), (local.clone(), 0));
    assert_eq!(file(&format!("{server}/same other dir/s*")), (local.clone(), 0));
    assert_eq!(file(&format!("other {server}/same dir/same")), (local, 1));
    assert_eq!(file(&format!("other dir/same {server}/same")), (web, 1));
    let refused = fixture.build_with(&format!("FROM scratch\nADD other {server}/same /d\n"), &[]);
    let error =
        "when using ADD with more than one source file, the destination must be a directory and end with a /";
    assert!(refused.error().ends_with(error), "{}", refused.stderr);
}
