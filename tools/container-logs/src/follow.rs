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

/// How long a rotation takes.
const BRIEFLY: Duration = Duration::from_millis(1);

/// How often a followed log is checked for more.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a log that is being rotated is opened again.
const TRIES: u32 = 20;

/// One of the files of a log, and its index.
struct Part {
    file: File,
    entries: Entries,
    /// Its length when it was opened.
    length: u64,
}

impl Part {
    /// Opens a file and its index. They are renamed one after the other, and an index must not be read with another file.
    fn open(path: &Path) -> Result<Option<Self>> {
        for tries in (0..TRIES).rev() {
            let entries = Entries::open(path).with_context(|| format!("read {:?}", Log::index(path)))?;
            let failed = || format!("read {path:?}");
            let file = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file.with_context(failed)?,
            };
            let length = file.metadata().with_context(failed)?.len();
            let part = Self { file, entries, length };
            if tries == 0 || (part.entries.is_at(path) && part.is_at(path)) {
                return Ok(Some(part));
            }
            sleep(BRIEFLY);
        }
        Ok(None)
    }

    /// Whether the open file still has the name `path`.
    fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| self.is(&found))
    }

    fn is(&self, found: &Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    /// Prints what was not printed yet of the file's first `length` bytes, by default of all. `is_whole` means that nobody
    /// writes there any more.
    fn print(
        &mut self,
        printer: &mut Printer,
        (path, is_whole): (&Path, bool),
        length: Option<u64>,
    ) -> Result<()> {
        let failed = || format!("read {path:?}");
        let whole = self.file.metadata().with_context(failed)?.len();
        let length = length.unwrap_or(whole).min(whole);
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
    let mut newer = Part::open(&log.path)?;
    for (path, mut part) in older(log, newer.as_ref(), None)? {
        part.print(&mut printer, (&path, true), None)?;
    }
    if !follow {
        // Up to the end that it had at the beginning: the container may write faster than somebody reads.
        if let Some(part) = &mut newer {
            let is_whole = !runs(scope, container).unwrap_or_default();
            part.print(&mut printer, (&log.path, is_whole), Some(part.length))?;
        }
        return printer.settle(true).context("write the log");
    }
    let mut goes_on = true;
    loop {
        // First checks whether the container runs, then reads: so everything that it wrote before its end is
        // read.
        goes_on = goes_on && !filter.is_over() && runs(scope, container)?;
        if let Some(part) = &mut newer {
            let is_whole = !goes_on && !runs(scope, container).unwrap_or_default();
            part.print(&mut printer, (&log.path, is_whole), None)?;
            if !part.is_at(&log.path) && log.path.exists() {
                part.print(&mut printer, (&log.path, true), None)?;
                let next = Part::open(&log.path)?;
                // It may have been rotated several times.
                for (path, mut between) in older(log, next.as_ref(), Some(part))? {
                    between.print(&mut printer, (&path, true), None)?;
                }
                newer = next;
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

/// The files older than `newer`, the oldest first; with `since`, only those that are newer than that one. `newer` was
/// opened first: the oldest file may be removed in the meantime, and none is read twice, as each may just have got the
/// next name.
fn older(log: &Log, newer: Option<&Part>, since: Option<&Part>) -> Result<Vec<(PathBuf, Part)>> {
    let mut all: Vec<(PathBuf, Part)> = Vec::new();
    for path in Log::all(&log.path, log.files).skip(1) {
        let Some(part) = Part::open(&path)? else { continue };
        let found = part.file.metadata().with_context(|| format!("read {path:?}"))?;
        if since.is_some_and(|since| since.is(&found)) {
            break;
        }
        if !newer.into_iter().chain(all.iter().map(|(_, part)| part)).any(|part| part.is(&found)) {
            all.push((path, part));
        }
    }
    all.reverse();
    Ok(all)
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
