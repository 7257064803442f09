use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
};

use nat::Protocol;
use nix::errno::Errno;
use operation::{Cause, Condition, Error, Operation, Place, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{
    Port, Ports, Reserved, bound, holder,
    program::{self, Guards, Refused},
    reserve,
};

/// Holds published ports. Each time, it is determined whether a program or a process holds them.
/// Undo removes either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "port-hold")]
pub struct HoldOperation {
    /// The container's id.
    pub holder: String,
    /// The ports.
    pub ports: Vec<Ports>,
    /// The ports that were not reserved before and that the kernel could choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<u16>,
    /// Whether a program could hold ports when this was planned. Then there may be one even if this
    /// process cannot look for it.
    #[serde(default, rename = "byProgram", skip_serializing_if = "std::ops::Not::not")]
    pub by_program: bool,
}

/// What one call of `apply` added.
#[derive(Default)]
struct Added {
    /// The ports held by the program.
    ports: Vec<Port>,
    /// The first port of the process, if it holds any.
    process: Option<Port>,
}

/// The ports, by the way they are held.
struct Parts {
    /// The ports that a program can hold.
    by_program: Vec<Port>,
    /// The ports that only sockets can hold.
    by_sockets: Vec<Port>,
}

impl HoldOperation {
    /// Plans to hold the host's side of these mappings for the container. `recorded` lists what
    /// other containers hold. It is called only if a port is reserved already, perhaps by one of
    /// them.
    ///
    /// # Errors
    /// When the kernel does not say which ports it chooses from; the errors of `recorded`.
    pub fn new<E: From<Error>>(
        holder: &str,
        mappings: &[nat::Mapping],
        recorded: impl FnOnce() -> Result<Vec<Self>, E>,
    ) -> Result<Self, E> {
        let chosen_from = reserve::chosen_from().map_err(reserving("read"))?;
        let numbers: BTreeSet<u16> =
            mappings.iter().flat_map(|mapping| mapping.host_port..=mapping.last()).collect();
        let chosen: Vec<u16> = numbers.into_iter().filter(|port| chosen_from.contains(port)).collect();
        let reserved = match chosen.is_empty() {
            true => Vec::new(),
            false => {
                let standing = Reserved::read().map_err(reserving("read"))?;
                let mut ours = HashSet::new();
                if chosen.iter().any(|port| standing.has(*port)) {
                    let published: HashSet<u16> = nat::published()
                        .map_err(Error::from)?
                        .iter()
                        .flat_map(|one| one.first..=one.last)
                        .collect();
                    // A port of another container has the same number. We reserved it, so it is
                    // ours to release.
                    if chosen.iter().any(|port| standing.has(*port) && published.contains(port)) {
                        ours = recorded()?.into_iter().flat_map(|hold| hold.reserved).collect();
                    }
                }
                chosen.into_iter().filter(|port| !standing.has(*port) || ours.contains(port)).collect()
            }
        };
        Ok(Self {
            holder: holder.to_owned(),
            ports: Ports::of(mappings),
            reserved,
            by_program: program::is_possible(),
        })
    }

    fn parts(&self) -> Parts {
        // The program's map has room for IPv4 addresses only.
        let is_for_sockets = |port: &Port| port.protocol() == Protocol::Sctp || port.v4().is_none();
        let (by_sockets, by_program) = self.all().partition(is_for_sockets);
        Parts { by_program, by_sockets }
    }

    fn all(&self) -> impl Iterator<Item = Port> {
        self.ports.iter().flat_map(Ports::each)
    }

    fn error(&self, verb: &'static str, cause: impl Into<Cause>) -> Error {
        let first = self.all().next().map(|port| port.to_string()).unwrap_or_default();
        let object = match self.all().nth(1) {
            None => format!("host port {first}"),
            Some(_) => format!("host ports {first} and others"),
        };
        Error::new(verb, object, cause).of(Place::Network)
    }

    /// Fails if a process has bound one of the ports since they were checked.
    fn refuse_bound(&self, ports: &[Port]) -> Result<(), Error> {
        for port in ports {
            let failed = |errno| Error::new("hold", format!("host port {port}"), errno).of(Place::Network);
            if bound::is_bound(*port).map_err(failed)? {
                return Err(taken(*port));
            }
        }
        Ok(())
    }

    fn hold_by_program(&self, ports: &[Port], added: &mut Added) -> Result<(), Refused> {
        let mut guards = Guards::open()?;
        added.ports = guards.unheld(&self.holder, ports).map_err(|errno| ("bpf", errno))?;
        guards.add(&self.holder, &added.ports)
    }

    fn hold_by_sockets(&self, ports: &[Port], added: &mut Added) -> Result<(), rustix::io::Errno> {
        let Some(first) = ports.first() else { return Ok(()) };
        if !holder::stands(&self.holder, *first)? {
            added.process = Some(*first);
            holder::start(&self.holder, *first, ports)?;
        }
        Ok(())
    }

    /// Removes what one call added. What existed before stays.
    fn take_back(&self, added: &Added) -> Result<(), Error> {
        let failed = |errno| self.error("release", errno);
        if !added.ports.is_empty() {
            let guards = Guards::open().map_err(|(_, errno)| failed(errno))?;
            guards.remove(&self.holder, &added.ports).map_err(failed)?;
        }
        added.process.map_or(Ok(()), |first| holder::end(&self.holder, first)).map_err(failed)
    }

    /// Holds the ports with the program, and the remaining ones with sockets.
    fn hold(&self, added: &mut Added) -> Result<(), Error> {
        let Parts { by_program, by_sockets } = self.parts();
        let refused = match by_program.is_empty() {
            true => None,
            false => self.hold_by_program(&by_program, added).err(),
        };
        let by_sockets = match refused {
            None => {
                self.refuse_bound(&by_program)?;
                by_sockets
            }
            Some((_, rustix::io::Errno::EXIST)) => return Err(self.error("hold", Errno::EEXIST)),
            // The cgroup has no room for another program.
            Some((_, errno)) if is_impossible(errno) || errno == rustix::io::Errno::TOOBIG => {
                self.take_back(added)?;
                *added = Added::default();
                self.all().collect()
            }
            Some((_, errno)) => return Err(self.error("hold", errno)),
        };
        match self.hold_by_sockets(&by_sockets, added) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::ADDRINUSE) => {
                match by_sockets.iter().find(|port| bound::is_bound(**port) == Ok(true)) {
                    Some(port) => Err(taken(*port)),
                    None => self.tell_unheld(refused, rustix::io::Errno::ADDRINUSE),
                }
            }
            Err(errno) => self.tell_unheld(refused, errno),
        }
    }

    /// Reports that the ports are published without being held, as with other tools' rules. `check`
    /// reports it too.
    fn tell_unheld(&self, refused: Option<Refused>, errno: rustix::io::Errno) -> Result<(), Error> {
        let program = refused.map(|(what, errno)| format!(" by a program ({what}: {})", desc(errno)));
        let program = program.map(|program| format!("{program} nor")).unwrap_or_default();
        let error = self.error("hold", format!("not possible{program} by sockets ({})", desc(errno)));
        operation::note(&format!("{error}: a process of the host can listen there and gets nothing"));
        Ok(())
    }

    /// Removes the ports from the program's map. If there could be no program, there is nothing to
    /// do.
    fn remove_entries(&self) -> Result<(), Error> {
        let by_program = self.parts().by_program;
        match Guards::open() {
            Ok(guards) => {
                guards.remove(&self.holder, &by_program).map_err(|errno| self.error("release", errno))
            }
            Err((_, errno)) if is_impossible(errno) && !self.by_program => Ok(()),
            Err((_, errno)) => Err(self.error("release", errno)),
        }
    }

    /// The reserved ports that no other held port with the same number needs.
    fn unneeded(&self) -> Result<Vec<u16>, Error> {
        let own: HashSet<Port> = self.all().collect();
        let published = nat::published()?;
        let others: HashSet<u16> = published
            .iter()
            .flat_map(|one| (one.first..=one.last).map(move |port| (one, port)))
            .filter(|(one, port)| {
                let has = |host_ip| own.contains(&Port::new(one.protocol, host_ip, *port));
                // An IPv4 port on all addresses includes the IPv6 port.
                let with_all = one.host_ip.is_some_and(|ip| ip.is_unspecified()) && has(None);
                one.holder.as_ref() != Some(&self.holder) || !has(one.host_ip) && !with_all
            })
            .map(|(_, port)| port)
            .collect();
        Ok(self.reserved.iter().copied().filter(|port| !others.contains(port)).collect())
    }

    /// The first port that is not held, in words. None if all are held.
    fn lack(&self) -> Result<Option<String>, Error> {
        let Parts { by_program, by_sockets } = self.parts();
        let looked = |errno| self.error("look for", errno);
        let unheld = |port: Port| format!("hold of host port {port}");
        let by_sockets = match Guards::open() {
            Ok(guards) => match guards.lack(&self.holder, &by_program).map_err(looked)? {
                None => by_sockets,
                Some(_) => self.all().collect(),
            },
            Err((_, errno)) if !is_impossible(errno) => return Err(looked(errno)),
            Err(_) if by_program.is_empty() => by_sockets,
            Err(_) => self.all().collect(),
        };
        let Some(first) = by_sockets.first().copied() else { return Ok(None) };
        if holder::stands(&self.holder, first).map_err(looked)? {
            return Ok(None);
        }
        // Without SCTP in the kernel nobody can listen, so there is nothing to hold.
        for port in by_sockets {
            if bound::socket(port).map_err(looked)?.is_some() {
                return Ok(Some(unheld(port)));
            }
        }
        Ok(None)
    }
}

fn taken(port: Port) -> Error {
    Error::new("hold", format!("host port {port}"), "it is taken by a process of the host")
        .with_hint("choose another host port")
}

/// Whether the error says that this process cannot load such a program: it lacks the right, or the
/// kernel lacks support.
fn is_impossible(errno: rustix::io::Errno) -> bool {
    use rustix::io::Errno as E;
    [E::PERM, E::ACCESS, E::NOSYS, E::INVAL, E::NOPROTOOPT, E::NODEV, E::ROFS, E::BUSY, E::OPNOTSUPP]
        .contains(&errno)
}

fn desc(errno: rustix::io::Errno) -> &'static str {
    Errno::from_raw(errno.raw_os_error()).desc()
}

fn reserving(verb: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::new(verb, reserve::NAME, source).of(Place::Sysctl)
}

impl Operation for HoldOperation {
    fn explain(&self) -> Vec<String> {
        let Parts { by_program, by_sockets } = self.parts();
        let (mut lines, by_sockets) = match Guards::open() {
            Ok(guards) if !by_program.is_empty() => (guards.commands(&self.holder, &by_program), by_sockets),
            _ => (Vec::new(), self.all().collect()),
        };
        lines.extend(by_sockets.into_iter().map(|port| {
            let (version, bind) = match port.host_ip {
                None => (4, String::new()),
                Some(IpAddr::V4(ip)) => (4, format!(",bind={ip}")),
                Some(IpAddr::V6(ip)) => (6, format!(",ipv6only,bind=[{ip}]")),
            };
            let protocol = port.protocol().to_string().to_uppercase();
            let address = format!("{protocol}{version}-LISTEN:{}{bind}", port.port);
            words(["setsid", "socat", &address, "/dev/null"])
        }));
        if !self.reserved.is_empty() {
            let all = Reserved::read().map(|reserved| {
                reserve::text(
                    (0..=u16::MAX).filter(|port| reserved.has(*port) || self.reserved.contains(port)),
                )
            });
            let all = all.unwrap_or_else(|_| reserve::text(self.reserved.iter().copied()));
            lines.push(words(["sysctl", "-w", &format!("{}={all}", reserve::NAME)]));
        }
        lines
    }

    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        let mut added = Added::default();
        let made = self.hold(&mut added).and_then(|()| match reserve::add(&self.reserved) {
            // In another engine's container /proc/sys is read-only. `check` reports it.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                operation::note(&format!(
                    "{}: the kernel may choose them",
                    reserving("reserve ports in")(error)
                ));
                Ok(())
            }
            added => added.map_err(reserving("set")),
        });
        if made.is_err() {
            // The first error is the one to report.
            let _ = self.take_back(&added);
        }
        made
    }

    fn undo(&self, _: &Scope) -> Result<(), Error> {
        self.remove_entries()?;
        let Parts { by_sockets, .. } = self.parts();
        for first in [self.all().next(), by_sockets.first().copied()].into_iter().flatten() {
            holder::end(&self.holder, first).map_err(|errno| self.error("release", errno))?;
        }
        if self.reserved.is_empty() {
            return Ok(());
        }
        reserve::remove(&self.unneeded()?).map_err(reserving("set"))
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        if let Some(lack) = self.lack()? {
            return Ok(Condition::Missing(lack));
        }
        if self.reserved.is_empty() {
            return Ok(Condition::Present);
        }
        let reserved = Reserved::read().map_err(reserving("read"))?;
        Ok(match self.reserved.iter().find(|port| !reserved.has(**port)) {
            Some(port) => Condition::Missing(format!("port {port} in {}", reserve::NAME)),
            None => Condition::Present,
        })
    }
}
