//! Publishes this host's containers, and follows the other hosts, until a signal.

use std::{
    collections::{BTreeMap, HashSet},
    mem::MaybeUninit,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use document::record::Lock;
use etcd::{Client, Lease};
use netlink::wireguard::{Key, Wireguard};
use operation::{Scope, interrupt};
use peers::Peers;
use rustix::fs::inotify;
use sd_notify::NotifyState;
use toolkit::{prelude::*, report_line};

use super::{
    NetPeers,
    join::{self, Joined},
    own,
    told::{self, ToldHost, below},
};

/// How long to wait after an error.
const PAUSE: Duration = Duration::from_secs(1);
/// Changes of records within this time are published together.
const QUIET: Duration = Duration::from_millis(5);

/// An event of the main loop.
enum Event {
    /// The keys and values in etcd.
    Heard(BTreeMap<String, String>),
    /// A record has changed.
    Records,
    /// An error of something that is tried again.
    Failed(anyhow::Error),
    Signal,
}

/// Joins the network, and runs until a signal.
pub(crate) fn stay(asked: &NetPeers, scope: &Scope) -> Result<()> {
    interrupt::block()?;
    let _sole = own::sole(&asked.name)?;
    let client = Arc::new(asked.client()?);
    let joined = join::join(asked, scope, &client)?;
    let (events, heard) = channel();
    signals(events.clone())?;
    records(scope, events.clone())?;
    let prefix = joined.keys.all().to_owned();
    let listener = client.clone();
    thread::spawn(move || listen(&listener, &prefix, &events));
    let lease = Some(joined.lease);
    let renewal = Instant::now() + third(asked.ttl);
    let (seen, failing) = (None, HashSet::new());
    let told_ends = BTreeMap::new();
    let mut stay =
        Stay { asked, scope, client, joined, lease, renewal, seen, is_told: false, told_ends, failing };
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    while stay.once(&heard) {}
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

/// How often a lease of `ttl` seconds is renewed.
fn third(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl)) / 3
}

struct Stay<'a> {
    asked: &'a NetPeers,
    scope: &'a Scope,
    client: Arc<Client>,
    joined: Joined,
    /// The lease of everything that is published. None after it has expired.
    lease: Option<Lease>,
    /// When to renew the lease, no matter how many events arrive.
    renewal: Instant,
    /// The keys and values in etcd. None until they are known.
    seen: Option<BTreeMap<String, String>>,
    /// Whether this host's state was published with this lease.
    is_told: bool,
    /// The WireGuard peers that the kernel got last.
    told_ends: BTreeMap<Key, SocketAddr>,
    /// The errors that were reported last. They are not reported again.
    failing: HashSet<String>,
}

impl Stay<'_> {
    /// Waits for an event, or for the time to renew the lease. Returns false after a signal.
    fn once(&mut self, events: &Receiver<Event>) -> bool {
        // The lease is renewed even if events arrive faster than they are handled.
        let left = self.renewal.saturating_duration_since(Instant::now());
        let event = match left.is_zero() {
            true => Err(RecvTimeoutError::Timeout),
            false => events.recv_timeout(left),
        };
        let is_due = matches!(event, Err(RecvTimeoutError::Timeout));
        let done = match event {
            Ok(Event::Signal) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Event::Heard(values)) => {
                self.seen = Some(values);
                self.hear().and_then(|left| self.tell().map(|()| left))
            }
            Ok(Event::Records) => self.tell().map(|()| Vec::new()),
            Ok(Event::Failed(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => self.renew().and_then(|()| self.hear()),
        };
        let lines = match done {
            Ok(left) => left,
            Err(error) => vec![report_line(&error)],
        };
        for line in lines.iter().filter(|line| !self.failing.contains(*line)) {
            operation::note(line);
        }
        self.failing = lines.into_iter().collect();
        let time = third(self.asked.ttl);
        let next = Instant::now() + if self.failing.is_empty() { time } else { time.min(PAUSE) };
        self.renewal = if is_due { next } else { self.renewal.min(next) };
        true
    }

    /// Renews the lease. If it has expired, requests a new one and publishes everything again.
    fn renew(&mut self) -> Result<()> {
        if let Some(lease) = self.lease
            && !self.client.keep_alive(lease)?
        {
            self.lease = None;
        }
        if self.lease.is_none() {
            let Joined { keys, host, address, part, .. } = &self.joined;
            let lease = self.client.grant(self.asked.ttl)?;
            if let Err(error) = join::take(&self.client, keys, host, *address, *part, lease) {
                let _ = self.client.revoke(lease);
                return Err(error);
            }
            (self.lease, self.is_told) = (Some(lease), false);
        }
        self.tell()
    }

    /// Publishes the changes of this host's state.
    fn tell(&mut self) -> Result<()> {
        let (Some(lease), Some(seen)) = (self.lease, self.seen.as_mut()) else { return Ok(()) };
        let Joined { keys, host, address, end, part, shape, network, .. } = &self.joined;
        let mac = own::bridge(network.link())?;
        let own = ToldHost {
            address: *address,
            part: *part,
            mac,
            addresses: shape.gateways(*part),
            wireguard: end.clone(),
        };
        let prefix = keys.containers(host);
        let mut wanted = BTreeMap::from([
            (keys.part(*part), host.clone()),
            (keys.host(host), serde_json::to_string(&own)?),
        ]);
        for (id, station) in own::containers(self.scope, &network.name)? {
            wanted.insert(format!("{prefix}{id}"), serde_json::to_string(&station)?);
        }
        for (key, value) in &wanted {
            if !self.is_told || seen.get(key) != Some(value) {
                self.client.put(key, value, Some(lease))?;
                seen.insert(key.clone(), value.clone());
            }
        }
        let gone: Vec<String> = below(seen, &prefix)
            .map(|(key, _)| key.clone())
            .filter(|key| !wanted.contains_key(key))
            .collect();
        for key in gone {
            self.client.delete(&key)?;
            seen.remove(&key);
        }
        self.is_told = true;
        Ok(())
    }

    /// Applies what the other hosts have published. Returns what was left out, and why.
    fn hear(&mut self) -> Result<Vec<String>> {
        let Some(seen) = &self.seen else { return Ok(Vec::new()) };
        let Joined { keys, host, shape, network, .. } = &self.joined;
        let bridge = network.link();
        let (peers, left) = told::peers(seen, keys, host, &network.name, shape);
        if shape.wireguard {
            let ends = told::ends(seen, keys, &peers);
            Wireguard::open()?.set_peers(&join::tunnel(&network.name), &ends, &self.told_ends)?;
            self.told_ends = ends;
        }
        // A container that is being attached reads the list.
        let _lock = Lock::take(&self.scope.run_dir, "network")?;
        if Peers::read(&self.scope.run_dir, bridge).ok().flatten().as_ref() != Some(&peers) {
            peers.write(&self.scope.run_dir, bridge)?;
        }
        peers.set(&self.joined.filtered())?;
        Ok(left)
    }
}

/// Watches etcd for changes, until nobody receives the events.
fn listen(client: &Client, prefix: &str, events: &Sender<Event>) {
    // After a watch has ended, changes may have been missed, so everything is listed again.
    loop {
        let ended = follow(client, prefix, events);
        if ended.is_err_and(|error| events.send(Event::Failed(error)).is_err()) {
            return;
        }
        // A watch may end immediately each time.
        thread::sleep(PAUSE);
    }
}

/// Lists the keys and watches them until the watch ends. The end of a working watch is not an error, because a watch also ends after a
/// silence.
fn follow(client: &Client, prefix: &str, events: &Sender<Event>) -> Result<()> {
    let listed = client.list(prefix)?;
    let mut values = listed.values;
    events.send(Event::Heard(values.clone()))?;
    let mut watch = client.watch(prefix, listed.revision)?;
    let mut changes = watch.wait()?;
    loop {
        if !changes.is_empty() {
            for change in changes {
                match change.value {
                    Some(value) => values.insert(change.key, value),
                    None => values.remove(&change.key),
                };
            }
            events.send(Event::Heard(values.clone()))?;
        }
        let Ok(next) = watch.wait() else { return Ok(()) };
        changes = next;
    }
}

/// Sends an event when a record changes.
fn records(scope: &Scope, events: Sender<Event>) -> Result<()> {
    let failed = || format!("watch {:?}", scope.run_dir);
    operation::make_directories(&scope.run_dir, 0o777).with_context(failed)?;
    let watched = inotify::init(inotify::CreateFlags::CLOEXEC).with_context(failed)?;
    let flags = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watched, &scope.run_dir, flags).with_context(failed)?;
    thread::spawn(move || {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        loop {
            // Changes that were read together make one event.
            let mut reader = inotify::Reader::new(&watched, &mut buffer);
            let read = reader.next().map(drop);
            thread::sleep(QUIET);
            if read.is_err() || events.send(Event::Records).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends an event at a signal to end.
fn signals(events: Sender<Event>) -> Result<()> {
    let descriptor = interrupt::descriptor()?;
    thread::spawn(move || {
        loop {
            let mut waiting = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut waiting, None) {
                Ok(_) if descriptor.read_signal().is_ok_and(|read| read.is_some()) => {
                    let _ = events.send(Event::Signal);
                    return;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use etcd::Trust;

    use super::super::gateway::answer;
    use super::*;

    #[test]
    fn a_watch_that_is_refused_is_reported() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let client = Client::new(&[url], &Trust::default(), Duration::from_secs(5)).unwrap();
        let refused = r#"{"result":{"canceled":true,"cancel_reason":"permission denied"}}"#;
        let (events, heard) = channel();
        thread::scope(|scope| {
            scope.spawn(|| answer(&server, &["{}", refused]));
            scope.spawn(|| listen(&client, "/stave/front/", &events));
            assert!(matches!(heard.recv().unwrap(), Event::Heard(_)));
            let Event::Failed(error) = heard.recv().unwrap() else { panic!("nothing is reported") };
            assert!(error.to_string().ends_with("the watch was ended: permission denied"), "{error:#}");
            drop(heard);
        });
    }
}
