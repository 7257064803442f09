//! Results of steps that travel, one layer for all, and how a build tells what it does.
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
    // Without the stages between, only what the image itself has.
    let small = here.path("small").display().to_string();
    here.build_with(TEXT, &["--cache-to", &format!("type=local,dest={small}")]).ok();
    let there = Fixture::new();
    let again = there.build_with(TEXT, &["--cache-from", &format!("type=local,src={small}")]).ok();
    assert_eq!(again.cached(), 2, "{}", again.stderr);
    // A place that has none is no error.
    let none = there.build_with(TEXT, &["--cache-from", "type=local,src=/nonexistent"]).ok();
    assert!(none.stderr.contains("warning: no cache from /nonexistent: "), "{}", none.stderr);
    let inline = here.build_with(TEXT, &["--cache-to", "type=inline"]).ok();
    assert!(!inline.configuration()["stave.cache"].as_array().unwrap().is_empty());
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
