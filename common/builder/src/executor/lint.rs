//! Runs the checks of a Dockerfile: as warnings of a build, or alone (`--lint`).

use std::collections::BTreeSet;

use oci::Platform;

use super::{Builder, Options, input::Input, rehearsal::Rehearsal, store::Store};
use crate::{
    arguments::{CHECK, Global},
    config::Image,
    dockerfile::{Dockerfile, Instruction},
    error::{Cause, Error},
    ignore::Ignore,
    lint::{Checks, Finding, Surroundings, lint as check, lint_written, undeclared_in_from},
    progress::{Form, Progress},
};

/// The checks that a Dockerfile asks for, or `--build-arg BUILDKIT_DOCKERFILE_CHECK`.
fn checks(options: &Options, file: &Dockerfile) -> Result<Checks, Cause> {
    let directive = options.arguments.get(CHECK).or(file.check.as_ref());
    Ok(Checks::parse(directive.map_or("", String::as_str))?)
}

/// Warns about variables of FROM that are not declared, because a build cannot be planned. Then they are the
/// likely reason.
pub(super) fn warn_of_from(options: &Options, name: &str, file: &Dockerfile, global: &Global) {
    warn(options, name, file, |checks| undeclared_in_from(file, global, checks));
}

/// Warns about the instructions before one that is wrong: the Dockerfile cannot be checked further.
pub(super) fn warn_of_written(options: &Options, name: &str, file: &Dockerfile) {
    warn(options, name, file, |checks| lint_written(file, checks));
}

fn warn(options: &Options, name: &str, file: &Dockerfile, find: impl FnOnce(&Checks) -> Vec<Finding>) {
    let progress = Progress::new(options.progress);
    let findings = checks(options, file).map(|checks| find(&checks));
    for finding in findings.unwrap_or_default() {
        progress.warning(&format!("{name}:{}: {finding}", finding.line));
    }
}

impl Builder<'_> {
    /// The findings of the checks. Returns an error if the Dockerfile says that findings are errors.
    pub(super) fn findings(&self) -> Result<Vec<Finding>, Error> {
        let checks = checks(self.options, &self.file)?;
        let image = |name: &str, platform: Option<&Platform>| {
            let image = self.store.images.peek(name, platform)?;
            serde_json::from_value::<Image>(image.raw_configuration).ok()
        };
        let ignore = self.ignored();
        let around = Surroundings { plan: &self.plan, global: &self.global, image: &image, ignore: &ignore };
        let findings = check(&self.file, &around, &checks);
        if checks.is_error && !self.options.lint && !findings.is_empty() {
            for finding in &findings {
                let text = format!("{}:{}: {finding}", self.input.name, finding.line);
                match self.progress.form() {
                    Form::Quiet => operation::note(&format!("[Warning] {text}")),
                    _ => self.progress.warning(&text),
                }
            }
            let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule).collect();
            return Err(Cause::Lint(rules.into_iter().collect::<Vec<_>>().join(", ")).into());
        }
        Ok(findings)
    }

    /// The files that are excluded from the context, if something is copied from it. Errors are left to the
    /// step that needs the context.
    fn ignored(&self) -> Ignore {
        let mut instructions = self.file.stages.iter().flat_map(|stage| &stage.statements);
        let copies = instructions.any(|statement| {
            matches!(&statement.instruction, Instruction::Copy(copy) | Instruction::Add(copy) if copy.from.is_none())
        });
        match copies {
            true => self.context().map(|tree| tree.ignore().clone()).unwrap_or_default(),
            false => Ignore::default(),
        }
    }
}

/// The findings of the checks, each as lines with an excerpt of the Dockerfile. Builds nothing.
///
/// # Errors
/// Whatever would end a build before its first step.
pub fn lint(options: &Options) -> Result<Vec<String>, Error> {
    let input = Input::read(options)?;
    input.work(options, |file| {
        let open = || Store::look(options);
        let builder = Builder::new(options, &input, file, open, Some(Rehearsal::default()))?;
        let findings = builder.findings()?;
        let shown = |finding: &Finding| {
            let excerpt = input.excerpt(finding.line, None);
            format!("WARNING: {}\n{}\n{excerpt}", finding.rule, finding.message)
        };
        Ok(findings.iter().map(shown).collect())
    })
}
