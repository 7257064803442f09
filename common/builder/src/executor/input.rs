//! The input of a build: the Dockerfile, and the directory for COPY and ADD. Both may come from standard
//! input or a web server, as an archive or as a single Dockerfile.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use operation::quantity::truth;
use rustix::fs::OFlags;

use super::{Options, fetch, lint, repository, store::open_readable};
use crate::{
    arguments::KEEP_GIT,
    copy,
    dockerfile::{self, Dockerfile},
    error::{Cause, Error},
    excerpt::excerpt,
    workspace::Workspace,
};

/// Where the files for COPY and ADD come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// A directory.
    Directory(PathBuf),
    /// An archive on standard input: a tar file, plain or compressed. If it is a Dockerfile, there are no
    /// files.
    Input,
    /// The same, from an address on a web server.
    Web(String),
    /// A git repository.
    Git(git::Address),
}

impl Context {
    /// Parses a directory, `-`, or the address of a file on a web server or of a git repository.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Input);
        }
        // A directory of this name may exist.
        let is_there = || Path::new(text).exists();
        match git::Address::parse(text) {
            Some(address) if !address.as_ref().is_ok_and(|address| address.bare && is_there()) => {
                Ok(Self::Git(address.map_err(|error| error.to_string())?))
            }
            _ if fetch::is_web(text) => Ok(Self::Web(text.to_owned())),
            _ => Ok(Self::Directory(text.into())),
        }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::Directory(PathBuf::new())
    }
}

const DOCKERFILE: &str = "Dockerfile";
const STANDARD_INPUT: &str = "standard input";

/// The input of a build.
#[derive(Debug)]
pub(super) struct Input {
    /// The directory for COPY and ADD.
    pub(super) context: PathBuf,
    /// The path of the Dockerfile. Its own `.dockerignore` may be beside it.
    pub(super) file: PathBuf,
    /// The name of the Dockerfile in messages.
    pub(super) name: String,
    text: Vec<u8>,
    /// Whether the context was unpacked or fetched. Links in it must not lead out of it.
    is_sealed: bool,
    /// The time of the commit, of the file on the web server, or else the newest one in an archive.
    time: Option<i64>,
    /// The directory with what was unpacked.
    _workspace: Option<Workspace>,
}

impl Input {
    pub(super) fn read(options: &Options) -> Result<Self, Error> {
        let open = |path: &Path| File::open(path).map_err(Cause::system("read", path));
        let (workspace, mut content, object, time) = match &options.context {
            Context::Directory(path) => return Self::in_directory(path, options.file.as_deref()),
            Context::Input => {
                let workspace = workspace(options)?;
                let path = workspace.path().join("input");
                keep(&path, &mut io::stdin().lock(), STANDARD_INPUT)?;
                (workspace, open(&path)?, STANDARD_INPUT.to_owned(), None)
            }
            Context::Git(address) => return Self::in_repository(address, options),
            Context::Web(address) => {
                let workspace = workspace(options)?;
                let path = workspace.path().join("input");
                let shown = registry::without_user(address);
                let mut body = fetch::Body::get(address, options, Cause::Context)?;
                keep(&path, &mut body, &shown)?;
                (workspace, open(&path)?, shown, body.modified())
            }
        };
        let context = workspace.path().join("context");
        fs::create_dir(&context).map_err(Cause::system("create", &context))?;
        let file = options.file.clone();
        if copy::is_archive(&content) {
            let newest = copy::unpack_context(content, Path::new(&object), &open_readable(&context)?)
                .map_err(|source| Cause::Input { object, source })?;
            let file = file.unwrap_or_else(|| DOCKERFILE.into());
            return Ok(Self { time: time.or(newest), ..Self::sealed(workspace, context, file, options)? });
        }
        // A Dockerfile on a web server has any name, as in BuildKit. One on standard input has none.
        if let (Context::Input, Some(file)) = (&options.context, &file) {
            return Err(Cause::NoArchive(object, file.clone()).into());
        }
        let text = content.rewind().and_then(|()| read_some(&mut content));
        let text = text.map_err(Cause::system("read", &workspace.path().join("input")))?;
        let file = below(&context, &file.unwrap_or_else(|| DOCKERFILE.into()));
        let (name, _workspace) = (object, Some(workspace));
        Ok(Self { context, file, name, text, is_sealed: true, time, _workspace })
    }

    fn in_repository(address: &git::Address, options: &Options) -> Result<Self, Error> {
        let workspace = workspace(options)?;
        let step = workspace.step().map_err(Cause::from)?;
        let keep = options.arguments.get(KEEP_GIT).and_then(|value| truth(value));
        let keep = address.keep.or(keep).unwrap_or_default();
        let time = repository::check_out(address, None, options, (&step.upper, &step.work), keep)?;
        let context = step.upper;
        let file = options.file.clone().unwrap_or_else(|| {
            in_context(&context).strip_prefix(&context).map_or_else(|_| DOCKERFILE.into(), Path::to_owned)
        });
        Ok(Self { time: Some(time), ..Self::sealed(workspace, context, file, options)? })
    }

    /// A context that was unpacked or fetched. The Dockerfile is in it, or on standard input.
    fn sealed(
        workspace: Workspace,
        context: PathBuf,
        file: PathBuf,
        options: &Options,
    ) -> Result<Self, Error> {
        let text = match is_stdin(&file, options) {
            true => read_some(&mut io::stdin().lock()),
            false => read_in(&open_readable(&context)?, &file),
        };
        let (name, text) = (file.display().to_string(), text.map_err(Cause::system("read", &file))?);
        let file = below(&context, &file);
        let _workspace = Some(workspace);
        Ok(Self { context, file, name, text, is_sealed: true, time: None, _workspace })
    }

    fn in_directory(context: &Path, file: Option<&Path>) -> Result<Self, Error> {
        let opened = fs::metadata(context).map_err(Cause::system("open build context", context))?;
        if !opened.is_dir() {
            let error = io::Error::from(rustix::io::Errno::NOTDIR);
            return Err(Cause::system("open build context", context)(error).into());
        }
        let file = file.map_or_else(|| in_context(context), Path::to_owned);
        let text = match file.as_os_str().as_encoded_bytes() {
            b"-" => read_some(&mut io::stdin().lock()),
            _ => File::open(&file).and_then(|mut file| read_some(&mut file)),
        };
        let (name, text) = (file.display().to_string(), text.map_err(Cause::system("read", &file))?);
        let (context, _workspace) = (context.to_owned(), None);
        Ok(Self { context, file, name, text, is_sealed: false, time: None, _workspace })
    }

    /// The text of a `.dockerignore`: the context's or the Dockerfile's own.
    pub(super) fn read_beside(&self, root: &OwnedFd, path: &Path) -> io::Result<Vec<u8>> {
        match path.strip_prefix(&self.context) {
            Ok(name) if self.is_sealed => read_in(root, name),
            _ => read_own(path),
        }
    }

    /// Whether the context's files belong to the build only, because they were unpacked or fetched.
    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The time of the context: that of a commit, `Last-Modified` of a web server, or else the newest one in an archive. A
    /// directory has none.
    pub(super) fn time(&self) -> Option<i64> {
        self.time
    }

    /// The part of the Dockerfile around a line, for messages.
    pub(super) fn excerpt(&self, line: usize, word: Option<&str>) -> String {
        excerpt(&self.name, &self.text, line, word)
    }

    /// Parses the Dockerfile and calls `work` with it. Shows the part of the Dockerfile that an error is
    /// about.
    pub(super) fn work<T>(
        &self,
        options: &Options,
        work: impl FnOnce(Dockerfile) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let parsed = dockerfile::parse_some(&self.text).and_then(|parsed| match parsed {
            (file, None) => Ok(file),
            (file, Some(error)) => {
                lint::warn_of_written(options, &self.name, &file);
                Err(error)
            }
        });
        let worked =
            parsed.map_err(|source| Error::Syntax { file: self.name.clone(), source }).and_then(work);
        let place = |error: &Error| Some((error.line()?, error.word()));
        if let Some((line, word)) = worked.as_ref().err().and_then(place) {
            // If standard error is closed, the document still has the error.
            let _ = io::stderr().write_all(self.excerpt(line, word.as_deref()).as_bytes());
        }
        worked
    }
}

/// A directory for what is unpacked. A build that only looks must not write to the store.
pub(super) fn workspace(options: &Options) -> Result<Workspace, Cause> {
    match options.only_looks {
        true => Ok(Workspace::aside(&std::env::temp_dir())?),
        false => Ok(Workspace::new(&options.root)?),
    }
}

/// Whether the Dockerfile is on standard input. The context cannot be there too.
fn is_stdin(file: &Path, options: &Options) -> bool {
    file.as_os_str() == "-" && options.context != Context::Input
}

/// The path of `file` in a context. An absolute path starts at the context.
fn below(context: &Path, file: &Path) -> PathBuf {
    context.join(file.strip_prefix("/").unwrap_or(file))
}

/// The path of the Dockerfile in a context. Like BuildKit, accepts it in lower case.
fn in_context(context: &Path) -> PathBuf {
    let (usual, lower) = (context.join("Dockerfile"), context.join("dockerfile"));
    if !usual.exists() && lower.exists() { lower } else { usual }
}

fn read_all(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.read_to_end(&mut text).map(|_| text)
}

/// The largest size of a Dockerfile or `.dockerignore`, in bytes.
const MOST: u64 = 16 << 20;

fn read_some(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let text = read_all(&mut from.take(MOST + 1))?;
    match text.len() as u64 > MOST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(text),
    }
}

/// The text of a file in the directory. The file must be a regular file, and no link may lead out of the
/// directory.
pub(super) fn read_in(root: &OwnedFd, path: &Path) -> io::Result<Vec<u8>> {
    let file = mount::resolve::open_in(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let mut file = File::from(file);
    match file.metadata()?.is_file() {
        true => read_some(&mut file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// The text of a file of the caller's own. It may be `/dev/null`, but nothing that keeps the build waiting.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let kind = file.metadata()?.file_type();
    match kind.is_file() || std::os::unix::fs::FileTypeExt::is_char_device(&kind) {
        true => read_some(&mut file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Writes everything from `from` to a new file.
fn keep(path: &Path, from: &mut dyn Read, source: &str) -> Result<(), Cause> {
    let mut file = File::create_new(path).map_err(Cause::system("create", path))?;
    fetch::copy((from, Path::new(source)), (&mut file, path))
}
