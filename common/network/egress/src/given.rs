//! Which addresses a container was given as answers to which names.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The maximum number of names with an address. A container must not fill the host's memory with
/// questions.
const MOST: usize = 65_536;

/// The addresses and ports that names opened, each with the names and the time until which it
/// counts.
#[derive(Debug, Default)]
pub(crate) struct Given {
    names: HashMap<SocketAddr, HashMap<String, Instant>>,
    /// The number of names in all of them.
    count: usize,
}

impl Given {
    /// Remembers that the name opened the address and port, for this long. Returns false if there is
    /// no room.
    pub(crate) fn add(&mut self, to: SocketAddr, name: &str, time: Duration, now: Instant) -> bool {
        if self.count >= MOST {
            self.forget(now);
        }
        let full = self.count >= MOST;
        let names = self.names.entry(to).or_default();
        let until = now + time;
        match names.get_mut(name) {
            Some(known) => *known = until.max(*known),
            None if full => {
                self.names.retain(|_, names| !names.is_empty());
                return false;
            }
            None => {
                names.insert(name.to_owned(), until);
                self.count += 1;
            }
        }
        true
    }

    /// Whether any name opened it.
    pub(crate) fn is_open(&self, to: SocketAddr, now: Instant) -> bool {
        self.names.get(&to).is_some_and(|names| names.values().any(|until| *until > now))
    }

    /// Whether this name, in lower case, opened it.
    pub(crate) fn has(&self, to: SocketAddr, name: &str, now: Instant) -> bool {
        self.names.get(&to).and_then(|names| names.get(name)).is_some_and(|until| *until > now)
    }

    /// Removes what counts no more.
    fn forget(&mut self, now: Instant) {
        for names in self.names.values_mut() {
            names.retain(|_, until| *until > now);
        }
        self.names.retain(|_, names| !names.is_empty());
        self.count = self.names.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_for_its_address_its_port_and_its_time() {
        let (mut given, now) = (Given::default(), Instant::now());
        let [one, other] = ["192.0.2.1:443", "192.0.2.1:8443"].map(|to| to.parse().unwrap());
        let seconds = Duration::from_secs;
        assert!(given.add(one, "a.example", seconds(10), now));
        assert!(given.add(one, "b.example", seconds(20), now));
        // A later answer with a shorter lifetime takes nothing back.
        assert!(given.add(one, "b.example", seconds(1), now));
        let at = now + seconds(15);
        for (to, name, moment, has) in [
            (one, "a.example", now, true),
            (one, "a.example", at, false),
            (one, "b.example", at, true),
            (one, "c.example", now, false),
            (other, "a.example", now, false),
        ] {
            assert_eq!(given.has(to, name, moment), has, "{to} {name}");
        }
        assert!(
            given.is_open(one, at) && !given.is_open(one, now + seconds(20)) && !given.is_open(other, now)
        );
    }

    #[test]
    fn there_is_room_for_a_limited_number() {
        let (mut given, now) = (Given::default(), Instant::now());
        let to = |number: usize| SocketAddr::new([10, 0, (number >> 8) as u8, number as u8].into(), 443);
        for number in 0..MOST {
            assert!(given.add(to(number), "a.example", Duration::from_secs(1), now));
        }
        assert!(!given.add(to(0), "b.example", Duration::from_secs(1), now));
        assert!(given.add(to(0), "a.example", Duration::from_secs(5), now));
        // What has expired makes room.
        let later = now + Duration::from_secs(2);
        assert!(given.add(to(1), "b.example", Duration::from_secs(1), later));
        assert_eq!(given.count, 2);
    }
}
