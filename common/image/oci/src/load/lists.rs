//! Recognises an archive of images by its lists, wherever in the archive they are.

use std::io::BufRead;

use archive::{Entry, Kind, Reader};

use super::intake::{normalise, text};

/// The lists seen so far.
#[derive(Debug, Default)]
pub(super) struct Lists {
    docker: bool,
    layout: bool,
    index: bool,
}

impl Lists {
    /// Looks at a member and at the start of its content.
    pub(super) fn see<R: BufRead>(&mut self, member: &Entry, reader: &mut Reader<R>) {
        if member.kind != Kind::File {
            return;
        }
        match normalise("", &text(&member.path)).as_str() {
            // Web applications have a manifest.json too, but theirs is an object. Docker's is an array.
            "manifest.json" => {
                let start = reader.data().unwrap_or_default();
                self.docker = start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
            }
            "oci-layout" => self.layout = true,
            "index.json" => self.index = true,
            _ => {}
        }
    }

    /// Whether the archive lists images.
    pub(super) fn are_there(&self) -> bool {
        self.docker || (self.layout && self.index)
    }
}
