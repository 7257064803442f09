//! Changes to rules that depend on what stands: one transaction, decided and sent again for as long as others change the rules in
//! between.

use nix::errno::Errno;

use crate::{
    Error, Refusal, Refused,
    attribute::Attribute,
    netfilter::{Kind, Message, Netfilter},
};

/// How often it is tried.
const ATTEMPTS: usize = 200;

/// A change to the rules, with the words for an error about it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What is sent.
    pub message: Message,
    /// What it is about: `chain forward of table inet stave`.
    pub object: String,
}

impl Change {
    /// A change to a table of this family.
    pub fn new(kind: Kind, family: u8, flags: u16, attributes: Vec<Attribute>, object: String) -> Self {
        Self { message: Message { kind, family, flags, attributes }, object }
    }
}

/// Does it again for as long as others change the rules meanwhile.
///
/// # Errors
/// Those of `attempt`, except for ERESTART; EBUSY when others never stop.
pub fn retry<T>(attempt: impl Fn() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 0..ATTEMPTS {
        match attempt() {
            Err(refusal) if refusal.errno == Errno::ERESTART => {}
            done => return done,
        }
    }
    Err(Errno::EBUSY.into())
}

/// Sends the changes as one transaction.
///
/// # Errors
/// The first refusal, with what it is about; `object` if that is not known.
pub fn commit(
    socket: &Netfilter,
    generation: Option<u32>,
    changes: &[Change],
    object: &str,
) -> Result<(), (String, Refusal)> {
    let batch: Vec<_> = changes.iter().map(|change| change.message.clone()).collect();
    socket.commit(generation, &batch).map_err(|Refused { at, refusal, .. }| {
        let refused = at.and_then(|at| changes.get(at)).map_or(object, |change| &change.object);
        (refused.to_owned(), refusal)
    })
}

/// Sends what `changes` says, in one transaction in which nothing else has changed since it looked.
///
/// # Errors
/// Those of `changes`, about the `object`; the first refusal.
pub fn transact(
    verb: &'static str,
    object: &str,
    changes: impl Fn(&Netfilter) -> Result<Vec<Change>, Refusal>,
) -> Result<(), Error> {
    let failed = |refusal| Error::new(verb, object, refusal);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let attempt = || {
        let generation = socket.generation()?;
        match commit(&socket, Some(generation), &changes(&socket)?, object) {
            Err((_, refusal)) if refusal.errno == Errno::ERESTART => Err(refusal),
            done => Ok(done),
        }
    };
    let done = retry(attempt).map_err(failed)?;
    done.map_err(|(object, refusal)| Error::new(verb, object, refusal))
}
