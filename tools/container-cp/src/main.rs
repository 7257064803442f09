//! Copies files between a container and the host.
//!
//! # Does
//! Copies a file, or a directory with its content, by Docker's rules for names. For a running container it
//! sees what the container sees; for an ended one, its root file system and its volumes. Every path in a
//! container is resolved inside the container, and symbolic links are copied as links.
//! # Reads
//! No document. Reads the record, and a tar from standard input if the source is `-`.
//! # Adds
//! Nothing. If the destination is `-`, a tar goes to standard output.
//! # Undoes
//! Nothing.
//! # Needs
//! Root, or the user who started the container.

mod ids;
mod pack;
mod root;
mod side;
mod target;
mod unpack;

use std::{
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    process::ExitCode,
    thread,
};

use clap::Parser;
use pack::{Packer, Source};
use root::Root;
use serde_json::Value;
use side::Side;
use target::Target;
use toolkit::prelude::*;
use unpack::Unpacker;

/// Copy files out of a container, into it, or between two containers
#[derive(Parser)]
#[command(name = "container-cp", version)]
struct ContainerCp {
    /// The source; DIR/. is the content of a directory; - is a tar on standard input
    #[arg(value_name = "[ID:]SOURCE|-")]
    source: Side,
    /// The destination; in an existing directory the copy keeps its name; - is a tar on standard output
    #[arg(value_name = "[ID:]DESTINATION|-")]
    destination: Side,
    /// Keep owners; by default the files belong to root in a container, and to you on the host
    #[arg(short, long)]
    archive: bool,
    /// If SOURCE is a symbolic link, copy its target
    #[arg(short = 'L', long)]
    follow_link: bool,
    #[arg(help = "Leave out what is mounted in the container: read only its root file system", long)]
    no_mounts: bool,
    #[command(flatten)]
    common: Common,
}

impl ContainerCp {
    fn check(&self) -> Result<()> {
        match (&self.source, &self.destination) {
            (Side::Container { .. }, _) | (_, Side::Container { .. }) => Ok(()),
            _ => Err(hint(anyhow!("neither path is in a container"), "write it as ID:PATH")),
        }
    }

    fn open(&self, context: &Context, side: &Side) -> Result<Root> {
        match side {
            Side::Container { id, .. } if self.no_mounts => Root::file_system(&context.scope, id),
            Side::Container { id, .. } => Root::of(&context.scope, id),
            _ => Root::host(),
        }
    }

    /// Both sides, with the ids of the containers.
    fn sides(&self, context: &Context) -> (Side, Side) {
        (self.source.found(&context.scope), self.destination.found(&context.scope))
    }

    fn run(&self, context: &Context) -> Result<()> {
        self.check()?;
        let (source, destination) = self.sides(context);
        let from = self.open(context, &source)?;
        let other = match (&source, &destination) {
            (Side::Container { id: from, .. }, Side::Container { id: to, .. }) if from == to => None,
            (_, destination) => Some(self.open(context, destination)?),
        };
        let to = other.as_ref().unwrap_or(&from);
        match (&source, &destination) {
            (Side::Stream, destination) => {
                let target = Target::directory(to, destination.path())?;
                let input = BufReader::with_capacity(128 << 10, io::stdin());
                self.unpacker(to, &target, destination).run(input)
            }
            (source, Side::Stream) => {
                if io::stdout().is_terminal() {
                    return Err(hint(
                        anyhow!("standard output is a terminal: redirect the tar to a file"),
                        "send it to a file or a pipe",
                    ));
                }
                let source = Source::find(&from, source.path(), self.follow_link)?;
                let name = source.name.clone();
                let mut out = BufWriter::with_capacity(128 << 10, io::stdout().lock());
                Packer::new(&from, &mut out).run(&source, &name)?;
                out.flush().context("write the tar")
            }
            (source, destination) => {
                let source = Source::find(&from, source.path(), self.follow_link)?;
                let target = Target::find(to, destination.path(), &source)?;
                let (reader, writer) = io::pipe().context("create a pipe")?;
                thread::scope(|scope| {
                    let pack = || {
                        let mut out = BufWriter::with_capacity(128 << 10, writer);
                        Packer::new(&from, &mut out).run(&source, &target.name)?;
                        out.flush().context("write the tar")
                    };
                    let packed =
                        thread::Builder::new().spawn_scoped(scope, pack).context("start a thread")?;
                    let input = BufReader::with_capacity(128 << 10, reader);
                    let unpacked = self.unpacker(to, &target, destination).run(input);
                    let packed =
                        packed.join().unwrap_or_else(|_| Err(anyhow!("the reading thread panicked")));
                    // The side that fails first breaks the pipe for the other. Its error is the cause.
                    match (unpacked, packed) {
                        (Err(error), Err(why)) if unpack::is_end(&error) => Err(why),
                        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
                        (Ok(()), Ok(())) => Ok(()),
                    }
                })
            }
        }
    }

    fn unpacker<'a>(&self, root: &'a Root, target: &'a Target, destination: &Side) -> Unpacker<'a> {
        let is_host = !matches!(destination, Side::Container { .. });
        Unpacker::new(root, target, is_host, self.archive)
    }
}

impl Report for ContainerCp {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        self.check()?;
        let side = |side: &Side| -> Result<String> {
            Ok(match side {
                Side::Stream => "-".to_owned(),
                Side::Host(path) => path.to_string_lossy().into_owned(),
                Side::Container { id, path } => root::shown(&context.scope, id, path)?,
            })
        };
        let (source, destination) = self.sides(context);
        let (source, destination) = (side(&source)?, side(&destination)?);
        let owner = if self.archive { "-a" } else { "-dR" };
        Ok(vec![match (&self.source, &self.destination) {
            (Side::Stream, _) => operation::words(["tar", "-x", "-C", &destination]),
            (_, Side::Stream) => operation::words(["tar", "-c", &source]),
            _ => operation::words(["cp", owner, &source, &destination]),
        }])
    }

    fn report(&self, context: &Context) -> Result<Value> {
        self.run(context).map(|()| Value::Null)
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<ContainerCp>()
}
