//! Why a step is cached or not.
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
    // Without a file that the instruction names, the build fails.
    let text = "FROM busybox\nCOPY b /b\nRUN --mount=source=b,target=/c true\n";
    fixture.build(text);
    fixture.write("b", "d");
    let built = fixture.build_with(text, &["--explain-cache"]).ok();
    let found = built.stderr.lines().filter(|line| line.starts_with("cache: miss: ")).collect::<Vec<_>>();
    assert!(found[0].contains("file b was "), "{found:?}");
    assert!(!built.stderr.contains(".dockerignore"), "{}", built.stderr);
}

/// A change, and the cause that must be named: `cause name`.
struct Change {
    expected: String,
    arguments: Vec<String>,
    text: String,
    /// Makes the change in the context or the store.
    make: Box<dyn Fn(&Fixture)>,
    /// Reverts the change.
    take_back: Box<dyn Fn(&Fixture)>,
}

const FILES: [&str; 6] = ["src/a", "src/b", "src/deep/c", "src/deep/d", "mounted/e", "mounted/f"];
const STEPS: &str = "FROM busybox\nARG ONE=1\nARG TWO=2\nENV KEY=value\nCOPY src /src/\nLABEL l=1\nWORKDIR /w\n\
                     RUN --mount=target=/m,source=mounted cat /m/e > e\nADD --chown=1:2 src/deep /deep/\nUSER 3\n\
                     RUN echo two\nEXPOSE 80\nCMD [\"x\"]\n";

/// Random numbers (xorshift64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A change that changes nothing yet.
fn none() -> Change {
    Change {
        expected: String::new(),
        arguments: Vec::new(),
        text: STEPS.to_owned(),
        make: Box::new(|_| {}),
        take_back: Box::new(|_| {}),
    }
}

fn change(random: &mut Random, number: usize) -> Change {
    let file = FILES[random.below(FILES.len())];
    let mut change = none();
    match random.below(8) {
        at @ 0..=3 => return change_of_file(random, number, file, at),
        4 => {
            let name = ["ONE", "TWO"][random.below(2)];
            change.expected = format!("argument {name}");
            change.arguments = vec!["--build-arg".to_owned(), format!("{name}=given{number}")];
        }
        5 => {
            let flags = [("shm-size", "9m"), ("add-host", "h:192.0.2.9"), ("ulimit", "nofile=77")];
            let (name, value) = flags[random.below(3)];
            change.expected = format!("flag {name}");
            change.arguments = vec![format!("--{name}"), value.to_owned()];
        }
        6 => {
            let (from, to, cause) = PARTS[random.below(PARTS.len())];
            let end = if from.ends_with('\n') { "\n" } else { "" };
            let middle = if from.starts_with("echo") { String::new() } else { number.to_string() };
            change.expected = cause.to_owned();
            change.text = STEPS.replacen(from, &format!("{to}{middle}{end}"), 1);
        }
        _ => {
            change.expected = "environment BASE".to_owned();
            change.make = Box::new(move |fixture| {
                fixture.load("busybox", &testkit::busybox(), json!({"Env": [format!("BASE={number}")]}));
            });
            change.take_back = Box::new(|fixture| fixture.load("busybox", &testkit::busybox(), json!({})));
        }
    }
    change
}

/// Parts of the steps, what replaces them, and the cause that is then named.
const PARTS: [(&str, &str, &str); 7] = [
    ("KEY=value", "KEY=", "environment KEY"),
    ("l=1", "l=x", "instruction text"),
    ("/w\n", "/w", "instruction directory"),
    ("echo two", "echo three", "instruction command"),
    ("USER 3", "USER 4", "instruction user"),
    ("1:2", "3:", "instruction text"),
    ("EXPOSE 80", "EXPOSE 9", "instruction text"),
];

/// One of four changes of a file of the context.
fn change_of_file(random: &mut Random, number: usize, file: &'static str, kind: usize) -> Change {
    let at = move |fixture: &Fixture| fixture.path("context").join(file);
    let mut change = Change { expected: format!("file {file}"), ..none() };
    match kind {
        0 => {
            change.make = Box::new(move |fixture| fs::write(at(fixture), format!("new {number}")).unwrap());
            change.take_back = Box::new(move |fixture| fs::write(at(fixture), file).unwrap());
        }
        1 => {
            let mode = |mode: u32| {
                move |fixture: &Fixture| {
                    fs::set_permissions(at(fixture), fs::Permissions::from_mode(mode)).unwrap();
                }
            };
            let other = [0o600, 0o755, 0o640][random.below(3)];
            change.expected = format!("mode {file}");
            (change.make, change.take_back) = (Box::new(mode(other)), Box::new(mode(0o644)));
        }
        2 => {
            change.make = Box::new(move |fixture| fs::remove_file(at(fixture)).unwrap());
            change.take_back = Box::new(move |fixture| drop(fixture.write(file, file)));
        }
        _ => {
            let new = format!("{file}-{number}");
            change.expected = format!("file {new}");
            let again = new.clone();
            change.make = Box::new(move |fixture| drop(fixture.write(&new, "new")));
            change.take_back =
                Box::new(move |fixture| fs::remove_file(fixture.path("context").join(&again)).unwrap());
        }
    }
    change
}

/// Makes single changes to what was built, one after the other. Each cause must be named, and no step may
/// miss the cache without one.
fn random_changes(count: usize) {
    let fixture = Fixture::new();
    for file in FILES {
        fixture.write(file, file);
    }
    fixture.build(STEPS);
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut random = Random(seed);
    for number in 0..count {
        let change = change(&mut random, number);
        (change.make)(&fixture);
        let arguments: Vec<&str> =
            ["--dry-run"].into_iter().chain(change.arguments.iter().map(String::as_str)).collect();
        let found = causes(&fixture, &change.text, &arguments);
        assert!(
            found.contains(&change.expected),
            "change {number}: {:?} is not in {found:?}",
            change.expected
        );
        (change.take_back)(&fixture);
        assert!(causes(&fixture, STEPS, &["--dry-run"]).is_empty(), "change {number} was taken back");
    }
}

#[test]
fn each_of_some_random_changes_is_named() {
    random_changes(20);
}

#[test]
#[ignore = "takes a minute"]
fn each_of_1000_random_changes_is_named() {
    random_changes(1000);
}
