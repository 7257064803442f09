//! Results of steps from elsewhere, one layer for all, and the progress output of a build.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::fs;

use common::{Built, Fixture};
use serde_json::Value;

const TEXT: &str = "FROM busybox AS made\nRUN echo one > /one\nRUN echo two > /two\nFROM busybox\nCOPY --from=made /two /other\nENV A=b\n";

#[test]
fn results_of_another_machine() {
    let here = Fixture::new();
    let cache = here.path("cache").display().to_string();
    let first = here.build_with(TEXT, &["--cache-to", &format!("type=local,dest={cache},mode=max")]).ok();
    let there = Fixture::new();
    let from = format!("type=local,src={cache}");
    let again = there.build_with(TEXT, &["--cache-from", &from]).ok();
    assert_eq!(again.cached(), 4, "{}", again.stderr);
    assert_eq!(again.document["image"]["descriptor"], first.document["image"]["descriptor"]);
    // Without intermediate stages, the export has only the steps of the image itself.
    let small = here.path("small").display().to_string();
    here.build_with(TEXT, &["--cache-to", &format!("type=local,dest={small}")]).ok();
    let there = Fixture::new();
    let again = there.build_with(TEXT, &["--cache-from", &format!("type=local,src={small}")]).ok();
    assert_eq!(again.cached(), 2, "{}", again.stderr);
    // A missing place is no error.
    let none = there.build_with(TEXT, &["--cache-from", "type=local,src=/nonexistent"]).ok();
    assert!(none.stderr.contains("warning: no cache from /nonexistent: "), "{}", none.stderr);
    let inline = here.build_with(TEXT, &["--cache-to", "type=inline"]).ok();
    assert!(!inline.configuration()["stave.cache"].as_array().unwrap().is_empty());
}

#[test]
fn the_cache_of_several_platforms() {
    let here = Fixture::new();
    let text = "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
                FROM scratch\nCOPY --from=make /arch /\n";
    let (cache, platforms) = (here.path("cache").display().to_string(), "--platform=linux/amd64,linux/arm64");
    let to = format!("type=local,dest={cache},mode=max,tag=one");
    let first = here.build_with(text, &[platforms, "--cache-to", &to]).ok();
    for (from, cached) in [("tag=one", 6), ("tag=two", 0)] {
        let there = Fixture::new();
        let from = format!("type=local,src={cache},{from}");
        let again = there.build_with(text, &[platforms, "--cache-from", &from]).ok();
        assert_eq!(again.cached(), cached, "{}", again.stderr);
        let warning = "no image there has this tag or digest";
        assert_eq!(again.stderr.contains(warning), cached == 0, "{}", again.stderr);
        assert_eq!(again.document["image"]["descriptor"], first.document["image"]["descriptor"]);
    }
    let place = here.write("file", "").join("below").display().to_string();
    let to = format!("type=local,dest={place},ignore-error=true");
    let built = here.build_with(text, &["--cache-to", &to]).ok();
    assert!(built.stderr.contains(&format!("warning: no cache to {place}: ")), "{}", built.stderr);
}

#[test]
fn the_cache_in_a_base_is_not_that_of_the_image() {
    let fixture = Fixture::new();
    let base = |arguments: &[&str]| {
        fixture.write("Dockerfile", "FROM busybox\nRUN echo 1 > /one\n");
        let mut command = fixture.command();
        command.args(["-q", "-t", "base"]).args(arguments).arg(fixture.path("context"));
        let base = Built::new(command.output().unwrap()).ok();
        let image = fixture.build("FROM base\nRUN echo 2 > /two\n");
        (base.configuration(), image.configuration())
    };
    let (without, image) = base(&[]);
    let (with, same) = base(&["--cache-to", "type=inline"]);
    assert_eq!((without.get("stave.cache"), with["stave.cache"].as_array().unwrap().len()), (None, 1));
    assert_eq!(image, same);
}

#[test]
fn one_layer_for_all() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN echo 1 > /a; mkdir /d; echo x > /d/x\nRUN rm /a /bin/ls; echo 2 > /d/y\nLABEL a=b\n";
    let built = fixture.build_with(text, &["--squash"]).ok();
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers.len(), 1);
    let names: Vec<&str> = layers[0].keys().map(String::as_str).filter(|name| !name.ends_with('/')).collect();
    assert_eq!(names, ["bin/.wh.ls", "d/x", "d/y"]);
    let history = built.configuration()["history"].as_array().unwrap().clone();
    let made = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(made, 2, "the base's and one more: {history:?}");
    assert_eq!(built.configuration()["config"]["Labels"]["a"], "b");
}

#[test]
fn progress_in_other_forms() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN echo said\n";
    let json = fixture.build_with(text, &["--progress", "json"]).ok();
    let events: Vec<Value> = json.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["begin", "end", "begin", "output", "end", "line", "line"]);
    assert_eq!(events[3]["text"], "said\n");
    let cached = fixture.build_with(text, &["--progress=tty"]).ok();
    assert!(cached.stderr.contains(" => CACHED [2/2] RUN echo said 0."), "{}", cached.stderr);
    assert_eq!(fixture.build_with(text, &["-q"]).ok().stderr, "");
    let failed: Built = fixture.build_with("FROM busybox\nRUN echo why; false\n", &["--progress=tty"]);
    assert!(failed.stderr.contains("\nwhy\n"), "{}", failed.stderr);
    fs::remove_dir_all(fixture.root().join("cache")).unwrap();
}

/// How often a build opens files of the context `d` for reading.
fn reads(fixture: &Fixture) -> usize {
    let trace = fixture.path("trace");
    let program = assert_cmd::cargo::cargo_bin!("img-build");
    let status = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=openat2", "-o"])
        .arg(&trace)
        .arg(program)
        .args(["--network", "none", "-q", "-t", "built"])
        .arg(fixture.path("context"))
        .env("STAVE_ROOT", fixture.root())
        .env("STAVE_RUN", fixture.path("run"))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let trace = fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains("\"d/") && line.contains("O_RDONLY|O_NONBLOCK")).count()
}

#[test]
fn files_that_did_not_change_are_not_read_again() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nCOPY d /d\n";
    for name in ["d/a", "d/b", "d/c"] {
        fixture.write(name, "1");
    }
    fixture.write("Dockerfile", text);
    // A change of the last two seconds may be followed by another one that the clock does not tell from it.
    assert_eq!(reads(&fixture), 6, "read for the key, and copied");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!((reads(&fixture), reads(&fixture)), (3, 0));
    // As large as before, and as old: only the time of change tells.
    let path = fixture.path("context/d/b");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "2").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let built = fixture.build(text);
    assert_eq!(fixture.layers(&built, 1)[0]["d/b"], "644 0:0 2");
    assert_eq!(fixture.build_with(text, &["--no-cache"]).ok().cached(), 0);
    assert_eq!(reads(&fixture), 1, "the changed one, which is still new");
    let tables = fixture.root().join("cache/files");
    assert_eq!(fs::read_dir(&tables).unwrap().count(), 1);
    fs::remove_dir_all(tables).unwrap();
    assert_eq!(reads(&fixture), 3);
}
