//! Writes the document and the status. Standard output belongs to the command.

use std::{
    fs::File,
    io::{Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use document::Document;
use operation::Place;
use runtime::{Identity, inherited};
use serde_json::{Value, json};
use toolkit::{of_place, prelude::*};

/// `--document`, `--status-fd` and, with `-d`, standard output.
#[derive(Default)]
pub(crate) struct Output {
    /// `--document`, and its path for errors.
    document: Option<(File, PathBuf)>,
    /// Whether the document can be written a second time.
    is_regular: bool,
    status: Option<File>,
    detached: bool,
    /// Whether standard output has failed. Nothing more is written to it.
    is_broken: bool,
}

impl Output {
    /// Opens the requested files before anything is made, so that errors appear early.
    pub(crate) fn open(document: Option<&Path>, status_fd: Option<u32>, detached: bool) -> Result<Self> {
        let output = document.map(Self::to).transpose()?;
        let status = status_fd
            .map(|number| inherited(number).with_context(|| format!("write to descriptor {number}")))
            .transpose()?
            .map(File::from);
        Ok(Self { status, detached, ..output.unwrap_or_default() })
    }

    fn to(path: &Path) -> Result<Self> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .open(path)
            .map_err(|error| operation::Error::new("open", format!("{path:?}"), error).of(Place::File))?;
        let is_regular = file.metadata().is_ok_and(|found| found.is_file());
        Ok(Self { document: Some((file, path.to_owned())), is_regular, ..Self::default() })
    }

    /// Reports that the command is running.
    pub(crate) fn runs(&mut self, identity: Identity) -> Result<()> {
        self.tell(&json!({"pid": identity.pid, "startTime": identity.start_time}))
    }

    /// Writes the document of a running command.
    pub(crate) fn started(&mut self, document: &Document) -> Result<()> {
        if self.is_regular || self.detached {
            self.write(document)?;
        }
        if self.detached {
            let written = toolkit::write_document(document);
            self.is_broken = written.is_err();
            written?;
        }
        Ok(())
    }

    /// Whether [`Output::ended`] writes the document somewhere.
    pub(crate) fn wants_document(&self) -> bool {
        self.document.is_some()
    }

    /// Reports that the command has ended.
    pub(crate) fn ended(&mut self, document: &Document, status: i32) -> Result<()> {
        self.tell(&json!({"exitStatus": status}))?;
        self.write(document)
    }

    /// Writes the document of a dry run. Standard output is free, because no command runs.
    pub(crate) fn planned(&mut self, document: &Document) -> Result<()> {
        self.write(document)?;
        Ok(toolkit::write_document(document)?)
    }

    /// Writes the document of a command that did not start, with the error. Errors of writing are ignored.
    pub(crate) fn pass_on(&mut self, document: &Document) {
        let _ = self.write(document);
        if self.detached && !self.is_broken {
            let _ = toolkit::write_document(document);
        }
    }

    fn write(&mut self, document: &Document) -> Result<()> {
        let Some((file, path)) = &mut self.document else { return Ok(()) };
        let mut write = || {
            if self.is_regular {
                file.rewind()?;
                file.set_len(0)?;
            }
            file.write_all(format!("{}\n", document.to_line()).as_bytes())
        };
        write().map_err(|error| {
            of_place(
                anyhow::Error::from(error).context(format!("write the document to {path:?}")),
                Place::File,
            )
        })
    }

    fn tell(&mut self, line: &Value) -> Result<()> {
        let Some(file) = &mut self.status else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes()).context("write the status")
    }
}
