//! Updates the links of other containers to this one: their `/etc/hosts` follows its address, as with Docker.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use document::{Document, members::Hosts, record};
use operation::{Condition, Error, Operation, Place, Scope, quote, unless_gone, words};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use toolkit::prelude::{Context, Result};

use super::operation::ContainerOperation;

/// Read at most this many bytes of a file that a container may write.
const MOST: u64 = 1 << 20;

/// Changes this container's addresses in another container's `/etc/hosts`. Writes the file in place, because it
/// is mounted in that container. Undo leaves it, as Docker does: nobody else has the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "link-follow")]
pub(crate) struct LinkFollow {
    /// The path of the file.
    path: PathBuf,
    /// The names, as they follow an address.
    names: String,
    /// The new address.
    address: IpAddr,
    /// The new address of the other IP version, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<IpAddr>,
}

/// Returns the links that lead to an earlier address of this container.
pub(crate) fn plan(context: &Context, document: &Document) -> Result<Vec<ContainerOperation>> {
    let Scope { run_dir, .. } = &context.scope;
    if document.attachments()?.is_empty() {
        return Ok(Vec::new());
    }
    // The container's own name comes last.
    let is_to_us = |names: &str| names.rsplit(' ').next() == Some(&context.id);
    let mut found = Vec::new();
    for id in record::list(run_dir)?.into_iter().filter(|id| id.as_str() != context.id) {
        let path = context.scope.container(id.as_str()).join("etc/hosts");
        // Most containers have no link to this one. The short file saves reading their records.
        let text = text(&path);
        if !text.lines().filter_map(names_of).any(is_to_us) {
            continue;
        }
        let Some(other) = record::read(run_dir, &id)? else { continue };
        let entries = other.get::<Hosts>()?.unwrap_or_default().entries;
        let mut addresses = document.addresses_for(&other)?.into_iter();
        let Some(address) = addresses.next() else { continue };
        let second = addresses.next();
        let mut names: Vec<String> = entries.into_iter().map(|entry| entry.names.join(" ")).collect();
        // The entries of both IP versions have the same names.
        names.dedup();
        let names = names.into_iter().filter(|names| is_to_us(names));
        let follow = names.map(|names| LinkFollow { path: path.clone(), names, address, second });
        found.extend(follow.filter(|link| link.changed(&text).is_some()).map(ContainerOperation::from));
    }
    Ok(found)
}

/// Returns the content of a container's file; empty if there is none.
fn text(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(Some(file)) = open(path, OFlags::RDONLY) {
        let _ = file.take(MOST).read_to_string(&mut text);
    }
    text
}

/// Opens a container's file. None if it is gone, or its container keeps others from opening it by a lease (fcntl(2),
/// F_SETLEASE) and does not give that up at once: without O_NONBLOCK, this would wait for 45 seconds.
fn open(path: &Path, flags: OFlags) -> io::Result<Option<File>> {
    const TRIES: u32 = 5;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    for _ in 0..TRIES {
        match unless_gone(openat(CWD, path, flags, Mode::empty())) {
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(10)),
            opened => return Ok(opened?.map(File::from)),
        }
    }
    operation::note(&format!("warning: a container holds a lease on {path:?}: links in it are not updated"));
    Ok(None)
}

/// Returns the names after the address of a line.
fn names_of(line: &str) -> Option<&str> {
    line.split_once('\t').map(|(_, names)| names)
}

impl LinkFollow {
    /// The lines of the new addresses.
    fn lines(&self) -> impl Iterator<Item = String> {
        [self.address].into_iter().chain(self.second).map(|address| format!("{address}\t{}", self.names))
    }

    /// Returns the text with the new addresses, where the first line with these names was. `None` if exactly the
    /// new addresses are already there, or no line has these names.
    fn changed(&self, text: &str) -> Option<String> {
        let is_ours = |line: &&str| names_of(line) == Some(&*self.names);
        let standing: Vec<&str> = text.lines().filter(is_ours).collect();
        let own: Vec<String> = self.lines().collect();
        // A file that was not read completely must not be written.
        if text.len() as u64 >= MOST || standing.is_empty() || standing == own {
            return None;
        }
        let at = text.lines().position(|line| is_ours(&line)).unwrap_or_default();
        let others = |skip, count| text.lines().skip(skip).take(count).filter(|line| !is_ours(line));
        let own = own.iter().map(String::as_str);
        let lines = others(0, at).chain(own).chain(others(at, usize::MAX));
        Some(lines.flat_map(|line| [line, "\n"]).collect())
    }

    fn rewrite(&self) -> io::Result<()> {
        let Some(new) = self.changed(&text(&self.path)) else { return Ok(()) };
        let Some(mut file) = open(&self.path, OFlags::WRONLY)? else { return Ok(()) };
        file.rewind()?;
        file.write_all(new.as_bytes())?;
        file.set_len(new.len() as u64)
    }
}

impl Operation for LinkFollow {
    fn explain(&self) -> Vec<String> {
        let path = quote(&self.path.to_string_lossy());
        let others = words(["grep", "-v", &format!("\t{}$", self.names)]);
        let own = self.lines().map(|line| format!(" && {} >> /tmp/hosts", words(["echo", &line])));
        let own: String = own.collect();
        vec![format!("{others} {path} > /tmp/hosts{own} && cat /tmp/hosts > {path}")]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        scope.contain(&self.path)?;
        let failed = |error| Error::new("write", format_args!("{:?}", self.path), error).of(Place::Store);
        self.rewrite().map_err(failed)
    }

    fn undo(&self, _: &Scope) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        Ok(Condition::Present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_exactly_these_names_change() {
        let link = |names: &str, second: Option<&str>| LinkFollow {
            path: "/x".into(),
            names: names.into(),
            address: "10.0.0.9".parse().unwrap(),
            second: second.map(|second| second.parse().unwrap()),
        };
        let both = |names| link(names, Some("fd00::9"));
        let hosts = "127.0.0.1\tlocalhost\n10.0.0.2\tdatabase db\n10.0.0.3\tdb\n# 10.0.0.2 db";
        let changed = "127.0.0.1\tlocalhost\n10.0.0.9\tdatabase db\n10.0.0.3\tdb\n# 10.0.0.2 db\n";
        assert_eq!(link("database db", None).changed(hosts).as_deref(), Some(changed));
        assert_eq!(link("database db", None).changed(changed), None);
        assert_eq!(link("web", None).changed(hosts), None);
        assert_eq!(link("web", None).changed(""), None);
        // A second address comes and goes.
        let more = "127.0.0.1\tlocalhost\n10.0.0.9\tdatabase db\nfd00::9\tdatabase db\n10.0.0.3\tdb\n# 10.0.0.2 db\n";
        assert_eq!(both("database db").changed(hosts).as_deref(), Some(more));
        assert_eq!(both("database db").changed(more), None);
        assert_eq!(link("database db", None).changed(more).as_deref(), Some(changed));
    }
}
