//! The stages that a build needs, in order.

use oci::{Platform, platform::InvalidPlatform};

use crate::{
    arguments::Global,
    dockerfile::{
        Dockerfile, Instruction, Stage, Statement,
        expand::{ExpandError, Expander},
        mount, parse_trigger,
    },
};

/// The base of a stage, or the source of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image, by its name, and for which platform: by default for this machine's.
    Image(String, Option<Platform>),
}

/// The stages that a target needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Indexes of stages, in the file's order; the target is the last.
    pub stages: Vec<usize>,
    /// For each stage of the file, its base.
    pub bases: Vec<Origin>,
    /// How many steps there are.
    pub steps: usize,
}

/// Why there is no plan, with the line (0 if there is none).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `--target` names no stage.
    #[error("target stage {0:?} could not be found")]
    NoTarget(String),
    /// A variable in FROM.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An empty FROM.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// A stage that copies from itself.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// `--from=7` without such a stage.
    #[error("invalid from flag value {0}: stage index out of bounds")]
    OutOfBounds(String),
    /// A `--platform` that is none.
    #[error(transparent)]
    Platform(#[from] InvalidPlatform),
}

/// A number counts from the first stage; a name means the nearest stage before `at`, or an image for this platform.
pub fn origin(
    stages: &[Stage],
    at: usize,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Origin, PlanError> {
    if let Ok(number) = name.parse::<usize>() {
        if number == at {
            return Err(PlanError::Circular(name.to_owned()));
        }
        return if number < at {
            Ok(Origin::Stage(number))
        } else {
            Err(PlanError::OutOfBounds(name.to_owned()))
        };
    }
    if stages.get(at).is_some_and(|stage| is_named(stage, name)) {
        return Err(PlanError::Circular(name.to_owned()));
    }
    let image = || Origin::Image(name.to_owned(), platform.cloned());
    Ok(named(&stages[..at], name).map_or_else(image, Origin::Stage))
}

fn is_named(stage: &Stage, name: &str) -> bool {
    stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

fn named(stages: &[Stage], name: &str) -> Option<usize> {
    stages.iter().rposition(|stage| is_named(stage, name))
}

/// The target's index: by name or number; the last stage by default.
pub fn target(file: &Dockerfile, target: Option<&str>) -> Result<usize, PlanError> {
    let Some(name) = target.filter(|name| !name.is_empty()) else {
        return Ok(file.stages.len().saturating_sub(1));
    };
    named(&file.stages, name)
        .or_else(|| name.parse().ok().filter(|number| *number < file.stages.len()))
        .ok_or_else(|| PlanError::NoTarget(name.to_owned()))
}

/// Returns the ONBUILD instructions of an image, for a platform.
pub type Triggers<'a> = dyn Fn(&str, Option<&Platform>) -> Vec<String> + 'a;

/// Finds the stages that `target` needs, including those for ONBUILD of its base; `triggers` returns an image's. Stages
/// that nothing needs are not built.
///
/// # Errors
/// [`PlanError`], with the number of the line.
pub fn plan(
    file: &Dockerfile,
    target: usize,
    global: &Global,
    triggers: &Triggers<'_>,
) -> Result<Plan, (usize, PlanError)> {
    let mut bases = Vec::new();
    for (at, stage) in file.stages.iter().enumerate() {
        bases.push(base(file, at, stage, global).map_err(|error| (stage.line, error))?);
    }
    let mut needed = vec![false; file.stages.len()];
    let mut pending = vec![target];
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut needed[at], true) {
            continue;
        }
        let mut origins = vec![bases[at].clone()];
        let stage = &file.stages[at];
        let left = left_by(file, &bases[at], triggers);
        let own = stage.statements.iter().map(|statement| (statement.line, &statement.instruction));
        for (line, instruction) in left.iter().map(|left| (stage.line, left)).chain(own) {
            for from in sources(instruction) {
                origins
                    .push(origin(&file.stages, at, &from, global.target()).map_err(|error| (line, error))?);
            }
        }
        pending.extend(origins.iter().filter_map(|origin| match origin {
            Origin::Stage(index) => Some(*index),
            _ => None,
        }));
    }
    let stages: Vec<usize> = (0..needed.len()).filter(|at| needed[*at]).collect();
    let statements: usize = stages.iter().map(|at| file.stages[*at].statements.len() + 1).sum();
    Ok(Plan { stages, bases, steps: file.arguments.len() + statements })
}

fn base(file: &Dockerfile, at: usize, stage: &Stage, global: &Global) -> Result<Origin, PlanError> {
    let lookup = |name: &str| global.variable(name);
    let expander = Expander::new(file.escape, &lookup);
    let base = expander.word(&stage.base)?;
    let platform = match &stage.platform {
        Some(platform) => Some(expander.word(platform)?.parse()?),
        None => global.target().cloned(),
    };
    match base.as_str() {
        "" => Err(PlanError::BlankBase(stage.base.clone())),
        "scratch" => Ok(Origin::Scratch),
        base => {
            let image = || Origin::Image(base.to_owned(), platform);
            Ok(named(&file.stages[..at], base).map_or_else(image, Origin::Stage))
        }
    }
}

/// The ONBUILD instructions of a base for the stage on it. Invalid ones are reported when it is their turn.
fn left_by(file: &Dockerfile, base: &Origin, triggers: &Triggers<'_>) -> Vec<Instruction> {
    let texts = match base {
        Origin::Scratch => Vec::new(),
        Origin::Image(name, platform) => triggers(name, platform.as_ref()),
        Origin::Stage(index) => {
            let statements = file.stages[*index].statements.iter();
            let text = |statement: &Statement| match &statement.instruction {
                Instruction::Onbuild(text) => Some(text.clone()),
                _ => None,
            };
            statements.filter_map(text).collect()
        }
    };
    texts.iter().filter_map(|text| Some(parse_trigger(text).ok()?.instruction)).collect()
}

/// The names in `--from` and `--mount=from=`.
fn sources(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|text| mount::from(text)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn plan_of(text: &str, name: Option<&str>) -> Result<Plan, (usize, PlanError)> {
        let file = parse(text.as_bytes()).unwrap();
        let global = Global::new(Default::default(), None, &file.arguments, '\\', "").unwrap();
        let target = target(&file, name).map_err(|error| (0, error))?;
        let triggers = |name: &str, _: Option<&Platform>| match name {
            "with-triggers" => vec!["COPY --from=tool /x /y".to_owned(), "no instruction".to_owned()],
            _ => Vec::new(),
        };
        plan(&file, target, &global, &triggers)
    }

    #[test]
    fn what_onbuild_needs_is_built() {
        let stages = |text: &str| plan_of(text, None).unwrap().stages;
        assert_eq!(
            stages("FROM a AS a\nONBUILD COPY --from=b /x /y\nFROM c AS b\nFROM d AS c\nFROM a"),
            [0, 1, 3]
        );
        assert_eq!(
            stages("FROM a AS a\nONBUILD RUN --mount=from=b true\nFROM c AS b\nFROM a AS c\nFROM c"),
            [0, 1, 2, 3],
            "the stage between follows the trigger"
        );
        assert_eq!(stages("FROM a AS tool\nFROM b AS other\nFROM with-triggers"), [0, 2]);
        let (line, error) = plan_of("FROM a AS a\nONBUILD COPY --from=9 / /\nFROM a", None).unwrap_err();
        assert_eq!(
            (line, error.to_string().as_str()),
            (3, "invalid from flag value 9: stage index out of bounds")
        );
    }

    #[test]
    fn only_what_is_needed_is_built() {
        let text = "ARG B=base\nFROM $B AS a\nRUN x\nFROM scratch AS unused\nRUN y\nFROM A AS b\nRUN --mount=from=c,target=/c z\n\
                    FROM scratch\nCOPY --from=b / /\nCOPY --from=0 / /\nCOPY --from=other:1 / /";
        let plan = plan_of(text, None).unwrap();
        assert_eq!(plan.stages, [0, 2, 3]);
        assert_eq!(
            plan.bases,
            [Origin::Image("base".into(), None), Origin::Scratch, Origin::Stage(0), Origin::Scratch]
        );
        assert_eq!(plan.steps, 1 + 2 + 2 + 4);
        assert_eq!(plan_of(text, Some("a")).unwrap().stages, [0]);
        assert_eq!(plan_of(text, Some("1")).unwrap().stages, [1]);
    }

    #[test]
    fn what_cannot_be_planned() {
        for (text, name, expected) in [
            ("FROM a", Some("x"), (0, "target stage \"x\" could not be found")),
            ("FROM $x", None, (1, "base name ($x) should not be blank")),
            ("FROM ${x:?no}", None, (1, "x: no")),
            ("FROM a AS b\nCOPY --from=b / /", None, (2, "circular dependency detected on stage: b")),
            ("FROM a\nCOPY --from=1 / /", None, (2, "invalid from flag value 1: stage index out of bounds")),
            ("FROM a\nCOPY --from=0 / /", None, (2, "circular dependency detected on stage: 0")),
        ] {
            let (line, error) = plan_of(text, name).unwrap_err();
            assert_eq!((line, error.to_string().as_str()), expected, "{text}");
        }
        assert!(plan_of("FROM --platform=linux a", None).is_err());
        for (platform, wanted) in
            [("linux/s390x", "linux/s390x".parse().unwrap()), ("$BUILDPLATFORM", Platform::host())]
        {
            let plan = plan_of(&format!("FROM --platform={platform} a"), None).unwrap();
            assert_eq!(plan.bases, [Origin::Image("a".into(), Some(wanted))]);
        }
    }
}
