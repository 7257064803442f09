//! Contexts that are not a directory, and other outputs than the image in the store.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;
#[path = "../../img-pull/tests/server/mod.rs"]
mod server;

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use common::{Built, Fixture};
use flate2::{Compression, write::GzEncoder};
use server::{Content, serve};

const COPIES: &str = "FROM scratch\nCOPY . /all/\n";

fn context() -> Vec<u8> {
    testkit::rootfs(|tree| {
        testkit::file(tree, "Dockerfile", 0o644, COPIES.as_bytes());
        testkit::file(tree, "other/file", 0o644, b"FROM scratch\nCOPY kept /only\n");
        testkit::file(tree, ".dockerignore", 0o644, b"secret\n");
        testkit::file(tree, "secret", 0o644, b"x");
        testkit::file(tree, "kept", 0o640, b"kept");
        testkit::symlink(tree, "outside", "/etc/passwd");
    })
}

fn compressed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn build(fixture: &Fixture, input: Vec<u8>, arguments: &[&str]) -> Built {
    let mut command = fixture.command();
    Built::new(command.args(["-t", "built"]).args(arguments).write_stdin(input).output().unwrap())
}

fn files(fixture: &Fixture, built: &Built) -> Vec<String> {
    fixture.layers(built, 0).into_iter().flatten().map(|(name, what)| format!("{name} {what}")).collect()
}

#[test]
fn an_archive_or_a_dockerfile_on_standard_input() {
    let fixture = Fixture::new();
    let all = [
        "all/ 755 0:0",
        "all/.dockerignore 644 0:0 secret",
        "all/Dockerfile 644 0:0 FROM scratch\nCOPY . /all/",
        "all/kept 640 0:0 kept",
        "all/other/ 755 0:0",
        "all/other/file 644 0:0 FROM scratch\nCOPY kept /only",
        "all/outside 777 0:0 -> /etc/passwd",
    ];
    for archive in [context(), compressed(&context())] {
        let built = build(&fixture, archive.clone(), &["-"]).ok();
        assert_eq!(files(&fixture, &built), all);
        let other = build(&fixture, archive.clone(), &["-f", "other/file", "-"]).ok();
        assert_eq!(files(&fixture, &other), ["only 640 0:0 kept"]);
        let missing = build(&fixture, archive.clone(), &["-f", "none", "-"]);
        assert_eq!(missing.error(), "img-build: read \"none\": No such file or directory");
        // The Dockerfile is read from the archive, whatever its links say.
        let outside = build(&fixture, archive, &["-f", "outside", "-"]);
        assert_eq!(outside.error(), "img-build: read \"outside\": No such file or directory");
    }
    let alone = build(&fixture, b"FROM scratch\nLABEL a=b\n".to_vec(), &["-"]).ok();
    assert_eq!(alone.configuration()["config"]["Labels"]["a"], "b");
    let wrong = build(&fixture, b"FROM scratch\nCOPY x /\n".to_vec(), &["-"]);
    assert!(wrong.stderr.contains("standard input:2\n--------------------\n"), "{}", wrong.stderr);
    assert!(
        wrong.error().starts_with("img-build: standard input:2: step 2/2: COPY failed: "),
        "{}",
        wrong.stderr
    );
    let both = build(&fixture, b"FROM scratch\n".to_vec(), &["-f", "x", "-"]);
    assert_eq!(
        both.error(),
        "img-build: standard input is a Dockerfile, not an archive: it cannot contain \"x\""
    );
    assert_eq!(build(&fixture, Vec::new(), &["-"]).status, 1);
    let of_kind = |name: &str, kind: tar::EntryType, link: &str| {
        testkit::rootfs(|tree| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(0);
            tree.append_link(&mut header, name, link).unwrap();
            if name != "Dockerfile" {
                testkit::file(tree, "Dockerfile", 0o644, COPIES.as_bytes());
            }
        })
    };
    for name in ["Dockerfile", ".dockerignore"] {
        let fifo = build(&fixture, of_kind(name, tar::EntryType::Fifo, "x"), &["-"]);
        assert!(fifo.error().ends_with("it is not a regular file"), "{}", fifo.stderr);
    }
    let outside =
        build(&fixture, of_kind(".dockerignore", tar::EntryType::Symlink, "/etc/passwd"), &["-"]).ok();
    assert!(files(&fixture, &outside).contains(&"all/.dockerignore 777 0:0 -> /etc/passwd".to_owned()));
    assert_eq!(fs::read_dir(fixture.root().join("build")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn at_an_address() {
    let fixture = Fixture::new();
    let mut content = Content::new();
    content.insert("/context.tar.gz".to_owned(), compressed(&context()));
    content.insert("/Dockerfile".to_owned(), b"FROM scratch\nLABEL a=b\n".to_vec());
    let (host, _) = serve(content, |_, _, _| false);
    let built =
        build(&fixture, Vec::new(), &["-f", "other/file", &format!("http://{host}/context.tar.gz")]).ok();
    assert_eq!(files(&fixture, &built), ["only 640 0:0 kept"]);
    let built = build(&fixture, Vec::new(), &[&format!("http://{host}/Dockerfile")]).ok();
    assert_eq!(built.configuration()["config"]["Labels"]["a"], "b");
    let missing = build(&fixture, Vec::new(), &[&format!("http://{host}/none")]);
    assert_eq!(
        missing.error(),
        format!("img-build: get build context: get http://{host}/none: 404 Not Found")
    );
    let git = build(&fixture, Vec::new(), &["git@h:x.git"]);
    assert!(git.error().contains("repositories over SSH are not fetched"), "{}", git.stderr);
}

#[test]
fn the_context_has_a_dockerfile_in_lower_case() {
    let fixture = Fixture::new();
    fixture.write("dockerfile", "FROM scratch\nLABEL a=lower\n");
    let run = || {
        let mut command = fixture.command();
        Built::new(command.args(["-t", "built"]).arg(fixture.path("context")).output().unwrap()).ok()
    };
    assert_eq!(run().configuration()["config"]["Labels"]["a"], "lower");
    fixture.write("Dockerfile", "FROM scratch\nLABEL a=usual\n");
    assert_eq!(run().configuration()["config"]["Labels"]["a"], "usual");
}

fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap()) {
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
            let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
            found.push(format!("{name} {:o} {owner}", metadata.permissions().mode() & 0o7777));
            pending.extend(metadata.is_dir().then(|| entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn files_and_archives_of_the_image() {
    let fixture = Fixture::new();
    let out = fixture.path("out");
    let text = "FROM busybox AS made\nRUN mkdir /o && echo one > /o/one && echo two > /o/two && rm /o/two && chown 7 /o/one && \
                chmod 4711 /o/one && ln -s /etc/passwd /o/link && \
                mkdir /o/old && touch /o/old/x && touch -d @1000000000 /o/old/x /o/old\nFROM scratch\nCOPY --from=made /o /\n";
    fixture
        .build_with(text, &["-o", &out.display().to_string(), "--build-arg", "SOURCE_DATE_EPOCH=1500000000"])
        .ok();
    assert_eq!(tree(&out), ["link 777 0", "old 755 0", "old/x 644 0", "one 4711 7"]);
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&fs::metadata(out.join("old")).unwrap()), 1_000_000_000);
    // Existing files are replaced and not followed, and other files stay.
    fs::remove_file(out.join("one")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", out.join("one")).unwrap();
    fs::write(out.join("mine"), "").unwrap();
    let before = fs::read("/etc/hostname").ok();
    fixture.build_with(text, &["-o", &format!("type=local,dest={}", out.display())]).ok();
    assert_eq!(fs::read("/etc/hostname").ok(), before);
    assert_eq!(fs::read_to_string(out.join("one")).unwrap(), "one\n");
    assert!(out.join("mine").exists());

    let path = |name: &str| fixture.path(name).display().to_string();
    let archives = ["tar", "oci", "docker"].map(|kind| format!("type={kind},dest={}", path(kind)));
    let arguments: Vec<&str> = archives.iter().flat_map(|archive| ["-o", archive]).collect();
    let built = fixture.build_with(text, &arguments).ok();
    let names = |name: &str| {
        let mut tar = tar::Archive::new(fs::File::open(fixture.path(name)).unwrap());
        let names = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("tar"), ["link", "one", "old/", "old/x"]);
    assert!(names("docker").contains(&"manifest.json".to_owned()));
    assert!(names("oci").contains(&"oci-layout".to_owned()));
    assert_eq!(files(&fixture, &built).len(), 4);
    let refused = fixture.build_with(text, &["-o", "type=tar,dest=-"]);
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("standard output has the document"), "{}", refused.stderr);
}

#[test]
fn what_run_has_and_what_the_manifest_says() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN cat /etc/hosts > /hosts; df /dev/shm | tail -n 1 > /shm; ulimit -n > /limit; ulimit -Hn >> /limit\n";
    let flags = [
        "--add-host",
        "one:10.0.0.1",
        "--add-host",
        "two=fe80::1",
        "--shm-size",
        "3m",
        "--ulimit",
        "nofile=100:200",
    ];
    let built = fixture.build_with(text, &flags).ok();
    let made = &fixture.layers(&built, 1)[0];
    assert!(
        made["hosts"].ends_with("\n127.0.1.1\tstave-build\n10.0.0.1\tone\nfe80::1\ttwo"),
        "{}",
        made["hosts"]
    );
    assert!(made["shm"].contains(" 3072 "), "{}", made["shm"]);
    assert_eq!(made["limit"], "644 0:0 100\n200");
    let again = fixture.build_with(text, &["--add-host", "one:10.0.0.2"]).ok();
    assert!(fixture.layers(&again, 1)[0]["hosts"].ends_with("10.0.0.2\tone"), "other hosts are another step");

    let metadata = fixture.path("metadata.json");
    let flags = [
        "--annotation",
        "b=1",
        "--annotation",
        "manifest:a=2",
        "--metadata-file",
        metadata.to_str().unwrap(),
    ];
    let built = fixture.build_with("FROM scratch\nLABEL x=y\n", &flags).ok();
    let layout = fixture.layout();
    let manifest = layout.manifest(&layout.find("built").unwrap()).unwrap();
    let annotations = manifest.annotations().clone().unwrap();
    assert_eq!((annotations["a"].as_str(), annotations["b"].as_str(), annotations.len()), ("2", "1", 2));
    let written: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(written["containerimage.digest"], built.document["image"]["descriptor"]["digest"]);
    assert_eq!(written["containerimage.config.digest"], manifest.config().digest().to_string());
    assert_eq!(written["image.name"], "docker.io/library/built:latest");
    let refused = fixture.build_with("FROM scratch\n", &["--annotation", "index:a=b"]);
    assert!(refused.stderr.contains("annotations of the index are not written"), "{}", refused.stderr);
}
