//! Recognises an archive of images by its lists, wherever in the archive they are.

use std::{collections::HashSet, io::BufRead};

use archive::{Entry, Kind, Reader};

use super::intake::{normalise, text};

/// What of the lists was seen so far. They may be links.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// The regular members whose content begins as an array of JSON does.
    arrays: HashSet<String>,
    /// Where `manifest.json` is: itself, or the target of a link.
    manifest: Option<String>,
    layout: bool,
    index: bool,
    blobs: bool,
}

impl Lists {
    /// Looks at a member and at the start of its content.
    pub(super) fn see<R: BufRead>(&mut self, member: &Entry, reader: &mut Reader<R>) {
        let path = normalise("", &text(&member.path));
        let place = match member.kind {
            Kind::File => {
                let start = reader.data().unwrap_or_default();
                // Web applications have a manifest.json too, but theirs is an object. Docker's is an array.
                if start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
                    self.arrays.insert(path.clone());
                }
                path.clone()
            }
            Kind::HardLink => normalise("", &text(&member.link)),
            Kind::Symlink => normalise(&path, &text(&member.link)),
            _ => return,
        };
        match path.as_str() {
            "manifest.json" => self.manifest = Some(place),
            "oci-layout" => self.layout = true,
            "index.json" => self.index = true,
            _ => self.blobs |= path.starts_with("blobs/sha"),
        }
    }

    /// Whether the archive lists images.
    pub(super) fn are_there(&self) -> bool {
        let is_docker = self.manifest.as_ref().is_some_and(|place| self.arrays.contains(place));
        is_docker || (self.index && (self.layout || self.blobs))
    }
}
