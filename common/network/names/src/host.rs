//! The resolver of a host: one process for the containers of all networks. It answers containers'
//! names and forwards other questions.
//!
//! The tool that sets up a container's names opens the sockets in the container's namespace and
//! passes them to the resolver. So the process enters no namespace, and needs no right except to
//! read records. It ends with the last container.

use std::{
    collections::HashMap,
    ffi::OsStr,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use operation::background;
use rustix::{io::Errno, thread::CapabilitySet};

use crate::{
    Control, Name, Own, Place, Policy, Privileges, Question, Rtype, Upstreams, Verdict,
    containers::{Container, Containers, Found, reversed},
    resident::{self, Claim},
};

/// The TTL of a container's address, in seconds. The container may be made anew with another
/// address.
pub const TTL: u32 = 5;

/// The request to serve a container, followed by the run directory and the id.
const SERVE: &[u8] = b"serve";
const WITHDRAW: &[u8] = b"withdraw";
const ASK: &[u8] = b"ask";
const YES: &[u8] = b"yes";
const NO: &[u8] = b"no";

/// The name of this network namespace's resolver process.
pub(crate) fn name() -> Name {
    Name::new("names", "host")
}

fn message(verb: &[u8], run_dir: &Path, id: &str) -> Vec<u8> {
    [verb, &[0], run_dir.as_os_str().as_bytes(), &[0], id.as_bytes()].concat()
}

/// Whether the container is served.
pub(crate) fn serves(run_dir: &Path, id: &str) -> Result<bool, Errno> {
    let answer = resident::tell(&name(), &message(ASK, run_dir, id), &[])?;
    Ok(answer.is_some_and(|answer| answer == YES))
}

/// Passes the container's sockets to the resolver process. Starts the process if it does not run.
pub(crate) fn serve(run_dir: &Path, id: &str, place: &Place) -> Result<(), Errno> {
    // The process may be about to end.
    const ATTEMPTS: usize = 100;
    for _ in 0..ATTEMPTS {
        if let Some(claim) = Claim::take(&name())? {
            start(claim)?;
        }
        match resident::tell(&name(), &message(SERVE, run_dir, id), &place.descriptors())? {
            Some(answer) if answer == YES => return Ok(()),
            _ => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    Err(Errno::TIMEDOUT)
}

/// Takes the container's sockets away from the process, which ends after the last one.
pub(crate) fn withdraw(run_dir: &Path, id: &str) -> Result<(), Errno> {
    resident::tell(&name(), &message(WITHDRAW, run_dir, id), &[])?;
    background::forget(&name())
}

fn start(claim: Claim) -> Result<(), Errno> {
    let privileges = Privileges { own_user: true, capabilities: CapabilitySet::DAC_READ_SEARCH };
    resident::start(c"name-serve", claim, &[], privileges, |control| {
        let host = Host {
            control,
            places: HashMap::new(),
            next: 0,
            containers: HashMap::new(),
            upstreams: HashMap::new(),
            is_used: false,
        };
        // If this fails, nothing is answered until the next repair.
        let _ = crate::serve(host);
    })
}

/// The container that a place belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    run_dir: PathBuf,
    id: String,
}

struct Host<'a> {
    control: &'a mut Control,
    places: HashMap<u64, (Owner, Place)>,
    next: u64,
    containers: HashMap<PathBuf, Containers>,
    upstreams: HashMap<Vec<IpAddr>, Upstreams>,
    /// Whether there was a place, or somebody took one away.
    is_used: bool,
}

impl Host<'_> {
    /// The container that asks at this place, and the containers that it can look up.
    fn asker(&mut self, place: u64) -> Option<(Container, &mut Containers)> {
        let (owner, _) = self.places.get(&place)?;
        let run_dir = &owner.run_dir;
        let containers = self.containers.entry(run_dir.clone()).or_insert_with(|| Containers::new(run_dir));
        Some((containers.container(&owner.id)?, containers))
    }

    /// Handles a request to the process. Returns the answer.
    fn told(&mut self, message: &[u8], mut descriptors: Vec<OwnedFd>) -> &'static [u8] {
        let mut parts = message.splitn(3, |byte| *byte == 0);
        let (Some(verb), Some(run_dir), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return NO;
        };
        let owner = Owner {
            run_dir: PathBuf::from(OsStr::from_bytes(run_dir)),
            id: String::from_utf8_lossy(id).into_owned(),
        };
        let standing = self.places.iter().find(|(_, (of, _))| *of == owner).map(|(number, _)| *number);
        match (verb, standing) {
            (SERVE, _) => {
                let (Some(tcp), Some(udp)) = (descriptors.pop(), descriptors.pop()) else { return NO };
                standing.map(|number| self.places.remove(&number));
                self.next += 1;
                self.places.insert(self.next, (owner, Place { udp: udp.into(), tcp: tcp.into() }));
                self.is_used = true;
                YES
            }
            (WITHDRAW, Some(number)) => {
                self.places.remove(&number);
                YES
            }
            (WITHDRAW, None) => {
                // The tool that started the process may have been killed before it gave it a place.
                self.is_used = true;
                YES
            }
            (ASK, Some(_)) => YES,
            _ => NO,
        }
    }

    /// Ends the process after its last place.
    fn is_needed(&self) -> ControlFlow<()> {
        if self.is_used && self.places.is_empty() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// How to answer a question about an outside name. For a container with internal networks only,
/// forwarding a question would be a way out, because a name can carry any data (CVE-2024-29018).
fn elsewhere(asker: &Container) -> Verdict {
    if asker.has_a_way_out() { Verdict::Forward } else { Verdict::Own(Own::Prohibited) }
}

impl Policy for Host<'_> {
    fn places(&self) -> Vec<(u64, &Place)> {
        self.places.iter().map(|(number, (_, place))| (*number, place)).collect()
    }

    fn decide(&mut self, place: u64, question: &Question) -> Verdict {
        let Some((asker, containers)) = self.asker(place) else { return Verdict::Own(Own::Failure) };
        if let (Rtype::PTR, Some(address)) = (question.kind, reversed(question.labels())) {
            return match containers.names(&asker, address) {
                Some(names) if names.is_empty() => Verdict::Own(Own::NoSuchName),
                Some(names) => Verdict::Own(Own::Pointers(names, TTL)),
                None => elsewhere(&asker),
            };
        }
        match containers.find(&asker, question.labels()) {
            Found::Addresses(addresses) => Verdict::Own(question.of_addresses(addresses, TTL)),
            Found::Nobody => Verdict::Own(Own::NoSuchName),
            Found::Elsewhere => elsewhere(&asker),
        }
    }

    fn servers(&mut self, place: u64) -> Vec<SocketAddr> {
        let given = self.asker(place).map(|(asker, _)| asker.servers).unwrap_or_default();
        self.upstreams.entry(given).or_insert_with_key(|given| Upstreams::new(given)).servers()
    }

    fn admit(&mut self, _: u64, _: &Question, addresses: &[(IpAddr, u32)]) -> Option<Vec<IpAddr>> {
        Some(addresses.iter().map(|(address, _)| *address).collect())
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.control.descriptors().collect()
    }

    fn ready(&mut self, at: usize) -> ControlFlow<()> {
        let Some(told) = self.control.hear(at)? else { return ControlFlow::Continue(()) };
        let answer = self.told(&told.message, told.descriptors);
        self.control.answer(told.from, answer);
        self.is_needed()
    }

    fn look_around(&mut self) -> ControlFlow<()> {
        // The record is gone, so the container was not undone properly. Drop the sockets, because
        // they would keep its namespace alive.
        let is_gone = |owner: &Owner| {
            matches!(owner.run_dir.join(format!("{}.json", owner.id)).try_exists(), Ok(false))
        };
        self.places.retain(|_, (owner, _)| !is_gone(owner));
        self.upstreams.clear();
        // Also if it never had a place: the tool that started the process was killed.
        match self.places.is_empty() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
