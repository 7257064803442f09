//! `--dry-run`: which steps are cached. It prints what the next build then does, and changes nothing.

#![allow(clippy::unwrap_used)] // A tool that cannot be started is a failed test.

mod common;

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use common::Fixture;
use serde_json::json;

/// Everything below a directory: for each name its kind, content, and time of change.
fn tree(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let times = format!("{}.{} {}", metadata.ctime(), metadata.ctime_nsec(), metadata.mode());
        let content = if metadata.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        found.insert(path.display().to_string(), format!("{times} {content:?}"));
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

/// The lines of `--dry-run`. It must change nothing and print no document.
#[track_caller]
fn listed(fixture: &Fixture, dockerfile: &str, arguments: &[&str]) -> Vec<String> {
    fixture.write("Dockerfile", dockerfile);
    let before = tree(&fixture.path(""));
    let mut command = fixture.command();
    let output =
        command.args(["--dry-run", "-t", "planned"]).args(arguments).arg(fixture.path("context")).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"".as_slice()), "{text}");
    assert_eq!(before, tree(&fixture.path("")), "something was changed");
    text.lines().map(str::to_owned).collect()
}

/// The first words of the lines.
#[track_caller]
fn verdicts(fixture: &Fixture, dockerfile: &str, arguments: &[&str]) -> String {
    let lines = listed(fixture, dockerfile, arguments);
    lines.iter().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_step_and_whether_the_cache_has_it() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    let text = "ARG V=1\nFROM busybox\nARG A=x\nENV E=$A\nRUN echo one\nCOPY a /a\nWORKDIR /w\nRUN <<END\necho two\nEND\nCMD x\n";
    let steps = [
        "ARG V=1",
        "FROM busybox",
        "ARG A=x",
        "ENV E=$A",
        "RUN echo one",
        "COPY a /a",
        "WORKDIR /w",
        "RUN <<END",
        "CMD x",
    ];
    let lines = |words: [&str; 9]| -> Vec<String> {
        let numbered = steps.iter().zip(words).enumerate();
        numbered.map(|(at, (step, word))| format!("{word:<6} {}/9 {step}", at + 1)).collect()
    };
    let [none, base, cached, run] = ["-", "base", "cached", "run"];
    assert_eq!(listed(&fixture, text, &[]), lines([none, base, run, run, run, run, run, run, run]));
    assert_eq!(fixture.build(text).cached(), 0);
    assert_eq!(
        listed(&fixture, text, &[]),
        lines([none, base, cached, cached, cached, cached, cached, cached, cached])
    );
    assert_eq!(verdicts(&fixture, text, &["--no-cache"]), "- base run run run run run run run");
    assert_eq!(verdicts(&fixture, text, &["--quiet"]), "");
    fixture.write("a", "2");
    assert_eq!(listed(&fixture, text, &[]), lines([none, base, cached, cached, cached, run, run, run, run]));
    assert_eq!(fixture.build(text).cached(), 3, "the build does what was listed");
    // Steps before a change of an argument are still cached.
    assert_eq!(verdicts(&fixture, text, &["--build-arg", "A=y"]), "- base run run run run run run run");
    // A step that changes no file does not change the layers below the next step.
    let more = text.replace("ENV", "LABEL l=m\nENV").replace("RUN echo one\n", "");
    fixture.build(&more.replace("LABEL l=m\n", ""));
    assert_eq!(verdicts(&fixture, &more, &[]), "- base cached run run cached cached cached run");
    assert_eq!(fixture.build(&more).cached(), 4);
}

#[test]
fn stages_depend_on_each_other() {
    let fixture = Fixture::new();
    for name in ["a", "b"] {
        fixture.write(name, name);
    }
    let text = "FROM busybox AS one\nCOPY a /a\nRUN cat /a\nFROM busybox AS two\nCOPY b /b\nRUN cat /b\n\
                FROM busybox AS unused\nRUN false\nFROM scratch\nCOPY --from=two /b /b\nCOPY --from=one /a /a\n\
                COPY --link b /linked\n";
    assert_eq!(verdicts(&fixture, text, &[]), "base run run base run run base run run run");
    fixture.build(text);
    let all = "base cached cached base cached cached base cached cached cached";
    assert_eq!(verdicts(&fixture, text, &[]), all);
    fixture.write("a", "changed");
    // The last step depends on nothing below it.
    let changed = "base run run base cached cached base cached run cached";
    assert_eq!(verdicts(&fixture, text, &[]), changed);
    assert_eq!(fixture.build(text).cached(), changed.matches("cached").count());
    assert_eq!(verdicts(&fixture, text, &[]), all);
    assert_eq!(verdicts(&fixture, text, &["--target", "two"]), "base cached cached");
    assert_eq!(verdicts(&fixture, &text.replace("FROM scratch", "FROM one"), &[]).matches("base").count(), 3);
}

#[test]
fn mounts_and_triggers() {
    let fixture = Fixture::new();
    fixture.write("a", "a");
    fixture.load("left", &testkit::busybox(), json!({"OnBuild": ["COPY a /left", "RUN cat /left"]}));
    let text =
        "FROM left\nRUN --mount=type=bind,source=a,target=/m cat /m\nRUN --mount=type=cache,target=/c true\n";
    let triggers = ["ONBUILD COPY a /left", "ONBUILD RUN cat /left"];
    let lines = listed(&fixture, text, &[]);
    assert_eq!(lines[1..3], triggers.map(|text| format!("run    {text}")));
    fixture.build(text);
    assert_eq!(verdicts(&fixture, text, &[]), "base cached cached cached cached");
    assert_eq!(listed(&fixture, text, &[])[1..3], triggers.map(|text| format!("cached {text}")));
    fixture.write("a", "b");
    assert_eq!(verdicts(&fixture, text, &[]), "base run run run run");
    let mount = "FROM busybox\nRUN --mount=type=bind,source=a,target=/m cat /m\n";
    fixture.build(mount);
    assert_eq!(verdicts(&fixture, mount, &[]), "base cached");
    fixture.write("a", "c");
    assert_eq!(verdicts(&fixture, mount, &[]), "base run");
}

#[test]
fn no_store_is_made_and_what_is_wrong_is_said() {
    let fixture = Fixture::new();
    let none = fixture.path("none");
    let id = fixture.path("id");
    let mut command = fixture.command();
    fixture.write("a", "a");
    let dockerfile = fixture.write("Dockerfile", "FROM scratch\nCOPY a /\nADD http://127.0.0.1:9/file /\n");
    let output = command.env("STAVE_ROOT", &none).args(["--dry-run", "--iidfile"]).arg(&id);
    let output = output.arg(fixture.path("context")).assert().success().get_output().stderr.clone();
    let listed = "base   1/3 FROM scratch\nrun    2/3 COPY a /\nrun    3/3 ADD http://127.0.0.1:9/file /\n";
    assert_eq!(String::from_utf8_lossy(&output), listed, "nothing is fetched");
    assert!(!none.exists() && !id.exists());
    // An image that would be pulled is listed.
    fixture.write("Dockerfile", "FROM nowhere\nRUN true\n");
    let output = fixture.command().arg("--dry-run").arg(fixture.path("context")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "pull   1/2 FROM nowhere\nrun    2/2 RUN true\n");
    // A context on standard input leaves nothing in the store.
    let input = testkit::rootfs(|tree| testkit::file(tree, "Dockerfile", 0o644, b"FROM busybox\n"));
    let before = tree(&fixture.path(""));
    for flag in ["--dry-run", "--explain"] {
        let output = fixture.command().args([flag, "-"]).write_stdin(input.clone()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(before, tree(&fixture.path("")));
    for (text, line, error) in [
        ("FROM nowhere\nRUN true\n", 1, "step 1/2: no image \"nowhere\""),
        ("FROM busybox\nCOPY --from=nowhere /a /\n", 2, "step 2/2: no image \"nowhere\""),
        ("FROM busybox\nCOPY missing /\n", 2, "step 2/2: COPY failed: "),
    ] {
        fixture.write("Dockerfile", text);
        let before = tree(&fixture.path(""));
        let output =
            fixture.command().args(["--dry-run", "--pull=never"]).arg(fixture.path("context")).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("img-build: {}:{line}: {error}", dockerfile.display())), "{told}");
        assert_eq!(before, tree(&fixture.path("")), "{text}");
    }
}

#[test]
fn an_image_of_a_layout_stays_there() {
    let fixture = Fixture::new();
    let layout = fixture.path("layout");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-r").arg(fixture.root().join("images")).arg(&layout).status().unwrap().success());
    fs::remove_dir_all(fixture.root()).unwrap();
    let context = |tag: &str| format!("base=oci-layout://{}:{tag}", layout.display());
    let text = "FROM base\nENV A=b\n";
    assert_eq!(verdicts(&fixture, text, &["--build-context", &context("latest")]), "base run");
    let mut command = fixture.command();
    let output =
        command.args(["--dry-run", "--build-context", &context("other")]).arg(fixture.path("context"));
    let error = String::from_utf8(output.output().unwrap().stderr).unwrap();
    assert!(error.contains(&format!("there is no image \"other\" in {layout:?}")), "{error}");
}

#[test]
fn an_image_to_copy_from_would_be_pulled() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nCOPY --from=nosuch/image:1 /x /x\n\
                RUN --mount=from=nosuch/other,source=/y,target=/y --mount=type=cache,from=nosuch/other,target=/c true\n";
    assert_eq!(verdicts(&fixture, text, &[]), "base run run");
}
