//! Builds give the same bytes every time, and list what they have read.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use common::{Built, Fixture};

fn digest(built: &Built) -> String {
    built.document["image"]["descriptor"]["digest"].as_str().unwrap().to_owned()
}

fn touch(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// The times in an image's layers above its base.
fn times(fixture: &Fixture) -> Vec<u64> {
    let layout = fixture.layout();
    let image = layout.image(&layout.find("built").unwrap(), None).unwrap();
    let layers = image.layers().unwrap();
    let layer = layers.last().unwrap().0;
    let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(layout.blob_reader(layer).unwrap()));
    tar.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect()
}

#[test]
fn the_same_image_from_another_checkout_at_another_time() {
    let text = "FROM busybox\nCOPY . /src/\nWORKDIR /src/new\nRUN date > /dev/null; mkdir /d; cp -p /src/b /d; touch /d/x\nENV A=b\n";
    let digests: Vec<String> = [["a", "b"], ["b", "a"]]
        .into_iter()
        .enumerate()
        .map(|(round, order)| {
            let fixture = Fixture::new();
            for name in order {
                let path = fixture.write(name, name);
                touch(&path, 1_000_000_000 + round as u64 * 86_400);
            }
            let built = fixture.build(text);
            assert_eq!(built.configuration()["created"], "1980-01-01T00:00:00Z");
            digest(&built)
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn times_are_those_of_the_base_or_the_files_own() {
    let fixture = Fixture::new();
    let file = fixture.write("a", "a");
    touch(&file, 86_400);
    fixture.build("FROM scratch\nCOPY a /\n");
    assert_eq!(times(&fixture), [315_532_800]);
    fixture.build_with("FROM scratch\nCOPY a /\n", &["--keep-mtime"]).ok();
    assert_eq!(times(&fixture), [86_400]);
    // With SOURCE_DATE_EPOCH, only newer times change.
    fixture.build_with("FROM scratch\nCOPY a /\n", &["--build-arg", "SOURCE_DATE_EPOCH=1000"]).ok();
    assert_eq!(times(&fixture), [1000]);
    fixture.build_with("FROM scratch\nCOPY a /\n", &["--build-arg", "SOURCE_DATE_EPOCH=100000"]).ok();
    assert_eq!(times(&fixture), [86_400]);
    // A base image passes its time on to images based on it.
    let base = fixture.build_with(
        "FROM scratch\nCOPY a /\n",
        &["--build-arg", "SOURCE_DATE_EPOCH=200000000", "-t", "base"],
    );
    assert_eq!(base.ok().configuration()["created"], "1976-05-03T19:33:20Z");
    let built = fixture.build("FROM base\nCOPY a /b\n");
    assert_eq!(built.configuration()["created"], "1976-05-03T19:33:20Z");
    assert_eq!(times(&fixture), [200_000_000]);
}

#[test]
fn what_was_read_is_a_rule_of_make() {
    let fixture = Fixture::new();
    for name in ["a", "b c", "d/e", "ignored", "not"] {
        fixture.write(name, name);
    }
    fixture.write(".dockerignore", "ignored\n");
    let text = "FROM busybox AS x\nCOPY a \"b*\" /\nCOPY d /d/\nCOPY ignore[d] /\nFROM x\nRUN --mount=target=/m,source=d true\n";
    let rule = || {
        let (file, stamp) = (fixture.path("rule"), fixture.path("stamp"));
        let arguments = ["--depfile", file.to_str().unwrap(), "--deptarget", stamp.to_str().unwrap()];
        let built = fixture.build_with(text, &arguments).ok();
        assert!(stamp.exists());
        (fs::read_to_string(file).unwrap(), built.cached())
    };
    let (first, _) = rule();
    let context = fixture.path("context").display().to_string();
    let wanted = ["", "/.dockerignore", "/Dockerfile", "/a", "/b\\ c", "/d", "/d/e"]
        .map(|name| format!("{context}{name}"));
    let expected = format!(
        "{}: \\\n  {}\n{}",
        fixture.path("stamp").display(),
        wanted.join(" \\\n  "),
        wanted.iter().map(|name| format!("\n{name}:\n")).collect::<String>()
    );
    assert_eq!(first, expected);
    let (again, cached) = rule();
    assert_eq!((again, cached), (expected, 4), "also where all comes from the cache");
}

#[test]
fn make_builds_only_what_has_changed() {
    let fixture = Fixture::new();
    let top = fixture.path("images");
    for (name, text) in [
        ("base", "FROM busybox\nCOPY f /base\n"),
        ("app", "FROM base\nCOPY f /app\n"),
        ("more", "FROM base\nCOPY f /more\n"),
    ] {
        fs::create_dir_all(top.join(name)).unwrap();
        fs::write(top.join(name).join("Dockerfile"), text).unwrap();
        fs::write(top.join(name).join("f"), name).unwrap();
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image.mk");
    let makefile = format!(
        "all: .images/app.stamp .images/more.stamp\n.images/app.stamp .images/more.stamp: .images/base.stamp\ninclude {}\n",
        rules.display()
    );
    fs::write(top.join("Makefile"), makefile).unwrap();
    let make = |arguments: &[&str]| {
        let output = Command::new("make")
            .current_dir(&top)
            .args(arguments)
            .env(
                "IMG_BUILD",
                format!("{} --network none --quiet", assert_cmd::cargo::cargo_bin!("img-build").display()),
            )
            .env("STAVE_ROOT", fixture.root())
            .env("STAVE_RUN", fixture.path("run"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.contains("img-build")).count()
    };
    assert_eq!(make(&["-j2"]), 3);
    assert_eq!(make(&[]), 0, "nothing has changed");
    // Make compares times. A much later time is enough for every file system.
    touch(&top.join("app/f"), 4_000_000_000);
    assert_eq!(make(&["-n"]), 1);
    touch(&top.join("app/f"), 1_000_000_000);
    touch(&top.join("base/f"), 4_000_000_000);
    assert_eq!(make(&["-n", "-j2"]), 3);
    fs::remove_file(top.join("more/f")).unwrap();
    fs::write(top.join("more/Dockerfile"), "FROM base\n").unwrap();
    touch(&top.join("base/f"), 1_000_000_000);
    assert_eq!(make(&[]), 1, "a file that has gone is no error");
}

#[test]
fn checks_alone() {
    let fixture = Fixture::new();
    fixture.write("Dockerfile", "FROM busybox\nCMD sleep 1\n");
    let lint = |arguments: &[&str]| {
        let mut command = fixture.command();
        let output = command.arg("--lint").args(arguments).arg(fixture.path("context")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, text) = lint(&[]);
    let file = fixture.path("context/Dockerfile").display().to_string();
    let rule = "-".repeat(20);
    let expected = format!(
        "WARNING: JSONArgsRecommended\nJSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
         {file}:2\n{rule}\n   1 |     FROM busybox\n   2 | >>> CMD sleep 1\n{rule}\n\n"
    );
    assert_eq!((status, text), (Some(1), expected));
    assert_eq!(lint(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]), (Some(0), String::new()));
    let built = fixture.build_with("# check=error=true\nFROM busybox\nCMD x\n", &[]);
    assert_eq!(built.error(), "img-build: lint violation found for rules: JSONArgsRecommended");
    let built = fixture.build("FROM busybox\nCMD x\n");
    assert!(built.stderr.contains("Dockerfile:2: JSONArgsRecommended: "), "{}", built.stderr);
    // All stages are checked, except with a target. A build checks what it builds.
    let unused = "FROM busybox AS a\nENV old form\nFROM busybox AS b\n";
    let built = fixture.build(unused);
    assert!(!built.stderr.contains("LegacyKeyValueFormat"), "{}", built.stderr);
    assert!(lint(&[]).1.contains("WARNING: LegacyKeyValueFormat\n"));
    assert_eq!(lint(&["--target", "b"]), (Some(0), String::new()));
    // An instruction that is wrong hides nothing about those before it.
    let built = fixture.build_with("FROM busybox AS A\nMAINTAINER me\nMAINTAIN\n", &[]);
    let (first, rest) = built.stderr.split_once('\n').unwrap();
    assert!(first.contains("Dockerfile:1: StageNameCasing: "), "{first}");
    assert!(rest.contains("Dockerfile:2: MaintainerDeprecated: "), "{rest}");
    assert!(built.error().contains("unknown instruction: MAINTAIN"), "{rest}");
}

#[test]
fn noise_goes_only_where_that_is_wanted() {
    let fixture = Fixture::new();
    let base = testkit::rootfs(|tree| {
        testkit::file(tree, "bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
        testkit::symlink(tree, "bin/sh", "busybox");
        testkit::file(tree, "p/__pycache__/a.pyc", 0o644, b"old");
    });
    fixture.load("base", &base, serde_json::json!({}));
    let noise = "for f in /var/log/apt/history.log /var/log/dpkg.log /var/cache/ldconfig/aux-cache /p/__pycache__/a.pyc \
                 /q/__pycache__/b.pyc; do /bin/busybox mkdir -p ${f%/*}; /bin/busybox head -c 9 /dev/urandom > $f; done";
    let kept = "echo kept > /p/a.py; echo kept > /p/own.pyc; echo kept > /q/__pycache__/text";
    let text = format!("FROM base\nRUN {noise}; {kept}\n");
    let build = |flags: &[&str]| fixture.build_with(&text, &[&["--no-cache"], flags].concat()).ok();
    assert_ne!(digest(&build(&[])), digest(&build(&[])));
    let built = build(&["--normalize"]);
    assert_eq!(digest(&built), digest(&build(&["--normalize"])));
    let layer = fixture.layers(&built, 1).remove(0);
    let files = |end: &str| layer.iter().filter(|(name, _)| name.ends_with(end)).collect::<Vec<_>>();
    for (_, what) in files(".log") {
        assert_eq!(what, "644 0:0", "it is empty");
    }
    assert_eq!((files(".log").len(), files("aux-cache").len(), files("b.pyc").len()), (2, 0, 0));
    // A file of the base image does not reappear.
    assert!(layer.contains_key("p/.wh.__pycache__"), "{layer:?}");
    for name in ["p/a.py", "p/own.pyc", "q/__pycache__/text"] {
        assert_eq!(layer[name], "644 0:0 kept");
    }
    // A link does not lead to files of the host, and another name of a log keeps its content.
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("ldconfig")).unwrap();
    let file = host.path().join("ldconfig/aux-cache");
    fs::write(&file, "of the host").unwrap();
    let linked = format!(
        "FROM base\nRUN /bin/busybox mkdir -p /var/log && /bin/busybox ln -s {} /var/cache && \
         echo kept > /data && /bin/busybox chmod 640 /data && /bin/busybox ln /data /var/log/data.log\n",
        host.path().display()
    );
    let built = fixture.build_with(&linked, &["--normalize"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "of the host");
    let layer = fixture.layers(&built, 1).remove(0);
    assert_eq!((&*layer["data"], &*layer["var/log/data.log"]), ("640 0:0 kept", "640 0:0"));
    // The cache keeps both results.
    assert_ne!(
        digest(&fixture.build_with(&text, &["--normalize"]).ok()),
        digest(&fixture.build_with(&text, &[]).ok())
    );
}

/// The prerequisites of the rule that a build of this Dockerfile writes, relative to the context.
fn prerequisites(fixture: &Fixture, text: &str, arguments: &[&str]) -> Vec<String> {
    let (file, stamp) = (fixture.path("rule"), fixture.path("stamp"));
    let own = ["--depfile", file.to_str().unwrap(), "--deptarget", stamp.to_str().unwrap()];
    fixture.build_with(text, &[&own, arguments].concat()).ok();
    let rule = fs::read_to_string(file).unwrap();
    let context = fixture.path("context").display().to_string();
    let lines = rule.lines().skip(1).take_while(|line| !line.is_empty());
    let name = |line: &str| line.trim().trim_end_matches(" \\").replacen(&context, "", 1);
    lines.map(name).collect()
}

#[test]
fn what_decided_which_files_were_found_is_in_the_rule() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new();
    for name in ["real/f", "a/b/c/x.go", "a/other/y", "p/q/z"] {
        fixture.write(name, name);
    }
    symlink("real", fixture.path("context/link")).unwrap();
    symlink("f", fixture.path("context/real/name")).unwrap();
    for (copy, expected) in [
        ("COPY link/name /x", &["", "/Dockerfile", "/link", "/real", "/real/f", "/real/name"][..]),
        ("COPY a/*/c/*.go /x/", &["/Dockerfile", "/a", "/a/b", "/a/b/c", "/a/b/c/x.go", "/a/other"]),
        ("COPY a/*/none* /x/", &["/Dockerfile", "/a", "/a/b", "/a/other"]),
        ("COPY --parents a/**/*.go /x/", &["/Dockerfile", "/a", "/a/b", "/a/b/c", "/a/b/c/x.go", "/a/other"]),
        ("RUN --mount=source=link/f,target=/x true", &["", "/Dockerfile", "/link", "/real/f"]),
    ] {
        let found = prerequisites(&fixture, &format!("FROM busybox\n{copy}\n"), &[]);
        assert_eq!(found, expected, "{copy}");
    }
}

#[test]
fn the_index_of_a_layout_is_in_the_rule() {
    let fixture = Fixture::new();
    let layout = fixture.path("layout");
    let output = format!("type=oci,dest={}", fixture.path("layout.tar").display());
    fixture.build_with("FROM busybox\n", &["-o", &output]).ok();
    fs::create_dir(&layout).unwrap();
    let unpacked =
        Command::new("tar").arg("-xf").arg(fixture.path("layout.tar")).arg("-C").arg(&layout).status();
    assert!(unpacked.unwrap().success());
    for (path, files) in
        [("layout", &["layout/index.json", "layout/oci-layout"][..]), ("layout.tar", &["layout.tar"])]
    {
        let named = format!("other=oci-layout://{}", fixture.path(path).display());
        let found = prerequisites(&fixture, "FROM other\n", &["--build-context", &named]);
        for file in files {
            assert!(found.contains(&fixture.path(file).display().to_string()), "{file}: {found:?}");
        }
    }
}

#[test]
fn make_understands_every_name_in_the_rule() {
    let fixture = Fixture::new();
    let names =
        ["a b", "a:b", "a#b", "a$b", "a%b", "a=b", "a\\b", "a\\ b", "~a", "a[b]", "'a\"", "ä", "a\\\\  c"];
    for name in names {
        fixture.write(name, name);
    }
    fixture.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let makefile = "all: stamp\nstamp:\n\t@echo made\n-include rule\n";
    fixture.write(".dockerignore", "Makefile\nrule\nstamp\n");
    fixture.write("Makefile", makefile);
    let context = fixture.path("context");
    let mut build = fixture.command();
    let arguments = ["-q", "-t", "built", "--depfile", "rule", "--deptarget", "stamp", "."];
    build.current_dir(&context).args(arguments).assert().success();
    let set = |name: &str, seconds: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::open(context.join(name)).unwrap().set_modified(time).unwrap();
    };
    let make = || {
        let output = Command::new("make").current_dir(&context).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().contains("made")
    };
    for name in names.iter().chain(&["Dockerfile", ".dockerignore", "."]) {
        set(name, 1000);
    }
    set("stamp", 2000);
    assert!(!make());
    for name in names {
        set(name, 3000);
        assert!(make(), "{name}");
        set(name, 1000);
    }
    // A file with a name that is in no rule of its own must be there.
    for name in names.iter().filter(|name| !name.contains(['%', '='])) {
        fs::remove_file(context.join(name)).unwrap();
        assert!(make(), "{name}");
        fixture.write(name, "");
        set(name, 1000);
        set(".", 1000);
    }
}
