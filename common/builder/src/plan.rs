//! The stages that a build needs, in order.

use std::collections::BTreeMap;

use oci::{Platform, Reference, platform::InvalidPlatform};

use crate::{
    arguments::Global,
    dockerfile::{
        Dockerfile, Instruction, Stage, Statement,
        expand::{ExpandError, Expander},
        mount, parse_trigger,
        suggest::suggest,
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
    /// Files that have a name of their own (`--build-context`).
    Files(String),
}

impl Plan {
    /// How many steps there are before a stage.
    pub(crate) fn first_step(&self, file: &Dockerfile, at: usize) -> usize {
        let before = self.stages.iter().take_while(|stage| **stage != at);
        file.arguments.len() + steps_of(file, &self.replaced, before)
    }
}

impl PlanError {
    /// The word that is wrong, where it is about one.
    pub(crate) fn word(&self) -> Option<String> {
        match self {
            Self::BlankBase(word) | Self::Circular(word) | Self::OutOfBounds(word) | Self::Later(word) => {
                Some(word.clone())
            }
            Self::NoTarget(..) | Self::Expand(_) | Self::Platform(_) => None,
        }
    }
}

/// What a name stands for that was given from outside (`--build-context`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// Nothing.
    Scratch,
    /// An image, by its name.
    Image(String),
    /// Files.
    Files,
}

/// Names that were given from outside. They go before images of the same names, and before whole stages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, Alias>);

impl Aliases {
    /// From names and their meanings.
    pub fn new(names: impl IntoIterator<Item = (String, Alias)>) -> Self {
        Self(names.into_iter().collect())
    }

    /// What a name stands for, written in any of the ways that mean the same image.
    fn find(&self, name: &str, platform: Option<&Platform>) -> Option<Origin> {
        let canonical =
            |name: &str| name.parse::<Reference>().ok().map(|reference| reference.pinned().canonical());
        let is_same = |own: &str| {
            own.eq_ignore_ascii_case(name) || canonical(own).is_some_and(|own| canonical(name) == Some(own))
        };
        let (own, alias) = self.0.iter().find(|(own, _)| is_same(own))?;
        Some(match alias {
            Alias::Scratch => Origin::Scratch,
            Alias::Image(image) => Origin::Image(image.clone(), platform.cloned()),
            Alias::Files => Origin::Files(own.clone()),
        })
    }
}

/// The stages that a target needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Indexes of stages, in the file's order; the target is the last.
    pub stages: Vec<usize>,
    /// For each stage of the file, its base.
    pub bases: Vec<Origin>,
    /// For each stage of the file, the stages that must be built before it.
    pub needs: Vec<Vec<usize>>,
    /// Whether a stage of the file is replaced as a whole by what has its name outside.
    pub replaced: Vec<bool>,
    /// The names from outside.
    pub aliases: Aliases,
    /// How many steps there are.
    pub steps: usize,
}

/// Why there is no plan, with the line (0 if there is none).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `--target` names no stage.
    #[error("target stage {0:?} could not be found{1}")]
    NoTarget(String, String),
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
    /// A stage that copies from a later one.
    #[error("cannot copy from stage {0:?}, it needs to be defined before the current stage")]
    Later(String),
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
    aliases: &Aliases,
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
    if let Some(index) = named(&stages[..at], name) {
        return Ok(Origin::Stage(index));
    }
    if named(stages, name).is_some() {
        return Err(PlanError::Later(name.to_owned()));
    }
    let image = || Origin::Image(name.to_owned(), platform.cloned());
    Ok(aliases.find(name, platform).unwrap_or_else(image))
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
        .ok_or_else(|| PlanError::NoTarget(name.to_owned(), suggest(name, &names(&file.stages))))
}

/// The names of stages.
pub(crate) fn names(stages: &[Stage]) -> Vec<&str> {
    stages.iter().filter_map(|stage| stage.name.as_deref()).collect()
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
    aliases: &Aliases,
    triggers: &Triggers<'_>,
) -> Result<Plan, (usize, PlanError)> {
    let (mut bases, mut replaced) = (Vec::new(), Vec::new());
    for (at, stage) in file.stages.iter().enumerate() {
        let outside = stage.name.as_deref().and_then(|name| aliases.find(name, global.target()));
        replaced.push(outside.is_some());
        bases.push(match outside {
            Some(origin) => origin,
            None => base(file, at, stage, global, aliases).map_err(|error| (stage.line, error))?,
        });
    }
    let mut needs = vec![Vec::new(); file.stages.len()];
    let mut needed = vec![false; file.stages.len()];
    let mut pending = vec![target];
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut needed[at], true) {
            continue;
        }
        let stage = &file.stages[at];
        let mut origins = vec![bases[at].clone()];
        if replaced[at] {
            continue;
        }
        let left = left_by(file, &bases[at], triggers);
        let own = stage.statements.iter().map(|statement| (statement.line, &statement.instruction));
        for (line, instruction) in left.iter().map(|left| (stage.line, left)).chain(own) {
            for from in sources(instruction) {
                origins.push(
                    origin(&file.stages, at, &from, global.target(), aliases)
                        .map_err(|error| (line, error))?,
                );
            }
        }
        needs[at] = origins
            .iter()
            .filter_map(|origin| match origin {
                Origin::Stage(index) => Some(*index),
                _ => None,
            })
            .collect();
        pending.extend(&needs[at]);
    }
    let stages: Vec<usize> = (0..needed.len()).filter(|at| needed[*at]).collect();
    let steps = file.arguments.len() + steps_of(file, &replaced, &stages);
    Ok(Plan { stages, bases, needs, replaced, aliases: aliases.clone(), steps })
}

/// How many steps these stages have. A stage that is replaced as a whole has one.
fn steps_of<'a>(file: &Dockerfile, replaced: &[bool], stages: impl IntoIterator<Item = &'a usize>) -> usize {
    let of_stage = |at: &usize| if replaced[*at] { 1 } else { file.stages[*at].statements.len() + 1 };
    stages.into_iter().map(of_stage).sum()
}

fn base(
    file: &Dockerfile,
    at: usize,
    stage: &Stage,
    global: &Global,
    aliases: &Aliases,
) -> Result<Origin, PlanError> {
    let lookup = |name: &str| global.variable(name);
    let base = Expander::new(file.escape, &lookup).word(&stage.base)?;
    let platform = platform(file, stage, global)?;
    match base.as_str() {
        "" => Err(PlanError::BlankBase(stage.base.clone())),
        "scratch" => Ok(Origin::Scratch),
        base => {
            if let Some(index) = named(&file.stages[..at], base) {
                return Ok(Origin::Stage(index));
            }
            let outside = aliases.find(base, platform.as_ref());
            Ok(outside.unwrap_or_else(|| Origin::Image(base.to_owned(), platform)))
        }
    }
}

/// What a stage is for: the platform of its FROM, or else that of the build.
pub(crate) fn platform(
    file: &Dockerfile,
    stage: &Stage,
    global: &Global,
) -> Result<Option<Platform>, PlanError> {
    let lookup = |name: &str| global.variable(name);
    match &stage.platform {
        Some(platform) => Ok(Some(Expander::new(file.escape, &lookup).word(platform)?.parse()?)),
        None => Ok(global.target().cloned()),
    }
}

/// The ONBUILD instructions of a base for the stage on it. Invalid ones are reported when it is their turn.
fn left_by(file: &Dockerfile, base: &Origin, triggers: &Triggers<'_>) -> Vec<Instruction> {
    let texts = match base {
        Origin::Scratch | Origin::Files(_) => Vec::new(),
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
        plan(&file, target, &global, &Aliases::default(), &triggers)
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
