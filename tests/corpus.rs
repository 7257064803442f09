//! Runs the inputs that the fuzzers kept through the fuzzers' functions (`tests/fuzz`).

#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::fs;

#[path = "fuzz/targets.rs"]
mod targets;

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_input_that_was_kept() {
    testkit::require_root();
    let all: [Target; 7] = [
        ("tar", targets::tar),
        ("archive", targets::archive),
        ("manifest", targets::manifest),
        ("reference", targets::reference),
        ("whiteout", targets::whiteout),
        ("dockerfile", targets::dockerfile),
        ("expansion", targets::expansion),
    ];
    for (name, target) in all {
        let directory = testkit::repository().join("tests/fuzz/corpus").join(name);
        let mut inputs: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() > 5, "{name} has lost its inputs");
        for input in inputs {
            eprintln!("{}", input.display());
            target(&fs::read(input).unwrap());
        }
    }
    targets::clean();
}
