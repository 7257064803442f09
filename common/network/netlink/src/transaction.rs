//! Changes to rules that depend on the current ruleset. A change is sent as one transaction. It is
//! decided and sent again while others change the ruleset in between.

use nix::errno::Errno;

use crate::{
    Error, Refusal, Refused,
    attribute::Attribute,
    netfilter::{Kind, Message, Netfilter},
};

/// How often a transaction is tried.
const ATTEMPTS: usize = 200;

/// A change to the ruleset, with the words for an error message about it.
#[derive(Debug, Clone)]
pub struct Change {
    /// The message to send.
    pub message: Message,
    /// The object of the change, as in `chain forward of table inet stave`.
    pub object: String,
}

impl Change {
    /// A change to a table of this family.
    pub fn new(kind: Kind, family: u8, flags: u16, attributes: Vec<Attribute>, object: String) -> Self {
        Self { message: Message { kind, family, flags, attributes }, object }
    }
}

/// Repeats `attempt` while others change the ruleset in between.
///
/// # Errors
/// The errors of `attempt`, except for ERESTART; EBUSY if others keep changing the ruleset.
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
/// The first refusal, with the object of that change, or with `object` if the change is not known.
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

/// Computes the changes with `changes` and sends them as one transaction, which fails and is
/// repeated if the ruleset has changed since `changes` looked at it.
///
/// # Errors
/// The errors of `changes`, about the `object`; the first refusal.
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
