//! Finds the command on the container's own `PATH`, and executes it.

use std::{
    collections::HashSet,
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use oci_spec::runtime::Process;
use rustix::{
    fs::{Access, AtFlags, CWD, FileType, accessat, stat},
    io::Errno,
};

use crate::{Error, error::Result};

/// The default `PATH` of execvp(3).
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// Exit statuses of a shell (POSIX, "Shell Command Language", 2.8.2).
pub(super) const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) struct Command {
    pub(super) path: PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// Finds the command, with the rights of the user that it runs as.
pub(super) fn find(process: &Process) -> Result<Command> {
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        let list = list.iter().flatten().map(|text| CString::new(text.as_str()));
        list.collect::<std::result::Result<_, _>>()
            .map_err(|_| Error::new("start: an argument or a variable holds a NUL byte"))
    };
    let Some(name) = process.args().as_ref().and_then(|args| args.first()) else {
        return Err(Error::with_status(NOT_FOUND, operation::Error::new("execute", "", "no command")));
    };
    let environment = last_of_each(process.env().as_deref().unwrap_or_default());
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    Ok(Command {
        path: locate(name, path.unwrap_or(DEFAULT_PATH))?,
        arguments: strings(process.args())?,
        environment: strings(&Some(environment))?,
    })
}

/// The variables, each name once. The last one counts, as in runc; getenv(3) would find the first.
fn last_of_each(variables: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let mut kept: Vec<String> =
        variables.iter().rev().filter(|variable| seen.insert(name(variable))).cloned().collect();
    kept.reverse();
    kept
}

fn locate(name: &str, path: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| name.into()).map_err(|errno| failure(name, errno));
    }
    if name.is_empty() {
        return Err(failure(name, Errno::NOENT));
    }
    let mut denied = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => denied = denied.or(Some((candidate, errno))),
        }
    }
    match denied {
        Some((candidate, errno)) => Err(failure(&candidate.to_string_lossy(), errno)),
        None => {
            let object = format_args!("{name:?} in PATH of the container ({path})");
            Err(Error::with_status(NOT_FOUND, operation::Error::new("find", object, Errno::NOENT)))
        }
    }
}

fn executable(path: &Path) -> std::result::Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn failure(name: &str, errno: Errno) -> Error {
    let missing = matches!(errno, Errno::NOENT | Errno::NOTDIR);
    let status = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
    Error::with_status(status, operation::Error::new("execute", format_args!("{name:?}"), errno))
}

impl Command {
    /// Its variables, each as `NAME=value`.
    pub(super) fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// Sets a variable, if the process does not have it or if it is empty.
    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        let value_of = |variable: &CString| {
            variable
                .to_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
                .map(|value| !value.is_empty())
        };
        let has = |variable: &CString| value_of(variable) == Some(true);
        self.environment.retain(|variable| value_of(variable) != Some(false));
        if !self.environment.iter().any(has) {
            self.environment.extend(CString::new(format!("{name}={value}")));
        }
    }

    /// The name that the kernel shows for the command when it runs.
    pub(super) fn name(&self) -> CString {
        let name = self.path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        CString::new(name).unwrap_or_default()
    }

    /// Executes the command. Returns only if that fails, with the reason.
    pub(super) fn execute(&self) -> Errno {
        let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) else { return Errno::INVAL };
        let Err(errno) = nix::unistd::execve(&path, &self.arguments, &self.environment);
        Errno::from_raw_os_error(errno as i32)
    }
}

/// The error for a command that was found but not executed.
pub(super) fn not_executed(path: &str, errno: Errno) -> Error {
    if errno == Errno::NOENT {
        // The file exists, see above, but its interpreter does not.
        let object = format_args!("{path:?}: its interpreter or loader");
        return Error::with_status(NOT_FOUND, operation::Error::new("execute", object, errno));
    }
    failure(path, errno)
}
