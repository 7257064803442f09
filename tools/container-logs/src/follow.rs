//! Reads a log to its end, and follows it.

use std::{
    fs::{File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use life::Container;
use monitor::{Chunk, Entries, Log};
use operation::Scope;
use toolkit::prelude::*;

use super::filter::{Filter, Printer};

/// How often a followed log is checked for more.
const PAUSE: Duration = Duration::from_millis(50);

/// One of the files of a log, and its index.
struct Part {
    file: File,
    entries: Entries,
}

impl Part {
    fn open(path: &Path) -> Result<Option<Self>> {
        let entries = Entries::open(path).with_context(|| format!("read {:?}", Log::index(path)))?;
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            file => Ok(Some(Self { file: file.with_context(|| format!("read {path:?}"))?, entries })),
        }
    }

    /// Whether the open file still has the name `path`.
    fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| self.is(&found))
    }

    fn is(&self, found: &Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    /// Prints what was not printed yet. `is_whole` means that nobody writes to the file any more.
    fn print(&mut self, printer: &mut Printer, (path, is_whole): (&Path, bool)) -> Result<()> {
        let failed = || format!("read {path:?}");
        let length = self.file.metadata().with_context(failed)?.len();
        while let Some(Chunk { time, source, from, to }) =
            self.entries.next(length, is_whole).with_context(failed)?
        {
            let mut at = from;
            let mut buffer = vec![0; 64 << 10];
            while at < to {
                let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
                match self.file.read_at(&mut buffer[..wanted], at).with_context(failed)? {
                    0 => break,
                    length => {
                        printer.take(source, time, &buffer[..length]).context("write the log")?;
                        at += length as u64;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Prints the log. With `follow`, until the container has ended.
pub(crate) fn print(
    scope: &Scope,
    container: &Container,
    log: &Log,
    filter: Filter,
    follow: bool,
) -> Result<()> {
    match run(scope, container, log, filter, follow) {
        // A reader may close the pipe early, as in `container-logs | head`.
        Err(error)
            if error.chain().any(|cause| {
                cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
            }) =>
        {
            Ok(())
        }
        done => done,
    }
}

fn run(scope: &Scope, container: &Container, log: &Log, filter: Filter, follow: bool) -> Result<()> {
    let mut printer = Printer::new(filter);
    // The newer files are opened first. The oldest one may be removed in the meantime, and nothing is printed
    // twice: each file may just have got the next name.
    let mut newer = Part::open(&log.path)?;
    let mut older: Vec<(PathBuf, Part)> = Vec::new();
    for path in Log::all(&log.path, log.files).skip(1) {
        let Some(part) = Part::open(&path)? else { continue };
        let found = part.file.metadata().with_context(|| format!("read {path:?}"))?;
        if !newer.iter().chain(older.iter().map(|(_, part)| part)).any(|part| part.is(&found)) {
            older.push((path, part));
        }
    }
    for (path, mut part) in older.into_iter().rev() {
        part.print(&mut printer, (&path, true))?;
    }
    let mut goes_on = follow;
    loop {
        // First checks whether the container runs, then reads: so everything that it wrote before its end is
        // read.
        goes_on = goes_on && !filter.is_over() && runs(scope, container)?;
        if let Some(part) = &mut newer {
            let is_whole = !goes_on && !runs(scope, container).unwrap_or_default();
            part.print(&mut printer, (&log.path, is_whole))?;
            if !part.is_at(&log.path) && log.path.exists() {
                part.print(&mut printer, (&log.path, true))?;
                newer = Part::open(&log.path)?;
                continue;
            }
        } else {
            newer = Part::open(&log.path)?;
        }
        printer.settle(!goes_on).context("write the log")?;
        if !goes_on {
            return Ok(());
        }
        sleep(PAUSE);
    }
}

/// Whether more output is possible: the container runs, is about to be restarted, or its end is not recorded
/// yet.
fn runs(scope: &Scope, container: &Container) -> Result<bool> {
    let Ok(now) = Container::read(scope, &container.id) else { return Ok(false) };
    let has_monitor = || now.has_monitor(scope).unwrap_or_default();
    Ok(now.is_running()?
        || now.process.restarting
        || (now.process.pid > 0 && now.process.finished.is_none() && has_monitor()))
}
