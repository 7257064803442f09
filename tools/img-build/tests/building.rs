//! The cache, failures, and the remains of a killed build.

mod common;

use std::{fs, process::Stdio, time::Duration};

use common::{Built, Fixture, names, runs};

#[test]
fn what_is_a_hit_and_what_a_miss() {
    let fixture = Fixture::new();
    let file = fixture.write("a", "1");
    let text = "FROM busybox\nARG A=x\nRUN echo first\nCOPY a /a\nRUN echo second\nARG B=y\nRUN echo $B\nLABEL l=m\n";
    let cached = |arguments: &[&str]| fixture.build_with(text, arguments).ok().cached();
    assert_eq!(cached(&[]), 0);
    assert_eq!(cached(&[]), 7);
    fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(cached(&[]), 7, "a touched file is the same file");
    fixture.write("unused", "x");
    assert_eq!(cached(&[]), 7, "what is not copied does not count");
    assert_eq!(cached(&["--no-cache"]), 0);
    fixture.write("a", "2");
    let changed = fixture.build_with(text, &[]).ok();
    assert!(
        !changed.stderr.contains("\nfirst\n") && changed.stderr.contains("\nsecond\n"),
        "{}",
        changed.stderr
    );
    let argument = fixture.build_with(text, &["--build-arg", "B=z"]).ok();
    assert!(
        !argument.stderr.contains("\nsecond\n") && argument.stderr.contains("\nz\n"),
        "{}",
        argument.stderr
    );
    let earlier = fixture.build_with(text, &["--build-arg", "A=z"]).ok();
    assert!(earlier.stderr.contains("\nfirst\n"), "{}", earlier.stderr);
}

#[test]
fn an_entry_without_its_layer_is_not_used() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN echo x > /x\nRUN cat /x\n";
    let first = fixture.build(text);
    fs::remove_dir_all(fixture.root().join("layers")).unwrap();
    let unpacked = fixture.build_with("FROM busybox\nRUN echo x > /x\nRUN cat /x && true\n", &[]).ok();
    assert_eq!(unpacked.cached(), 1, "a directory is unpacked again from its blob");
    let layout = fixture.layout();
    let image = layout.image(&layout.find("built").unwrap(), None).unwrap();
    let (layer, _) = image.layers().unwrap()[1];
    fs::remove_file(layout.blob_path(&layer.digest().to_string().parse().unwrap())).unwrap();
    let again = fixture.build(text);
    assert_eq!(again.cached(), 1, "the first step runs again, and makes the same bytes");
    assert_eq!(first.document["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
}

#[test]
fn a_step_that_fails() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN echo out; echo err >&2; exit 7\nRUN echo never\n";
    let failed = fixture.build_with(text, &[]);
    assert!(
        failed.stderr.contains("Step 2/3 : RUN echo out; echo err >&2; exit 7\nout\nerr\n"),
        "{}",
        failed.stderr
    );
    let file = fixture.path("context/Dockerfile");
    let expected = format!(
        "img-build: {}:2: step 2/3: The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7",
        file.display()
    );
    assert_eq!(failed.error(), expected);
    assert!(failed.document["error"].is_object() && failed.document["image"].is_null());
    assert!(fixture.layout().resolve("built").unwrap().is_none());
    assert_eq!(names(&fixture.root().join("build")), [""; 0]);
    let quiet = fixture.build_with(text, &["-q"]);
    let excerpt = format!(
        "out\nerr\n{}:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo out; echo err >&2; exit 7\n   \
         3 |     RUN echo never\n--------------------\n{expected}\n",
        file.display()
    );
    assert_eq!(quiet.stderr, excerpt, "and no hint: the step looked for no network");
    let lost = fixture.build_with("FROM busybox\nRUN nc -w 1 192.0.2.1 80\n", &["-q"]);
    let hint = "hint: the step had no network and tried to reach it; img-build --network default or host gives it one\n";
    assert!(lost.stderr.ends_with(hint), "{}", lost.stderr);
    let missing = fixture.build_with("FROM busybox\nRUN [\"/nothing\"]\n", &[]);
    assert!(missing.error().ends_with("returned a non-zero code: 127"), "{}", missing.stderr);
    let killed = fixture.build_with("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n", &[]);
    assert!(killed.error().ends_with("returned a non-zero code: 137"), "{}", killed.stderr);
}

/// Dockerfiles that are wrong, and the end of the error of each.
const WRONG: &[(&str, &str)] = &[
    ("", ":1: file with no instructions"),
    ("FROM busybox\nFOO bar\n", ":2: unknown instruction: FOO"),
    ("FROM debian\n", ":1: step 1/1: no image \"debian\" in the store"),
    (
        "FROM busybox\nCOPY x /\n",
        ":2: step 2/2: COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist",
    ),
    (
        "FROM busybox\nADD ../x /\n",
        ":2: step 2/2: ADD failed: file not found in build context or excluded by .dockerignore: stat ../x: file does not exist",
    ),
    (
        "FROM busybox\nCOPY --chown=who Dockerfile /\n",
        ":2: step 2/2: unable to find user who: no matching entries in passwd file",
    ),
    (
        "FROM busybox\nCOPY --chmod=x Dockerfile /\n",
        ":2: step 2/2: COPY failed: invalid chmod parameter: 'x'. it should be octal string and between 0 and 07777",
    ),
    (
        "FROM busybox\nUSER who\nRUN true\n",
        ":3: step 3/3: find user \"who\" in /etc/passwd of the container: no such user",
    ),
    (
        "FROM busybox\nWORKDIR /etc/passwd\n",
        ":2: step 2/2: create working directory \"/etc/passwd\": Not a directory",
    ),
    (
        "FROM busybox\nADD git@x:y /\n",
        ":2: step 2/2: git@x:y: repositories over SSH are not fetched; write its address with https://",
    ),
    (
        "FROM busybox\nADD --checksum=sha256:00 http://x/y /\n",
        ":2: step 2/2: checksum \"sha256:00\": not a digest: sha256:… or sha512:…",
    ),
    ("FROM busybox\nRUNN true\n", ":2: unknown instruction: RUNN (did you mean RUN?)"),
    (
        "FROM busybox\nRUN --mount=type=secret,id=s,required true\n",
        ":2: step 2/2: mount \"type=secret,id=s,required\": secret \"s\" is required, and was not given",
    ),
    (
        "FROM busybox\nRUN --mount=type=bind,target=/ true\n",
        ":2: step 2/2: mount \"type=bind,target=/\": invalid mount target \"/\"",
    ),
    ("FROM busybox\nENV a=${b:?unset}\n", ":2: step 2/2: b: unset"),
    ("FROM busybox AS a\nCOPY --from=a / /\n", ":2: circular dependency detected on stage: a"),
];

#[test]
fn what_is_wrong_is_said() {
    let fixture = Fixture::new();
    let context = fixture.path("context").display().to_string();
    for (dockerfile, expected) in WRONG {
        let built = fixture.build_with(dockerfile, &["--pull=never"]);
        assert_eq!(built.error(), format!("img-build: {context}/Dockerfile{expected}"), "{dockerfile}");
    }
    let built = fixture.build_with("FROM debian\n", &["--pull=never"]);
    assert!(
        built.stderr.ends_with("hint: get it first: img-pull debian, or img-load -t debian FILE\n"),
        "{}",
        built.stderr
    );
    let built = fixture.build_with("FROM busybox\n", &["--target", "x"]);
    assert_eq!(built.error(), "img-build: target stage \"x\" could not be found");
    let run = |arguments: &[&str]| Built::new(fixture.command().args(arguments).output().unwrap());
    let missing = fixture.path("missing").display().to_string();
    assert_eq!(
        run(&[&missing]).error(),
        format!("img-build: open build context {missing:?}: No such file or directory")
    );
    fs::remove_file(fixture.path("context/Dockerfile")).unwrap();
    let dockerfile = fixture.path("context/Dockerfile");
    assert_eq!(
        run(&[&context]).error(),
        format!("img-build: read {dockerfile:?}: No such file or directory")
    );
    let broken = fixture.write(".dockerignore", "!\n");
    let ignored = fixture.build_with("FROM busybox\nCOPY Dockerfile /\n", &[]);
    assert!(
        ignored.error().ends_with(&format!("step 2/2: {broken:?}: illegal exclusion pattern: \"!\"")),
        "{}",
        ignored.stderr
    );
}

#[test]
fn a_root_that_cannot_be_written() {
    let fixture = Fixture::new();
    fixture.write("Dockerfile", "FROM busybox\nRUN true\n");
    let root = fixture.root().display().to_string();
    let script = format!("mount --bind {root} {root} && mount -o remount,ro,bind {root} && exec \"$@\"");
    let mut command = assert_cmd::Command::new("unshare");
    let output = command
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(assert_cmd::cargo::cargo_bin!("img-build"))
        .env("STAVE_ROOT", &root)
        .arg(fixture.path("context"))
        .output()
        .unwrap();
    let built = Built::new(output);
    assert!(built.error().ends_with("Read-only file system"), "{}", built.stderr);
}

#[test]
fn a_killed_build_leaves_no_process_and_no_mount() {
    let fixture = Fixture::new();
    fixture.write("Dockerfile", "FROM busybox\nRUN (sleep 98765 &) ; sleep 98765\n");
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let limit = Duration::from_secs(20);
    for _ in 0..3 {
        let mut build = std::process::Command::new(assert_cmd::cargo::cargo_bin!("img-build"))
            .env("STAVE_ROOT", fixture.root())
            .arg(fixture.path("context"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        testkit::wait_for("the step", limit, || runs("sleep\u{0}98765"));
        build.kill().unwrap();
        build.wait().unwrap();
        testkit::wait_for("the end of the step", limit, || !runs("sleep\u{0}98765"));
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(names(&fixture.root().join("build")).len(), 1, "the last one's directory is left");
    fixture.build("FROM busybox\nRUN true\n");
    assert_eq!(names(&fixture.root().join("build")), [""; 0], "the next build removes it");
}

#[test]
fn builds_at_once() {
    let fixture = Fixture::new();
    fixture.write("Dockerfile", "FROM busybox\nARG N\nRUN echo same > /same\nRUN echo $N > /n\n");
    let builds: Vec<_> = (0..6)
        .map(|number| {
            std::process::Command::new(assert_cmd::cargo::cargo_bin!("img-build"))
                .env("STAVE_ROOT", fixture.root())
                .args(["-t", &format!("at-once:{number}"), "--build-arg", &format!("N={}", number % 3)])
                .arg(fixture.path("context"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for build in builds {
        Built::new(build.wait_with_output().unwrap()).ok();
    }
    let layout = fixture.layout();
    for number in 0..6 {
        layout.image(&layout.find(&format!("at-once:{number}")).unwrap(), None).unwrap();
    }
    assert_eq!(names(&fixture.root().join("build")), [""; 0]);
}

#[test]
fn others_read_the_image() {
    let fixture = Fixture::new();
    fixture.build(
        "FROM busybox\nRUN mkdir /d; echo x > /d/x; rm /www/index.html\nWORKDIR /d\nCMD [\"/bin/sh\"]\n",
    );
    let store = format!("oci:{}:docker.io/library/built:latest", fixture.root().join("images").display());
    let copy = fixture.path("copy");
    let skopeo = assert_cmd::Command::new("skopeo").args(["inspect", "--config", &store]).output().unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
    let config: serde_json::Value = serde_json::from_slice(&skopeo.stdout).unwrap();
    assert_eq!(config["config"]["WorkingDir"], "/d");
    assert_eq!(config["history"].as_array().unwrap().len(), 4);
    let to = format!("oci:{}:built", copy.display());
    assert_cmd::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", &store, &to])
        .assert()
        .success();
    let image = format!("{}:built", copy.display());
    let bundle = fixture.path("bundle");
    assert_cmd::Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).assert().success();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/d/x")).unwrap(), "x\n");
    assert!(!bundle.join("rootfs/www/index.html").exists());
}

#[test]
fn a_dockerfile_from_standard_input() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    let mut command = fixture.command();
    command
        .args(["-t", "built", "-f", "-"])
        .arg(fixture.path("context"))
        .write_stdin("FROM scratch\nCOPY a /\n");
    let built = Built::new(command.output().unwrap()).ok();
    assert_eq!(fixture.layers(&built, 0), [common::files([("a", "644 0:0 1")])]);
}

#[test]
fn explained() {
    let fixture = Fixture::new();
    let explained =
        fixture.build_with("FROM busybox AS b\nRUN a | b\nCOPY a /b\nWORKDIR /w\nENV a=b\n", &["--explain"]);
    assert_eq!(explained.status, 0, "{}", explained.stderr);
    assert!(fixture.layout().resolve("built").unwrap().is_none());
    let root = fixture.root().canonicalize().unwrap().display().to_string();
    let output =
        fixture.command().args(["--explain", "-t", "built"]).arg(fixture.path("context")).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "# commands of other programs to the same effect:\n\
         mkdir --parents {root}/build {root}/cache {root}/images {root}/layers\nbuildah from --name b busybox\nbuildah run b -- /bin/sh -c 'a | b'\nbuildah copy b a /b\n\
         buildah config --workingdir /w b\nbuildah config --env a=b b\nbuildah commit b built:latest\n"
        )
    );
}
