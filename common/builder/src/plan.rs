//! Finds the stages that a build needs, and their order.

use std::collections::BTreeMap;

use oci::{Platform, Reference, platform::InvalidPlatform};

use crate::{
    arguments::Global,
    dockerfile::{
        Dockerfile, Instruction, Stage, Statement,
        expand::{ExpandError, Expander},
        mount::{self, MountFields},
        parse_trigger,
        suggest::suggest,
        word_of,
    },
};

/// What a stage is based on, or what a copy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `scratch`: nothing.
    Scratch,
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image, by its name, for a platform. By default, for this machine's platform.
    Image(String, Option<Platform>),
    /// The files of a named context (`--build-context`).
    Files(String),
}

impl Plan {
    /// The number of steps before a stage.
    pub(crate) fn first_step(&self, file: &Dockerfile, at: usize) -> usize {
        let before = self.stages.iter().take_while(|stage| **stage != at);
        file.arguments.len() + steps_of(file, &self.replaced, before)
    }
}

impl PlanError {
    /// The wrong word of the instruction, if the error is about one.
    pub(crate) fn word(&self) -> Option<String> {
        match self {
            Self::BlankBase(word) | Self::Circular(word) | Self::OutOfBounds(word) | Self::Later(word) => {
                Some(word.clone())
            }
            Self::Platform(word, _) => Some(word.clone()),
            Self::Mount(message) => word_of(message).map(str::to_owned),
            Self::NoTarget(..) | Self::NoStage(..) | Self::Expand(_) | Self::Epoch(_) => None,
        }
    }
}

/// What a name of `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// `scratch`: nothing.
    Scratch,
    /// An image, by its name.
    Image(String),
    /// The files of a context.
    Files,
}

/// The names of `--build-context`. They take precedence over images and stages of the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, Alias>);

impl Aliases {
    /// Makes the list of names and what they stand for.
    pub fn new(names: impl IntoIterator<Item = (String, Alias)>) -> Self {
        Self(names.into_iter().collect())
    }

    /// What a name stands for. Different spellings of the same image name are equal.
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
    /// The indexes of the stages, in the order of the file. The last target is the last.
    pub stages: Vec<usize>,
    /// The base of each stage in the file.
    pub bases: Vec<Origin>,
    /// For each stage in the file, the stages that must be built first.
    pub needs: Vec<Vec<usize>>,
    /// For each stage in the file, whether a name of `--build-context` replaces it.
    pub replaced: Vec<bool>,
    /// The names of `--build-context`.
    pub aliases: Aliases,
    /// The number of steps.
    pub steps: usize,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `--target` does not name a stage.
    #[error("target stage {0:?} could not be found{1}")]
    NoTarget(String, String),
    /// `--no-cache-filter` does not name a stage.
    #[error("no stage {0:?}, whose steps would not use the cache{1}")]
    NoStage(String, String),
    /// A variable in FROM cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// The base of a FROM is empty.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// A stage copies from itself.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// `--from=7`, and there is no such stage.
    #[error("invalid from flag value {0}: stage index out of bounds")]
    OutOfBounds(String),
    /// A stage copies from a later one.
    #[error("cannot copy from stage {0:?}, it needs to be defined before current stage")]
    Later(String),
    /// The value of `--platform` is invalid. It is given as it was written, and with its variables expanded.
    #[error("platform {0}: {1}")]
    Platform(String, InvalidPlatform),
    /// The value of `--mount` is invalid.
    #[error("{0}")]
    Mount(String),
    /// `SOURCE_DATE_EPOCH` names a stage that does more than fetch a source.
    #[error("the stage of SOURCE_DATE_EPOCH {0}")]
    Epoch(&'static str),
}

/// What `name` means in the stage `at`. A number is the index of a stage. A name means the nearest earlier
/// stage, `scratch`, or an image for this platform.
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
    let other = || match name {
        "scratch" => Origin::Scratch,
        name => Origin::Image(name.to_owned(), platform.cloned()),
    };
    Ok(aliases.find(name, platform).unwrap_or_else(other))
}

pub(crate) fn is_named(stage: &Stage, name: &str) -> bool {
    stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// The last stage of this name: it counts where a name occurs twice.
pub(crate) fn named(stages: &[Stage], name: &str) -> Option<usize> {
    stages.iter().rposition(|stage| is_named(stage, name))
}

/// The index of the target, by name or number. By default, the last stage.
pub fn target(file: &Dockerfile, target: Option<&str>) -> Result<usize, PlanError> {
    let Some(name) = target.filter(|name| !name.is_empty()) else {
        return Ok(file.stages.len().saturating_sub(1));
    };
    named(&file.stages, name)
        .or_else(|| name.parse().ok().filter(|number| *number < file.stages.len()))
        .ok_or_else(|| PlanError::NoTarget(name.to_owned(), suggest(name, &names(&file.stages))))
}

/// Checks that each of these names is that of a stage.
pub(crate) fn know_all(stages: &[Stage], wanted: &[String]) -> Result<(), PlanError> {
    match wanted.iter().find(|name| named(stages, name).is_none()) {
        Some(name) => Err(PlanError::NoStage(name.clone(), suggest(name, &names(stages)))),
        None => Ok(()),
    }
}

/// The names of the stages that have one.
pub(crate) fn names(stages: &[Stage]) -> Vec<&str> {
    stages.iter().filter_map(|stage| stage.name.as_deref()).collect()
}

/// Returns the ONBUILD instructions of an image, for a platform.
pub type Triggers<'a> = dyn Fn(&str, Option<&Platform>) -> Vec<String> + 'a;

/// Finds the stages that these targets need. `triggers` returns the ONBUILD instructions of an image, which may
/// need stages too. Stages that nothing needs are not built.
///
/// # Errors
/// [`PlanError`], with the number of the line.
pub fn plan(
    file: &Dockerfile,
    targets: impl IntoIterator<Item = usize>,
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
    let mut pending: Vec<usize> = targets.into_iter().collect();
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
            known_mounts(instruction).map_err(|error| (line, error))?;
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

/// The number of steps in these stages. A stage that is replaced has one.
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

/// The platform of a stage: that of its FROM, or else that of the build.
pub(crate) fn platform(
    file: &Dockerfile,
    stage: &Stage,
    global: &Global,
) -> Result<Option<Platform>, PlanError> {
    let lookup = |name: &str| global.variable(name);
    match &stage.platform {
        Some(written) => {
            let parsed = Expander::new(file.escape, &lookup).word(written)?.parse();
            parsed.map(Some).map_err(|error| PlanError::Platform(written.clone(), error))
        }
        None => Ok(global.target().cloned()),
    }
}

/// The ONBUILD instructions that a base has for the stage on it. Invalid ones are reported when they are run.
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

/// Checks the mounts of a RUN that no variable decides.
fn known_mounts(instruction: &Instruction) -> Result<(), PlanError> {
    let Instruction::Run(run) = instruction else { return Ok(()) };
    for text in run.mounts.iter().filter(|text| !text.contains('$')) {
        mount::parse(MountFields::of(text)).map_err(PlanError::Mount)?;
    }
    Ok(())
}

/// The names in `--from` and in `from=` of `--mount`.
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
        plan(&file, [target], &global, &Aliases::default(), &triggers)
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
            ("FROM a\nRUN --mount=type=foo,target=/x a", None, (2, "unsupported mount type \"foo\"")),
            (
                "FROM a\nRUN --mount=type=bind,target=/x,mode=1 a",
                None,
                (2, "mode not allowed for \"bind\" type mounts"),
            ),
            ("FROM a\nRUN --mount=foo a", None, (2, "invalid field 'foo' must be a key=value pair")),
            (
                "FROM a\nRUN --mount=type=cache,required a",
                None,
                (2, "unexpected key 'required' for mount type 'cache'"),
            ),
            ("FROM a\nRUN --mount=env=A a", None, (2, "unexpected key 'env' for mount type 'bind'")),
            (
                "FROM a\nRUN --mount=type=secret a",
                None,
                (2, "invalid secret mount. one of source, target required"),
            ),
            ("FROM a\nRUN --mount=type=secret,source=a,id=b a", None, (2, "both source and id can't be set")),
            (
                "FROM a\nRUN --mount=type=secret,id=a,from=b a",
                None,
                (2, "secret mount should not have a from"),
            ),
        ] {
            let (line, error) = plan_of(text, name).unwrap_err();
            assert_eq!((line, error.to_string().as_str()), expected, "{text}");
        }
        let unused = "FROM a\nRUN --mount=type=foo,target=/x a\nFROM a";
        assert_eq!(
            plan_of(unused, None).unwrap().stages,
            [1],
            "nothing is said about a stage that is not built"
        );
        assert!(plan_of("FROM --platform=none a", None).is_err());
        for (platform, wanted) in [
            ("linux/s390x", "linux/s390x".parse().unwrap()),
            ("linux", Platform::host()),
            ("s390x", "linux/s390x".parse().unwrap()),
            ("$BUILDPLATFORM", Platform::host()),
        ] {
            let plan = plan_of(&format!("FROM --platform={platform} a"), None).unwrap();
            assert_eq!(plan.bases, [Origin::Image("a".into(), Some(wanted))]);
        }
    }
}
