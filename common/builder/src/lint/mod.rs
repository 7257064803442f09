//! Finds likely mistakes in a Dockerfile: BuildKit's checks, under BuildKit's names
//! (docs.docker.com/reference/build-checks).

mod checks;
mod stages;

use std::collections::BTreeSet;

use oci::{Platform, Reference};

pub use checks::{BadChecks, Checks};

use crate::{
    arguments::Global,
    config::Image,
    dockerfile::{
        Dockerfile, Instruction, Stage, Statement,
        expand::{ExpandError, Expander},
        suggest::suggest,
    },
    ignore::Ignore,
    plan::{Origin, Plan},
};
use stages::Rules;

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {message}")]
pub struct Finding {
    /// The line number, from 1.
    pub line: usize,
    /// The name of the check.
    pub rule: &'static str,
    /// The message.
    pub message: String,
}

/// What the checks know about a build besides its Dockerfile.
pub struct Surroundings<'a> {
    /// The stages of the build.
    pub plan: &'a Plan,
    /// The arguments of the build.
    pub global: &'a Global,
    /// Returns the image of a base, if it is known.
    pub image: &'a dyn Fn(&str, Option<&Platform>) -> Option<Image>,
    /// The files that are excluded from the context.
    pub ignore: &'a Ignore,
}

/// Names that a stage should not have, because they mean something else.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// Runs the checks. Returns the findings in the order of their lines, without those that `checks` skips.
pub fn lint(file: &Dockerfile, around: &Surroundings<'_>, checks: &Checks) -> Vec<Finding> {
    let mut found = Found { checks, own: None, findings: Vec::new() };
    written(&mut found, file);
    names(&mut found, file);
    casing(&mut found, file);
    defaults(&mut found, file, around);
    for (at, stage) in file.stages.iter().enumerate() {
        found.with(&stage.comments);
        from(&mut found, file, stage, around);
        if around.plan.stages.contains(&at) && !around.plan.replaced[at] {
            platform(&mut found, at, stage, around);
        }
    }
    Rules::new(file, around).run(&mut found);
    found.in_order()
}

/// The findings of the checks that look at single instructions, as they are written. They need no plan of the build,
/// and a later instruction may be wrong.
pub fn lint_written(file: &Dockerfile, checks: &Checks) -> Vec<Finding> {
    let mut found = Found { checks, own: None, findings: Vec::new() };
    written(&mut found, file);
    found.in_order()
}

fn written(found: &mut Found<'_>, file: &Dockerfile) {
    for &line in &file.empty_continuations {
        found.add(line, "NoEmptyContinuation", "Empty continuation line".to_owned());
    }
    for statement in &file.arguments {
        found.with(&statement.comments);
        described(found, statement);
    }
    for stage in &file.stages {
        found.with(&stage.comments);
        named(found, stage);
        for statement in &stage.statements {
            found.with(&statement.comments);
            if matches!(statement.instruction, Instruction::Maintainer(_)) {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                found.add(statement.line, "MaintainerDeprecated", message);
            }
            described(found, statement);
        }
    }
}

/// The findings so far.
struct Found<'a> {
    checks: &'a Checks,
    /// The checks option in the comments before the current instruction.
    own: Option<Checks>,
    findings: Vec<Finding>,
}

impl Found<'_> {
    /// The findings in the order of their lines.
    fn in_order(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.line);
        self.findings
    }

    /// Takes the checks option from the comments before an instruction.
    fn with(&mut self, comments: &[String]) {
        self.own = comments.iter().find_map(|comment| Checks::in_comment(comment));
    }

    fn add(&mut self, line: usize, rule: &'static str, message: String) {
        let is_out = self.checks.skips(rule) || self.own.as_ref().is_some_and(|own| own.skips(rule));
        let finding = Finding { line, rule, message };
        if !is_out && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn experimental(&mut self, line: usize, rule: &'static str, message: String) {
        let is_in = self.checks.has_experimental(rule)
            || self.own.as_ref().is_some_and(|own| own.has_experimental(rule));
        let finding = Finding { line, rule, message };
        if is_in && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Checks that the comment before an ARG or stage describes it.
fn described(found: &mut Found<'_>, statement: &Statement) {
    if let Instruction::Arg(arguments) = &statement.instruction {
        let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
        description(found, "ARG", &names, statement.line, &statement.comments);
    }
}

fn description(found: &mut Found<'_>, instruction: &str, names: &[&str], line: usize, comments: &[String]) {
    // An empty comment separates other comments from the instruction.
    let comments = comments.rsplit(String::is_empty).next().unwrap_or_default();
    let is_of_one = |comment: &String| names.contains(&comment.split(' ').next().unwrap_or_default());
    if comments.is_empty() || comments.iter().any(is_of_one) {
        return;
    }
    let example = match names {
        [one] => (*one).to_owned(),
        _ => "<arg_key>".to_owned(),
    };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    found.experimental(line, "InvalidDefinitionDescription", message);
}

fn names(found: &mut Found<'_>, file: &Dockerfile) {
    let mut seen = BTreeSet::new();
    for stage in &file.stages {
        found.with(&[]);
        let Some(name) = &stage.name else { continue };
        if RESERVED.contains(&name.as_str()) {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            found.add(stage.line, "ReservedStageName", message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            found.add(stage.line, "DuplicateStageName", message);
        }
    }
}

/// Checks that all instructions are in the same case as most of them.
fn casing(found: &mut Found<'_>, file: &Dockerfile) {
    found.with(&[]);
    let of_stage = |stage: &Stage| {
        let own = stage.statements.iter().map(|statement| (statement.line, statement.keyword.clone()));
        std::iter::once((stage.line, stage.keyword.clone())).chain(own).collect::<Vec<_>>()
    };
    let all: Vec<(usize, String)> = file.stages.iter().flat_map(of_stage).collect();
    let count = |case: fn(&str) -> String| all.iter().filter(|(_, word)| case(word) == *word).count();
    let is_lower = count(|word| word.to_lowercase()) > count(|word| word.to_uppercase());
    for (line, word) in all {
        let (right, case) = match is_lower {
            true => (word.to_lowercase(), "lowercase"),
            false => (word.to_uppercase(), "uppercase"),
        };
        if word != right {
            let message = format!("Command '{word}' should match the case of the command majority ({case})");
            found.add(line, "ConsistentInstructionCasing", message);
        }
    }
}

/// Checks the names of bases when no argument is given.
fn defaults(found: &mut Found<'_>, file: &Dockerfile, around: &Surroundings<'_>) {
    found.with(&[]);
    let Ok(plain) = around.global.without_given(&file.arguments, file.escape) else { return };
    for stage in &file.stages {
        let lookup = |name: &str| plain.variable(name);
        let Ok(base) = Expander::new(file.escape, &lookup).word(&stage.base) else { return };
        if base.parse::<Reference>().is_err() {
            let name = &stage.base;
            let message = format!("Default value for ARG {name} results in empty or invalid base image name");
            found.add(stage.line, "InvalidDefaultArgInFrom", message);
        }
    }
}

/// Checks the name of a stage, and the `AS` before it.
fn named(found: &mut Found<'_>, stage: &Stage) {
    if let Some(name) = stage.name.as_deref() {
        let written = stage.written_name.as_deref().unwrap_or(name);
        if written != name {
            found.add(stage.line, "StageNameCasing", format!("Stage name '{written}' should be lowercase"));
        }
        description(found, "FROM", &[name], stage.line, &stage.comments);
    }
    if let Some(word) = &stage.as_keyword {
        // A FROM in both cases is another check's.
        let differs = |case: fn(&str) -> String| case(&stage.keyword) == stage.keyword && case(word) != *word;
        if differs(|word| word.to_lowercase()) || differs(|word| word.to_uppercase()) {
            let message = format!("'{word}' and '{}' keywords' casing do not match", stage.keyword);
            found.add(stage.line, "FromAsCasing", message);
        }
    }
}

fn from(found: &mut Found<'_>, file: &Dockerfile, stage: &Stage, around: &Surroundings<'_>) {
    undeclared(found, file, stage, around.global);
    let Some(platform) = &stage.platform else { return };
    let (set, unset) = used(file.escape, platform, &|name| around.global.variable(name));
    let lookup = |name: &str| around.global.variable(name);
    let Ok(value) = Expander::new(file.escape, &lookup).word(platform) else { return };
    let target = around.global.variable("TARGETPLATFORM");
    if unset.is_empty() && set == ["TARGETPLATFORM"] && Some(&value) == target.as_ref() {
        let message = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        found.add(stage.line, "RedundantTargetPlatform", message);
    }
    let Some(parsed) = value.parse::<Platform>().ok().filter(|_| set.is_empty() && unset.is_empty()) else {
        return;
    };
    let name = stage.name.as_deref().unwrap_or_default();
    if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
        let message = format!("FROM --platform flag should not use constant value {value:?}");
        found.add(stage.line, "FromPlatformFlagConstDisallowed", message);
    }
}

/// Checks that the variables of a FROM are declared.
fn undeclared(found: &mut Found<'_>, file: &Dockerfile, stage: &Stage, global: &Global) {
    let declared = |statement: &Statement| match &statement.instruction {
        Instruction::Arg(arguments) => arguments.iter().map(|argument| argument.name.clone()).collect(),
        _ => Vec::new(),
    };
    let mut known: Vec<String> = file.arguments.iter().flat_map(declared).collect();
    known.extend(global.names());
    for word in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
        let (_, unset) = used(file.escape, word, &|name| global.variable(name));
        for name in unset.iter().filter(|name| !known.contains(name)) {
            let near = suggest(name, &known.iter().map(String::as_str).collect::<Vec<_>>());
            let message = format!("FROM argument '{name}' is not declared{near}");
            found.add(stage.line, "UndefinedArgInFrom", message);
        }
    }
}

/// The variables of FROM that are not declared: the one check that needs no plan of the build. They are a cause
/// why there may be none.
pub fn undeclared_in_from(file: &Dockerfile, global: &Global, checks: &Checks) -> Vec<Finding> {
    let mut found = Found { checks, own: None, findings: Vec::new() };
    for stage in &file.stages {
        found.with(&stage.comments);
        undeclared(&mut found, file, stage, global);
    }
    found.findings
}

/// Checks that the base is for the platform of the build.
fn platform(found: &mut Found<'_>, at: usize, stage: &Stage, around: &Surroundings<'_>) {
    found.with(&stage.comments);
    let Origin::Image(name, wanted) = &around.plan.bases[at] else { return };
    let Some(image) = (around.image)(name, wanted.as_ref()) else { return };
    let expected = wanted.clone().unwrap_or_else(Platform::host);
    if (&image.os, &image.architecture) != (&expected.os, &expected.architecture) {
        let actual = format!("{}/{}", image.os, image.architecture);
        let message = format!(
            "Base image {name} was pulled with platform {actual:?}, expected {:?} for current build",
            expected.to_string()
        );
        found.add(stage.line, "InvalidBaseImagePlatform", message);
    }
}

/// The variables that a word uses: those that are set and those that are not. Each is listed once, in order.
fn used(escape: char, word: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (Vec<String>, Vec<String>) {
    used_by(lookup, |lookup| Expander::new(escape, lookup).word(word).map(drop))
}

/// As [`used`], for text that `expand` expands in its own way.
fn used_by(
    lookup: &dyn Fn(&str) -> Option<String>,
    expand: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<(), ExpandError>,
) -> (Vec<String>, Vec<String>) {
    let seen: std::cell::RefCell<(Vec<String>, Vec<String>)> = std::cell::RefCell::default();
    let watch = |name: &str| {
        let value = lookup(name);
        let mut seen = seen.borrow_mut();
        let list = if value.is_some() { &mut seen.0 } else { &mut seen.1 };
        if !list.iter().any(|own| own == name) {
            list.push(name.to_owned());
        }
        value
    };
    // Text that cannot be expanded fails in its own step.
    let _ = expand(&watch);
    seen.into_inner()
}

#[cfg(test)]
mod tests;
