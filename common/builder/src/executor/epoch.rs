//! `SOURCE_DATE_EPOCH`: the time of everything in the image, as a number of seconds, or as the name of the source whose time it
//! is.

use std::{fs, path::Path};

use oci::{
    Digest,
    timestamp::{self, CONTEXT, SOURCE_DATE_EPOCH as NAME},
};

use super::{
    Named, Options, fetch,
    input::{Input, workspace},
    repository, request,
    store::open_readable,
};
use crate::{
    arguments::{Global, Local},
    config::Config,
    copy,
    dockerfile::{Dockerfile, Instruction, Stage, expand::Expander, instruction::Copy},
    error::{Cause, Error},
    plan::{self, PlanError},
};

/// The time of a build argument, or else of an ARG before the first FROM. The name of a source becomes its time in it: that of
/// the context, of a named context, or of a stage that only fetches a file or a repository.
pub(super) fn epoch(
    options: &Options,
    input: &Input,
    file: &Dockerfile,
    global: &mut Global,
) -> Result<Option<i64>, Error> {
    let text = global.given_value(NAME).or_else(|| global.variable(NAME)).unwrap_or_default();
    let invalid = match timestamp::epoch(&text) {
        Ok(time) => return Ok(time),
        Err(invalid) => invalid,
    };
    let stage = plan::named(&file.stages, &text).and_then(|at| file.stages.get(at));
    let time = match (options.contexts.get(&text), stage) {
        _ if text == CONTEXT => input.time(),
        (Some(named), _) => of_context(options, named)?,
        (None, Some(stage)) => {
            let at = |source| Error::Plan { file: input.name.clone(), line: stage.line, source };
            let (source, checksum) = source_of(file, stage, global).map_err(at)?;
            of_source(options, &source, checksum.as_deref())?.ok_or_else(|| at(NOT_REMOTE))?
        }
        (None, None) => return Err(Cause::from(invalid).into()),
    };
    let time = time.filter(|seconds| *seconds >= 0);
    global.replace(NAME, time.map(|seconds| seconds.to_string()));
    Ok(time)
}

const NOT_REMOTE: PlanError = PlanError::Epoch("must fetch from a web server or a repository of git");

/// The time of a named context. Only what is fetched has one.
fn of_context(options: &Options, named: &Named) -> Result<Option<i64>, Cause> {
    match named {
        Named::Web(address) => of_file(options, address, None),
        Named::Git(address) => of_repository(options, address).map(Some),
        Named::Directory(_) | Named::Image(_) | Named::Layout(..) => Ok(None),
    }
}

/// The source of a stage that does nothing but fetch it, and the `--checksum` that it must have.
fn source_of(
    file: &Dockerfile,
    stage: &Stage,
    global: &Global,
) -> Result<(String, Option<String>), PlanError> {
    // The name of the variable itself means nothing yet.
    let outside = |name: &str| global.variable(name).filter(|_| name != NAME);
    if Expander::new(file.escape, &outside).word(&stage.base)? != "scratch" {
        return Err(PlanError::Epoch("must be FROM scratch"));
    }
    let (mut local, config) = (Local::default(), Config::default());
    let mut found = None;
    for statement in &stage.statements {
        match &statement.instruction {
            Instruction::Arg(arguments) => {
                local.declare(arguments, global, &config, file.escape)?;
                local.hide(NAME);
            }
            Instruction::Add(Copy { sources, documents, checksum, .. }) => match &sources[..] {
                [source] if documents.is_empty() && found.is_none() => {
                    let lookup = |name: &str| local.variable(name, &config);
                    let expander = Expander::new(file.escape, &lookup);
                    let checksum = checksum.as_deref().map(|text| expander.word(text)).transpose()?;
                    found = Some((expander.word(source)?, checksum));
                }
                _ => return Err(PlanError::Epoch("must have one ADD, of one source")),
            },
            _ => return Err(PlanError::Epoch("must have no other instructions than ARG and ADD")),
        }
    }
    found.ok_or(PlanError::Epoch("must have one ADD, of one source"))
}

/// The time of a source of ADD. The outer None: nothing is fetched for it.
fn of_source(options: &Options, source: &str, checksum: Option<&str>) -> Result<Option<Option<i64>>, Cause> {
    let sources = [source.to_owned()];
    let checksum_of = |text: &str| request::checksum(text, &sources);
    match git::Address::parse(source) {
        Some(address) => {
            let mut addresses = [address.map_err(|error| Cause::GitAddress(source.to_owned(), error))?];
            checksum.map(checksum_of).transpose()?;
            request::keep_git(None, &mut addresses, checksum)?;
            of_repository(options, &addresses[0]).map(|time| Some(Some(time)))
        }
        None if fetch::is_web(source) => {
            let digest = checksum.map(checksum_of).transpose()?.flatten();
            of_file(options, source, digest.as_ref()).map(Some)
        }
        None => Ok(None),
    }
}

/// The time of a commit.
fn of_repository(options: &Options, address: &git::Address) -> Result<i64, Cause> {
    let workspace = workspace(options)?;
    let step = workspace.step()?;
    repository::check_out(address, None, options, (&step.upper, &step.work), false)
}

/// The time of a file on a web server: as the server says, or else the newest one in the archive.
fn of_file(options: &Options, address: &str, checksum: Option<&Digest>) -> Result<Option<i64>, Cause> {
    let workspace = workspace(options)?;
    let (file, _, modified) = fetch::download(options, address, checksum, &workspace.path().join("file"))?;
    if modified.is_some() || !copy::is_archive(&file) {
        return Ok(modified);
    }
    let directory = workspace.path().join("content");
    fs::create_dir(&directory).map_err(Cause::system("create", &directory))?;
    let object = registry::without_user(address);
    copy::unpack_context(file, Path::new(&object), &open_readable(&directory)?)
        .map_err(|source| Cause::Input { object, source })
}
