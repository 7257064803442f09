//! Recognises an archive of images by its lists, wherever in the archive they are. All members may be below one
//! directory, as `tar c DIRECTORY` writes them.

use std::{collections::HashSet, io::BufRead};

use archive::{Entry, Kind, Reader};

use super::intake::{normalise, text};

/// What `skopeo copy … dir:DIRECTORY` writes into the file `version`.
const TRANSPORT: &[u8] = b"Directory Transport Version:";

/// What was seen of the lists so far.
#[derive(Debug, Default)]
pub(super) struct Lists {
    top: Level,
    /// The same below the only directory at the top.
    below: Level,
    /// The first names of all members.
    roots: HashSet<String>,
}

/// The lists in one directory. They may be links.
#[derive(Debug, Default)]
struct Level {
    /// The regular members whose content begins as an array of JSON does.
    arrays: HashSet<String>,
    /// Where `manifest.json` is: itself, or the target of a link.
    manifest: Option<String>,
    transport: bool,
    layout: bool,
    index: bool,
    blobs: bool,
}

impl Lists {
    /// Looks at a member and at the start of its content.
    pub(super) fn see<R: BufRead>(&mut self, member: &Entry, reader: &mut Reader<R>) {
        let path = normalise("", &text(&member.path));
        let place = match member.kind {
            Kind::HardLink => normalise("", &text(&member.link)),
            Kind::Symlink => normalise(&path, &text(&member.link)),
            _ => path.clone(),
        };
        let start = if member.kind == Kind::File { reader.data().unwrap_or_default() } else { b"" };
        let (root, rest) = path.split_once('/').unwrap_or((&path, ""));
        if self.roots.len() < 2 && !root.is_empty() && (member.kind != Kind::Directory || !rest.is_empty()) {
            self.roots.insert(root.to_owned());
        }
        if member.kind == Kind::Directory {
            return;
        }
        self.top.see(&path, &place, start);
        // Anybody's directory may have a manifest.json with an array in it. Docker's names configurations.
        let names = |part: &[u8]| part.eq_ignore_ascii_case(b"\"config\"");
        let is_anybodys = rest == "manifest.json" && has(start, b"[") && !start.windows(8).any(names);
        let place = place.strip_prefix(root).and_then(|place| place.strip_prefix('/'));
        if let (false, false, Some(place)) = (rest.is_empty(), is_anybodys, place) {
            self.below.see(rest, place, start);
        }
    }

    /// Whether the archive lists images. With `whole`, all members have been seen.
    pub(super) fn are_there(&self, whole: bool) -> bool {
        self.top.are_there() || (whole && self.roots.len() == 1 && self.below.are_there())
    }
}

impl Level {
    fn see(&mut self, path: &str, place: &str, start: &[u8]) {
        // Web applications have a manifest.json too, but theirs is an object. Docker's is an array.
        if has(start, b"[") {
            self.arrays.insert(path.to_owned());
        }
        match path {
            "manifest.json" => self.manifest = Some(place.to_owned()),
            "oci-layout" => self.layout = true,
            "index.json" => self.index = true,
            "version" => self.transport = start.starts_with(TRANSPORT),
            _ => self.blobs |= path.starts_with("blobs/sha"),
        }
    }

    fn are_there(&self) -> bool {
        let is_docker =
            self.manifest.as_ref().is_some_and(|place| self.transport || self.arrays.contains(place));
        is_docker || (self.index && (self.layout || self.blobs))
    }
}

/// Whether content begins with this, after spaces.
fn has(content: &[u8], start: &[u8]) -> bool {
    content.trim_ascii_start().starts_with(start)
}
