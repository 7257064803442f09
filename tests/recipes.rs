//! Runs every recipe of docs/recipes.md, in order, on one host.
//!
//! A recipe is a fenced block of `sh`. It must succeed, and print the `text` block that follows it. Afterwards the host
//! must be as before, except for its own files and images.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::fs;

use testkit::{Sandbox, repository};

/// A fenced block: its language, its text, and its heading.
struct Block {
    language: String,
    text: String,
    heading: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut heading = String::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(Block { language: language.to_owned(), text, heading: heading.clone() });
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
    }
    blocks
}

#[test]
fn every_recipe_does_what_it_says() {
    let recipes = blocks(&fs::read_to_string(repository().join("docs/recipes.md")).unwrap());
    assert!(
        recipes.iter().filter(|block| block.language == "sh").count() >= 10,
        "the recipes were not found"
    );
    let sandbox = Sandbox::new();
    sandbox.sh(&format!("ln -s {}/scripts/stave stave", repository().display())).ok();
    let before = sandbox.snapshot();
    for (at, recipe) in recipes.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        let outcome = sandbox.sh(&format!("set -e; PATH=$PATH:.\n{}", recipe.text));
        let Block { heading, text, .. } = recipe;
        assert_eq!(
            outcome.status, 0,
            "{heading}\n{text}\n-- stdout\n{}\n-- stderr\n{}",
            outcome.stdout, outcome.stderr
        );
        if let Some(expected) = recipes.get(at + 1).filter(|block| block.language == "text") {
            assert_eq!(outcome.stdout, expected.text, "{heading}\n{text}\n-- stderr\n{}", outcome.stderr);
        }
        sandbox.assert_as(&before);
    }
}
