//! The single error type of Stave: verb, object, cause, and what the user can do about it.

use std::{borrow::Cow, error, fmt, io};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{OutOfScope, Place, interrupt::Interrupted};

/// Why an operation failed: `create link "v3fa1" in /run/netns/web: File exists`.
///
/// The parts stay separate. Programs use [`Error::errno`] and [`Error::hint`]; people read the one printed
/// line.
pub struct Error(Box<Parts>);

struct Parts {
    verb: Cow<'static, str>,
    object: String,
    cause: Cause,
    place: Option<Place>,
    hint: Option<Cow<'static, str>>,
}

/// Why an operation failed.
#[derive(Debug)]
pub enum Cause {
    /// The system refused the operation.
    System(Errno),
    /// The system refused the operation, and the text explains more than the number does.
    Explained(Errno, String),
    /// A reason that does not come from the system.
    Text(Cow<'static, str>),
    /// Another error, with causes of its own.
    Source(Box<dyn error::Error + Send + Sync>),
}

impl Error {
    /// The error of `verb` on `object`.
    pub fn new(
        verb: impl Into<Cow<'static, str>>,
        object: impl fmt::Display,
        cause: impl Into<Cause>,
    ) -> Self {
        let (verb, object, cause) = (verb.into(), object.to_string(), cause.into());
        Self(Box::new(Parts { verb, object, cause, place: None, hint: None }))
    }

    /// For `map_err`: the error of `verb` on `object`.
    pub fn on<C: Into<Cause>>(
        verb: impl Into<Cow<'static, str>>,
        object: impl fmt::Display,
    ) -> impl FnOnce(C) -> Self {
        move |cause| Self::new(verb, object, cause)
    }

    /// Wraps an error of a domain crate, which contains verb and object itself.
    pub fn caused_by(source: impl error::Error + Send + Sync + 'static) -> Self {
        Self::new("", "", Cause::Source(Box::new(source)))
    }

    /// The same error, about something in `place`. The place supplies the hint if the error has none.
    #[must_use]
    pub fn of(mut self, place: Place) -> Self {
        self.0.place = Some(place);
        self
    }

    /// The same error, with a hint for the user.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same cause, with another verb and object.
    #[must_use]
    pub fn instead(mut self, verb: impl Into<Cow<'static, str>>, object: impl fmt::Display) -> Self {
        self.0.verb = verb.into();
        self.0.object = object.to_string();
        self
    }

    /// The same error, with a location after its object: `in /run/netns/web`.
    #[must_use]
    pub fn within(mut self, words: impl fmt::Display) -> Self {
        self.0.object = format!("{} {words}", self.0.object);
        self
    }

    /// The verb. Empty if the cause contains the verb itself.
    pub fn verb(&self) -> &str {
        &self.0.verb
    }

    /// The object.
    pub fn object(&self) -> &str {
        &self.0.object
    }

    /// Verb and object: what was tried. Empty if the cause contains them.
    pub fn action(&self) -> String {
        format!("{} {}", self.0.verb, self.0.object).trim().to_owned()
    }

    /// The cause.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// The system's error at the end of the chain; `None` if the error does not come from the system.
    pub fn errno(&self) -> Option<Errno> {
        match &self.0.cause {
            Cause::System(errno) | Cause::Explained(errno, _) => Some(*errno),
            Cause::Text(_) => None,
            Cause::Source(source) => errno_of(&**source),
        }
    }

    /// What the user can do. The hint of this error counts first, then that of its cause, then that of its
    /// place.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let own = || self.0.hint.clone();
        let place = || self.0.place?.hint(self.errno()?).map(Cow::Borrowed);
        let cause = || match &self.0.cause {
            Cause::Source(source) => hint_of(&**source),
            _ => None,
        };
        own().or_else(cause).or_else(place)
    }

    /// The error in a form that can be sent to another process. Its deeper causes become text.
    pub fn to_message(&self) -> Message {
        let Parts { verb, object, cause, place, hint } = &*self.0;
        let said = match cause {
            Cause::System(_) => None,
            cause => Some(cause.to_string()),
        };
        let errno = self.errno().map(|errno| errno as i32);
        let (verb, hint) = (verb.to_string(), hint.as_ref().map(Cow::to_string));
        Message { verb, object: object.clone(), errno, said, place: *place, hint }
    }
}

/// An [`Error`] on its way from one process to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    verb: String,
    object: String,
    errno: Option<i32>,
    said: Option<String>,
    place: Option<Place>,
    hint: Option<String>,
}

impl From<Message> for Error {
    fn from(message: Message) -> Self {
        let Message { verb, object, errno, said, place, hint } = message;
        let cause = match (errno.map(Errno::from_raw), said) {
            (Some(errno), None) => Cause::System(errno),
            (Some(errno), Some(said)) => Cause::Explained(errno, said),
            (None, said) => Cause::Text(said.unwrap_or_default().into()),
        };
        Self(Box::new(Parts { verb: verb.into(), object, cause, place, hint: hint.map(Cow::Owned) }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, cause) = (self.action(), self.cause());
        match action.is_empty() {
            true => write!(f, "{cause}"),
            false => write!(f, "{action}: {cause}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { verb, object, cause, place, hint } = &*self.0;
        f.debug_struct("Error")
            .field("verb", verb)
            .field("object", object)
            .field("cause", cause)
            .field("place", place)
            .field("hint", hint)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.cause {
            Cause::System(errno) => Some(errno),
            Cause::Source(source) => Some(&**source),
            Cause::Explained(..) | Cause::Text(_) => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(errno) => f.write_str(errno.desc()),
            Self::Explained(_, said) => f.write_str(said),
            Self::Text(text) => f.write_str(text),
            Self::Source(source) => source.fmt(f),
        }
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(Errno::from_raw(errno.raw_os_error()))
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::System(Errno::from_raw(number)),
            None => Self::Source(Box::new(error)),
        }
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Interrupted> for Error {
    fn from(interrupted: Interrupted) -> Self {
        Self::caused_by(interrupted)
    }
}

impl From<OutOfScope> for Error {
    fn from(outside: OutOfScope) -> Self {
        Self::caused_by(outside)
    }
}

/// An error and its causes, nearest first. The error inside another library's [`io::Error`] is a cause too.
fn chain<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match carried {
            Some(carried) => Some(carried as &(dyn error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// The system's error at the end of a chain of errors of any types; `None` if the error does not come from
/// the system.
pub fn errno_of(error: &(dyn error::Error + 'static)) -> Option<Errno> {
    chain(error).find_map(|cause| {
        let ours = || cause.downcast_ref::<Error>().and_then(Error::errno);
        let io = || cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw);
        let nix = || cause.downcast_ref::<Errno>().copied();
        let rustix =
            || cause.downcast_ref::<rustix::io::Errno>().map(|errno| Errno::from_raw(errno.raw_os_error()));
        ours().or_else(io).or_else(nix).or_else(rustix)
    })
}

/// The hint of the first [`Error`] in the chain that has one: what the user can do.
pub fn hint_of(error: &(dyn error::Error + 'static)) -> Option<Cow<'static, str>> {
    chain(error).find_map(|cause| cause.downcast_ref::<Error>().and_then(Error::hint))
}

/// Whether the chain contains an [`Error`]. If it does, only that error gives the hint.
pub fn is_known(error: &(dyn error::Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<Error>())
}

/// An error that may contain an error of the system.
pub trait Code {
    /// The error of the system, if there is one.
    fn code(&self) -> Option<Errno>;
}

impl Code for Error {
    fn code(&self) -> Option<Errno> {
        self.errno()
    }
}

impl Code for Errno {
    fn code(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl Code for rustix::io::Errno {
    fn code(&self) -> Option<Errno> {
        Some(Errno::from_raw(self.raw_os_error()))
    }
}

impl Code for io::Error {
    fn code(&self) -> Option<Errno> {
        errno_of(self)
    }
}

/// Whether the system says that the thing (a file, a process, a link) does not exist. Other errors of a
/// lookup (no descriptors left, no memory, a broken disk) do not answer the question: "unknown" is not
/// "gone".
pub fn is_gone(error: &impl Code) -> bool {
    matches!(error.code(), Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV))
}

/// Whether the system says that there is no room: the disk is full, or the user's share of it.
pub fn is_full(error: &impl Code) -> bool {
    matches!(error.code(), Some(Errno::ENOSPC | Errno::EDQUOT))
}

/// The value, or `None` if the thing is gone ([`is_gone`]).
///
/// # Errors
/// Every other error.
pub fn unless_gone<T, E: Code>(result: Result<T, E>) -> Result<Option<T>, E> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_the_parts_of_it() {
        let error = Error::new("create", "link \"v3fa1\"", Errno::EEXIST).within("in /run/netns/web");
        assert_eq!(error.to_string(), "create link \"v3fa1\" in /run/netns/web: File exists");
        assert_eq!((error.verb(), error.object()), ("create", "link \"v3fa1\" in /run/netns/web"));
        assert_eq!((error.errno(), error.hint()), (Some(Errno::EEXIST), None));
        let text = Error::new("start", "", "the supervisor ended");
        assert_eq!((text.to_string().as_str(), text.errno()), ("start: the supervisor ended", None));
        let outer = Error::caused_by(error);
        assert_eq!(outer.to_string(), "create link \"v3fa1\" in /run/netns/web: File exists");
    }

    #[test]
    fn the_errno_is_found_behind_any_types() {
        #[derive(Debug, thiserror::Error)]
        #[error("layer x: {source}")]
        struct Layer {
            source: io::Error,
        }
        let io = || io::Error::from_raw_os_error(28);
        for error in [
            Error::new("write", "x", io()),
            Error::caused_by(Layer { source: io() }),
            Error::caused_by(io::Error::other(Layer { source: io() })),
            Error::new("write", "x", Cause::Source(Box::new(rustix::io::Errno::NOSPC))),
            Error::caused_by(io::Error::other(Error::new("write", "x", Errno::ENOSPC))),
            Error::new("write", "x", Cause::Explained(Errno::ENOSPC, "no room".into())),
        ] {
            assert_eq!(error.errno(), Some(Errno::ENOSPC), "{error:?}");
            assert_eq!(Error::from(error.to_message()).errno(), Some(Errno::ENOSPC));
        }
        assert_eq!(Error::caused_by(io::Error::other("x")).errno(), None);
    }

    #[test]
    fn another_process_is_told_the_whole_of_it() {
        for error in [
            Error::new("mount", "x", Errno::EPERM).of(Place::Namespace),
            Error::new("mount", "x", Cause::Explained(Errno::EINVAL, "Invalid argument (y)".into())),
            Error::new("start", "", "the supervisor ended").with_hint("start it again"),
        ] {
            let json = serde_json::to_string(&error.to_message()).unwrap();
            let told = Error::from(serde_json::from_str::<Message>(&json).unwrap());
            assert_eq!(format!("{told:?}"), format!("{error:?}"));
        }
    }

    #[test]
    fn the_operation_decides_upon_its_hint() {
        let full = Error::new("write", "x", Errno::ENOSPC);
        assert_eq!(full.hint(), None, "nobody knows where");
        let run_dir = full.of(Place::RunDir).hint().unwrap();
        assert!(run_dir.contains("--run-dir"), "{run_dir}");
        let outer =
            Error::caused_by(Error::new("write", "x", Errno::ENOSPC).of(Place::RunDir)).of(Place::Store);
        assert_eq!(outer.hint().unwrap(), run_dir, "the one that is nearest to the fault knows best");
        assert_eq!(outer.with_hint("wait").hint().as_deref(), Some("wait"));
    }

    #[test]
    fn not_knowing_is_not_gone() {
        for errno in [Errno::ENOENT, Errno::ESRCH, Errno::ENODEV] {
            assert!(is_gone(&errno) && is_gone(&io::Error::from(errno)), "{errno}");
            assert!(unless_gone(Err::<(), _>(Error::new("find", "x", errno))).unwrap().is_none());
        }
        for errno in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::EIO,
            Errno::EPERM,
            Errno::EACCES,
            Errno::ENOBUFS,
            Errno::ENXIO,
            Errno::EINTR,
        ] {
            assert!(!is_gone(&errno), "{errno}");
        }
        assert!(!is_gone(&io::Error::from(io::ErrorKind::TimedOut)));
    }
}
