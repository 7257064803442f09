//! The log, in runc's format: a file that the caller reads, or standard error.

use std::{
    fs::{File, OpenOptions},
    io::Write,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::arguments::{LogFormat, OciRuntime};

/// The log of one command.
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debugs: bool,
}

impl Log {
    /// A log that writes to standard error.
    pub(crate) fn standard(arguments: &OciRuntime) -> Self {
        Self { file: None, format: arguments.log_format, debugs: arguments.debug }
    }

    /// Opens the log that the command line names.
    ///
    /// # Errors
    /// When the log file cannot be opened.
    pub(crate) fn open(arguments: &OciRuntime) -> Result<Self> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        let file =
            arguments.log.as_ref().map(|path| open(path).with_context(|| format!("open log {path:?}")));
        Ok(Self { file: file.transpose()?, ..Self::standard(arguments) })
    }

    /// Logs a warning.
    pub(crate) fn warn(&self, text: &str) {
        self.write("warning", text);
    }

    /// Logs the error that ends the command. If the log is a file, also prints it to standard error.
    pub(crate) fn fail(&self, text: &str, hint: Option<&str>) {
        self.write("error", text);
        if self.file.is_some() {
            operation::note(text);
        }
        if let Some(hint) = hint {
            operation::tell!("hint: {hint}");
        }
    }

    pub(crate) fn debug(&self, text: &str) {
        if self.debugs {
            self.write("debug", text);
        }
    }

    /// Writes a line as the logging library of runc (logrus) does, because callers parse it. Errors of
    /// writing are ignored.
    fn write(&self, level: &str, text: &str) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = match self.format {
            LogFormat::Json => json!({"level": level, "msg": text, "time": time}).to_string(),
            LogFormat::Text => format!("time={time:?} level={level} msg={text:?}"),
        };
        match &self.file {
            Some(file) => {
                let mut file: &File = file;
                let _ = file.write_all(format!("{line}\n").as_bytes());
            }
            None => operation::tell!("{line}"),
        }
    }
}
