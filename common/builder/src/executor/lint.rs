//! The checks of a Dockerfile: as warnings of a build, and alone (`--lint`).

use std::collections::BTreeSet;

use oci::Platform;

use super::{Builder, Options, contexts::open_main, input::Input, rehearsal::Rehearsal, store::Store};
use crate::{
    arguments::Global,
    config::Image,
    dockerfile::{Dockerfile, Instruction},
    error::{Cause, Error},
    ignore::Ignore,
    lint::{Checks, Finding, Surroundings, lint as check},
    plan::Plan,
};

/// The argument that goes before the directive of the file.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What the checks find. Where the file says that findings are errors, they are.
pub(super) fn findings(
    options: &Options,
    input: &Input,
    file: &Dockerfile,
    plan: &Plan,
    global: &Global,
    store: &Store,
) -> Result<Vec<Finding>, Error> {
    let directive = options.arguments.get(ARGUMENT).or(file.check.as_ref());
    let checks = Checks::parse(directive.map_or("", String::as_str)).map_err(Cause::Checks)?;
    let ignore = ignored(input, file);
    let image = |name: &str, platform: Option<&Platform>| {
        let image = store.images.peek(name, platform)?;
        serde_json::from_value::<Image>(image.raw_configuration).ok()
    };
    let around = Surroundings { plan, global, image: &image, ignore: &ignore };
    let findings = check(file, &around, &checks);
    if checks.is_error && !options.lint && !findings.is_empty() {
        for finding in &findings {
            operation::note(&format!("[Warning] {}:{}: {finding}", input.name, finding.line));
        }
        let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule).collect();
        return Err(Cause::Lint(rules.into_iter().collect::<Vec<_>>().join(", ")).into());
    }
    Ok(findings)
}

/// What is taken out of the context, if anything is copied from it. Its errors are those of the step that needs it.
fn ignored(input: &Input, file: &Dockerfile) -> Ignore {
    let mut instructions = file.stages.iter().flat_map(|stage| &stage.statements);
    let copies = instructions.any(|statement| {
        matches!(&statement.instruction, Instruction::Copy(copy) | Instruction::Add(copy) if copy.from.is_none())
    });
    match copies {
        true => open_main(input).map(|tree| tree.ignore().clone()).unwrap_or_default(),
        false => Ignore::default(),
    }
}

/// The findings of the checks, each as lines with its place in the Dockerfile. Nothing is built.
///
/// # Errors
/// What would end a build before its first step.
pub fn lint(options: &Options) -> Result<Vec<String>, Error> {
    let input = Input::read(options)?;
    input.work(|file| {
        let open = || Store::look(options);
        let builder = Builder::new(options, &input, file, open, Some(Rehearsal::default()))?;
        let findings =
            findings(options, &input, &builder.file, &builder.plan, &builder.global, &builder.store)?;
        let shown = |finding: &Finding| {
            let excerpt = input.excerpt(finding.line, None);
            format!("WARNING: {}\n{}\n{excerpt}", finding.rule, finding.message)
        };
        Ok(findings.iter().map(shown).collect())
    })
}
