//! Why the cache has a step or not.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::Fixture;
use serde_json::{Value, json};

/// The causes of all steps that were not cached, as `cause name`.
fn causes(fixture: &Fixture, text: &str, arguments: &[&str]) -> Vec<String> {
    let all = [&["--explain-cache"], arguments].concat();
    let built = fixture.build_with(text, &all).ok();
    let reports = built.stderr.lines().filter(|line| line.starts_with("{\"cache\""));
    let mut found = Vec::new();
    for report in reports.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        for cause in report["cache"]["causes"].as_array().unwrap() {
            let name = cause["name"].as_str().unwrap_or_default();
            found.push(format!("{} {name}", cause["cause"].as_str().unwrap()).trim().to_owned());
        }
    }
    found
}

const TEXT: &str = "FROM busybox\nARG A=1\nCOPY a b c /d/\nRUN cat /d/* > /all\n";

#[test]
fn each_cause_is_named() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.write(name, name);
    }
    assert_eq!(causes(&fixture, TEXT, &[]), ["never built"; 3]);
    assert!(causes(&fixture, TEXT, &[]).is_empty());
    fixture.write("b", "new");
    assert_eq!(causes(&fixture, TEXT, &[]), ["file b", "parent"]);
    let file = fixture.path("context/c");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(causes(&fixture, TEXT, &[]), ["mode c", "parent"]);
    assert_eq!(causes(&fixture, TEXT, &["--build-arg", "A=2"]), ["instruction text", "argument A"]);
    let other = TEXT.replace("/all", "/other");
    assert_eq!(causes(&fixture, &other, &["--build-arg", "A=2"]), ["instruction command"]);
    assert_eq!(causes(&fixture, &other, &["--build-arg", "A=2", "--shm-size", "1m"]), ["flag shm-size"]);
    assert_eq!(causes(&fixture, &other, &["--no-cache"]), ["flag --no-cache"; 3]);
    fs::remove_dir_all(fixture.root().join("cache")).unwrap();
    assert_eq!(causes(&fixture, TEXT, &[]), ["never built"; 3]);
    for entry in fs::read_dir(fixture.root().join("cache")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_file() {
            fs::remove_file(entry).unwrap();
        }
    }
    assert_eq!(causes(&fixture, TEXT, &[]), ["removed"; 3]);
    let tar = testkit::busybox();
    fixture.load("busybox", &tar, json!({"Env": ["NEW=1"]}));
    let found = causes(&fixture, TEXT, &[]);
    assert!(
        found.contains(&"environment NEW".to_owned()) && found.contains(&"parent".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_line_that_would_avoid_it_and_what_it_cost() {
    let fixture = Fixture::new();
    fixture.write("a", "a");
    fixture.write("b", "b");
    let text = "FROM busybox\nCOPY . /d/\n";
    fixture.build(text);
    fixture.write("b", "c");
    let built = fixture.build_with(text, &["--explain-cache"]).ok();
    let line = built.stderr.lines().find(|line| line.starts_with("cache: miss: file b was ")).unwrap();
    assert!(line.contains(" s last time; a line \"b\" in .dockerignore would avoid it"), "{line}");
}
