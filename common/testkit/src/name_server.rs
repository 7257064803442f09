//! A name server in the outside world, which can also fail in all known ways.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Ttl,
        iana::{Class, Rcode, Rtype},
        message_builder::AnswerBuilder,
    },
    rdata::{A, Aaaa, Cname, Soa, Txt},
};

use crate::{OUTSIDE, Sandbox};

/// The data of a name, or how the server fails for it.
#[derive(Debug, Clone)]
pub enum Has {
    /// Addresses, with their lifetime in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// An alias for another name.
    Alias(&'static str),
    /// This number of addresses, more than fit into a datagram: over UDP, the answer is truncated.
    Many(u8),
    /// A long text.
    Text,
    /// No answer at all.
    Silence,
    /// SERVFAIL.
    Failure,
    /// First answers with another id and with another question; after a while, the right answer.
    Forged(IpAddr, IpAddr),
    /// An answer whose name points to itself.
    Ring,
    /// An answer whose counts announce more records than it has.
    Cut,
    /// Addresses of another name.
    Foreign(IpAddr),
}

type Zone = Vec<(&'static str, Has)>;

/// A name server at [`OUTSIDE`]. It ends with the test.
#[derive(Debug, Clone)]
pub struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Starts a name server with these names, and makes it the sandbox's name server.
    ///
    /// # Panics
    /// If the server does not start.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, zone: &[(&'static str, Has)]) -> Self {
        let outside = std::fs::File::open(sandbox.run().join("outside")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (server, zone) = (Self { asked }, zone.to_vec());
        let own = server.clone();
        let (ready, wait) = std::sync::mpsc::channel();
        // The thread has this namespace to itself.
        thread::spawn(move || {
            nix::sched::setns(outside, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let address: SocketAddr = format!("{OUTSIDE}:53").parse().unwrap();
            let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
            ready.send(()).unwrap();
            let (by_tcp, zone_of_tcp) = (own.clone(), zone.clone());
            thread::spawn(move || by_tcp.serve_streams(&tcp, &zone_of_tcp));
            own.serve_datagrams(&udp, &zone);
        });
        wait.recv().unwrap();
        let resolv = format!(
            "echo nameserver {OUTSIDE} > /run/resolv.conf; mount --bind /run/resolv.conf $(realpath /etc/resolv.conf)"
        );
        sandbox.sh(&resolv).ok();
        server
    }

    /// The queries so far, such as `A deb.example`, with `tcp` in front if they came over TCP.
    ///
    /// # Panics
    /// If a thread of the server has panicked.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn serve_datagrams(&self, socket: &UdpSocket, zone: &Zone) {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for (answer, after) in self.answer(&buffer[..length], zone, true) {
                let socket = socket.try_clone().unwrap();
                thread::spawn(move || {
                    thread::sleep(after);
                    let _ = socket.send_to(&answer, from);
                });
            }
        }
    }

    fn serve_streams(&self, listener: &TcpListener, zone: &Zone) {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            let Ok(()) = stream.read_exact(&mut length) else { continue };
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            let Ok(()) = stream.read_exact(&mut query) else { continue };
            for (answer, _) in self.answer(&query, zone, false) {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = stream.write_all(&[&length, &answer[..]].concat());
            }
        }
    }

    /// The answers, each with the time after which it is sent.
    fn answer(&self, query: &[u8], zone: &Zone, datagram: bool) -> Vec<(Vec<u8>, Duration)> {
        let query = Message::from_octets(query.to_vec()).unwrap();
        let question = query.sole_question().unwrap();
        let (name, kind) = (question.qname().to_string().to_lowercase(), question.qtype());
        let by = if datagram { "" } else { "tcp " };
        self.asked.lock().unwrap().push(format!("{by}{kind} {name}"));
        let now = |answer| vec![(answer, Duration::ZERO)];
        let start = |rcode| MessageBuilder::new_vec().start_answer(&query, rcode).unwrap();
        let Some((_, has)) = zone.iter().find(|(known, _)| *known == name) else {
            let mut missing = start(Rcode::NXDOMAIN).authority();
            missing.push(soa()).unwrap();
            return now(missing.finish());
        };
        let mut answer = start(Rcode::NOERROR);
        match has {
            Has::Silence => return Vec::new(),
            Has::Failure => return now(start(Rcode::SERVFAIL).finish()),
            Has::Many(_) | Has::Text if datagram => {
                answer.header_mut().set_tc(true);
                return now(answer.finish());
            }
            Has::Many(count) => (0..*count).for_each(|host| {
                push(&mut answer, &name, kind, [10, 9, 9, host].into(), 60);
            }),
            Has::Text => {
                let text = Txt::<Vec<u8>>::build_from_slice(&[b'x'; 2000]).unwrap();
                answer.push((name_of(&name), Class::IN, Ttl::from_secs(60), text)).unwrap();
            }
            Has::Forged(forged, address) => return forge(&query, &name, kind, *forged, *address),
            Has::Ring => {
                answer
                    .push((name_of(&name), Class::IN, Ttl::from_secs(60), Cname::new(name_of(&name))))
                    .unwrap();
                let mut bytes = answer.finish();
                // Make the record's name a pointer to itself.
                let at = 12 + usize::from(query.as_slice().len() >= 12) * (name.len() + 2 + 4);
                let pointer = 0xc000 | u16::try_from(at).unwrap();
                bytes[at..at + 2].copy_from_slice(&pointer.to_be_bytes());
                return now(bytes);
            }
            Has::Cut => {
                push(&mut answer, &name, kind, [10, 9, 9, 9].into(), 60);
                let mut bytes = answer.finish();
                bytes[7] = 200;
                return now(bytes);
            }
            Has::Foreign(address) => push(&mut answer, "other.example", kind, *address, 60),
            Has::Addresses(..) | Has::Alias(_) => fill(&mut answer, zone, &name, kind),
        }
        if answer.counts().ancount() > 0 {
            return now(answer.finish());
        }
        let mut missing = answer.authority();
        missing.push(soa()).unwrap();
        now(missing.finish())
    }
}

fn name_of(name: &str) -> Name<Vec<u8>> {
    name.parse().unwrap()
}

type SoaRecord = (Name<Vec<u8>>, Class, Ttl, Soa<Name<Vec<u8>>>);

fn soa() -> SoaRecord {
    let name = || name_of("example");
    let time = Ttl::from_secs(60);
    (name(), Class::IN, time, Soa::new(name(), name(), 1.into(), time, time, time, time))
}

/// Adds the records of a name, and of the names to which it leads.
fn fill(answer: &mut AnswerBuilder<Vec<u8>>, zone: &Zone, name: &str, kind: Rtype) {
    match zone.iter().find(|(known, _)| *known == name) {
        Some((_, Has::Addresses(addresses, ttl))) => {
            addresses.iter().for_each(|address| push(answer, name, kind, *address, *ttl));
        }
        Some((_, Has::Alias(to))) => {
            answer.push((name_of(name), Class::IN, Ttl::from_secs(60), Cname::new(name_of(to)))).unwrap();
            fill(answer, zone, to, kind);
        }
        _ => {}
    }
}

fn push(answer: &mut AnswerBuilder<Vec<u8>>, name: &str, kind: Rtype, address: IpAddr, ttl: u32) {
    let ttl = Ttl::from_secs(ttl);
    match (address, kind) {
        (IpAddr::V4(v4), Rtype::A) => answer.push((name_of(name), Class::IN, ttl, A::new(v4))).unwrap(),
        (IpAddr::V6(v6), Rtype::AAAA) => answer.push((name_of(name), Class::IN, ttl, Aaaa::new(v6))).unwrap(),
        _ => {}
    }
}

/// Two forged answers, and the right one later.
fn forge(
    query: &Message<Vec<u8>>,
    name: &str,
    kind: Rtype,
    forged: IpAddr,
    address: IpAddr,
) -> Vec<(Vec<u8>, Duration)> {
    let answer = |address| {
        let mut answer = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
        push(&mut answer, name, kind, address, 60);
        answer.finish()
    };
    let mut wrong_id = answer(forged);
    wrong_id[0] ^= 1;
    let mut wrong_question = answer(forged);
    wrong_question[13] ^= 1;
    let later = Duration::from_millis(100);
    vec![(wrong_id, Duration::ZERO), (wrong_question, Duration::ZERO), (answer(address), later)]
}

/// The answer of a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …; empty if the system said that nobody listens there; `silence` if nothing
    /// came in six seconds.
    pub rcode: String,
    /// The addresses in the answer, with their lifetimes in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The number of records.
    pub records: u16,
    /// Whether the answer is truncated.
    pub truncated: bool,
}

impl Sandbox {
    /// Queries the name server at 127.0.0.11 in the network namespace `id` for a name's `A`, `AAAA`, `TXT` or
    /// `HTTPS` records. `how` is this type, with `tcp` in front to use TCP, or `edns` to accept 1232 bytes.
    ///
    /// # Panics
    /// If the query cannot be sent.
    #[track_caller]
    pub fn resolve(&self, id: &str, name: &str, how: &str) -> Answer {
        let mut words: Vec<&str> = how.split(' ').collect();
        let kind: Rtype = words.pop().unwrap().parse().unwrap();
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x5354);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((name_of(name), kind)).unwrap();
        let mut builder = builder.additional();
        if words.contains(&"edns") {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(1232);
                    Ok(())
                })
                .unwrap();
        }
        let query = builder.finish();
        let namespace = std::fs::File::open(self.run().join("netns").join(id)).unwrap();
        let by_tcp = words.contains(&"tcp");
        let exchange = move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            exchange(&query, by_tcp)
        };
        let received = match thread::spawn(exchange).join().unwrap() {
            Ok(received) => received,
            Err(error) => {
                let is_silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                let rcode = if is_silent { "silence".to_owned() } else { String::new() };
                return Answer { rcode, addresses: Vec::new(), records: 0, truncated: false };
            }
        };
        let message = Message::from_octets(received).unwrap();
        assert_eq!(message.header().id(), 0x5354);
        let records = message.answer().unwrap().limit_to::<domain::rdata::AllRecordData<_, _>>();
        let addresses = records.map(Result::unwrap).filter_map(|record| match record.data() {
            domain::rdata::AllRecordData::A(a) => Some((IpAddr::V4(a.addr()), record.ttl().as_secs())),
            domain::rdata::AllRecordData::Aaaa(a) => Some((IpAddr::V6(a.addr()), record.ttl().as_secs())),
            _ => None,
        });
        Answer {
            rcode: message.header().rcode().to_string(),
            addresses: addresses.collect(),
            records: message.header_counts().ancount(),
            truncated: message.header().tc(),
        }
    }
}

fn exchange(query: &[u8], by_tcp: bool) -> io::Result<Vec<u8>> {
    let (server, patience) = ("127.0.0.11:53", Some(Duration::from_secs(6)));
    let mut buffer = vec![0; 65_535];
    if by_tcp {
        let mut stream = std::net::TcpStream::connect(server)?;
        stream.set_read_timeout(patience).unwrap();
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        // Sent in two pieces, as some clients do.
        stream.write_all(&length).unwrap();
        stream.write_all(query).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        buffer.truncate(usize::from(u16::from_be_bytes(length)));
        stream.read_exact(&mut buffer)?;
    } else {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(patience).unwrap();
        socket.send(query)?;
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
    }
    Ok(buffer)
}
