//! Parses and builds DNS messages (RFC 1035, with EDNS of RFC 6891).

use std::net::IpAddr;

use domain::{
    base::{
        Message, MessageBuilder, Name, ParsedName, Record, StaticCompressor, ToName, Ttl,
        iana::{Class, ExtendedErrorCode, Opcode, OptRcode, Rcode},
        message::RecordSection,
        message_builder::{AdditionalBuilder, AnswerBuilder, PushError},
        opt::ExtendedError,
    },
    rdata::{A, Aaaa, AllRecordData, Ptr},
};

pub use domain::base::iana::Rtype;

/// The largest UDP message, in bytes. It is not fragmented on usual paths (DNS flag day 2020).
pub(crate) const UDP_SIZE: u16 = 1232;
/// The largest UDP message for a client without EDNS, in bytes (RFC 1035, 2.3.4).
const PLAIN_SIZE: u16 = 512;
/// The longest TTL of an answer, in seconds.
const LONGEST: u32 = 86_400;
/// The longest chain of aliases (CNAME).
const CHAIN: usize = 16;

/// A client's question.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    name: Name<Vec<u8>>,
    /// The labels of the name in lower case, from left to right, without the root.
    labels: Vec<Vec<u8>>,
    /// The type of the requested records.
    pub kind: Rtype,
    recursion: bool,
    unchecked: bool,
    edns: Option<Edns>,
}

/// The client's EDNS options.
#[derive(Debug, Clone, Copy)]
struct Edns {
    size: u16,
    dnssec: bool,
}

/// How to handle a client's message.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The message is a question.
    Question(Question),
    /// Send this answer.
    Refused(Vec<u8>),
    /// Ignore the message; it cannot be answered.
    Nothing,
}

/// Parses a client's message.
pub(crate) fn read(bytes: &[u8]) -> Asked {
    let Ok(message) = Message::from_octets(bytes) else { return Asked::Nothing };
    let header = message.header();
    if header.qr() {
        return Asked::Nothing;
    }
    let refused = |rcode| {
        let mut builder = MessageBuilder::new_vec();
        let answer = builder.header_mut();
        answer.set_id(header.id());
        answer.set_opcode(header.opcode());
        answer.set_qr(true);
        answer.set_rd(header.rd());
        answer.set_rcode(rcode);
        Asked::Refused(builder.finish())
    };
    if header.opcode() != Opcode::QUERY {
        return refused(Rcode::NOTIMP);
    }
    let Ok(question) = message.sole_question() else { return refused(Rcode::FORMERR) };
    if question.qclass() != Class::IN || [Rtype::AXFR, Rtype::IXFR].contains(&question.qtype()) {
        return refused(Rcode::REFUSED);
    }
    let name = question.qname().to_vec();
    let labels = name.iter().map(|label| label.as_slice().to_ascii_lowercase());
    let labels = labels.filter(|label| !label.is_empty()).collect();
    let edns = message
        .opt()
        .map(|opt| Edns { size: opt.udp_payload_size().max(PLAIN_SIZE), dnssec: opt.dnssec_ok() });
    Asked::Question(Question {
        id: header.id(),
        labels,
        kind: question.qtype(),
        recursion: header.rd(),
        unchecked: header.cd(),
        edns,
        name,
    })
}

/// An answer that is made here, not by a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// Addresses, and their TTL in seconds. Addresses of another type than the question's are left
    /// out.
    Addresses(Vec<IpAddr>, u32),
    /// The names of an address (PTR), and their TTL in seconds.
    Pointers(Vec<String>, u32),
    /// The name exists, but has no record of this type.
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name may not be looked up. Clients get NXDOMAIN, and those with EDNS the reason (RFC
    /// 8914). Another code would make them wait, or ask again: musl's resolver treats REFUSED as no
    /// answer.
    Prohibited,
    /// The lookup failed (SERVFAIL).
    Failure,
}

impl Question {
    /// The labels of the name in lower case, from left to right, without the root.
    pub fn labels(&self) -> &[Vec<u8>] {
        &self.labels
    }

    /// The answer for a name with these addresses: those of the requested type. If there are none,
    /// the answer still says that the name exists.
    pub fn of_addresses(&self, addresses: Vec<IpAddr>, seconds: u32) -> Own {
        match self.asked_for(addresses) {
            none if none.is_empty() => Own::NoData,
            addresses => Own::Addresses(addresses, seconds),
        }
    }

    /// The addresses of the requested type.
    pub fn asked_for(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let is_asked = |address: &IpAddr| match self.kind {
            Rtype::A => address.is_ipv4(),
            Rtype::AAAA => address.is_ipv6(),
            _ => false,
        };
        addresses.into_iter().filter(is_asked).collect()
    }

    /// The name as text, without a trailing dot; `.` for the root. Bytes outside of host names are
    /// escaped.
    pub fn text(&self) -> String {
        let text = self.name.to_string().to_ascii_lowercase();
        if text.is_empty() { ".".to_owned() } else { text }
    }

    /// The question as a message to a name server.
    pub(crate) fn query(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        let header = builder.header_mut();
        header.set_id(id);
        header.set_rd(true);
        header.set_cd(self.unchecked);
        let mut builder = builder.question();
        // A single question always fits.
        let _ = builder.push((&self.name, self.kind));
        let mut builder = builder.additional();
        if edns {
            let _ = builder.opt(|opt| {
                opt.set_udp_payload_size(UDP_SIZE);
                opt.set_dnssec_ok(self.edns.is_some_and(|edns| edns.dnssec));
                Ok(())
            });
        }
        builder.finish()
    }

    /// The largest UDP message that the client accepts, in bytes.
    fn limit(&self) -> usize {
        usize::from(self.edns.map_or(PLAIN_SIZE, |edns| edns.size.min(UDP_SIZE)))
    }

    /// Builds the answer. With `datagram`, it is truncated to the client's limit for UDP.
    pub(crate) fn own(&self, own: &Own, datagram: bool) -> Vec<u8> {
        let rcode = match own {
            Own::Addresses(..) | Own::Pointers(..) | Own::NoData => Rcode::NOERROR,
            Own::NoSuchName | Own::Prohibited => Rcode::NXDOMAIN,
            Own::Failure => Rcode::SERVFAIL,
        };
        let prohibited = (*own == Own::Prohibited).then_some(ExtendedErrorCode::PROHIBITED);
        self.answer(rcode, prohibited, datagram, None, |answer| {
            match own {
                Own::Addresses(addresses, ttl) => {
                    for address in addresses {
                        let (name, ttl) = (&self.name, Ttl::from_secs(*ttl));
                        match (address, self.kind) {
                            (IpAddr::V4(v4), Rtype::A) => {
                                answer.push(Record::new(name, Class::IN, ttl, A::new(*v4)))?;
                            }
                            (IpAddr::V6(v6), Rtype::AAAA) => {
                                answer.push(Record::new(name, Class::IN, ttl, Aaaa::new(*v6)))?;
                            }
                            _ => {}
                        }
                    }
                }
                Own::Pointers(names, ttl) => {
                    for name in names.iter().filter_map(|name| name.parse::<Name<Vec<u8>>>().ok()) {
                        answer.push((&self.name, Class::IN, Ttl::from_secs(*ttl), Ptr::new(name)))?;
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Builds an answer. `fill` adds the records. `missing` is the TTL in seconds of a negative
    /// answer.
    fn answer(
        &self,
        rcode: Rcode,
        error: Option<ExtendedErrorCode>,
        datagram: bool,
        missing: Option<(&Parsed<'_>, Ttl)>,
        fill: impl FnOnce(&mut AnswerBuilder<StaticCompressor<Vec<u8>>>) -> Result<(), PushError>,
    ) -> Vec<u8> {
        // A vector can hold the 64 KiB of a message.
        let Ok(mut builder) = MessageBuilder::from_target(StaticCompressor::new(Vec::new()));
        let header = builder.header_mut();
        header.set_id(self.id);
        header.set_qr(true);
        header.set_rd(self.recursion);
        header.set_ra(true);
        header.set_cd(self.unchecked);
        header.set_rcode(rcode);
        let mut builder = builder.question();
        let _ = builder.push((&self.name, self.kind));
        let mut answer = builder.answer();
        let full = fill(&mut answer).is_err();
        let mut answer = answer.authority();
        if let Some((soa, ttl)) = missing {
            // Without this record, clients do not cache the answer.
            let _ = answer.push((soa.owner(), soa.class(), ttl, soa.data()));
        }
        let mut answer = answer.additional();
        self.describe(&mut answer, error);
        let bytes = answer.finish().into_target();
        if !full && (bytes.len() <= self.limit() || !datagram) {
            return bytes;
        }
        self.truncated(rcode)
    }

    /// An answer that tells the client to use TCP.
    fn truncated(&self, rcode: Rcode) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        let header = builder.header_mut();
        header.set_id(self.id);
        header.set_qr(true);
        header.set_tc(true);
        header.set_rd(self.recursion);
        header.set_ra(true);
        header.set_rcode(rcode);
        let mut builder = builder.question();
        let _ = builder.push((&self.name, self.kind));
        let mut builder = builder.additional();
        self.describe(&mut builder, None);
        builder.finish()
    }

    /// Adds our EDNS options if the client uses EDNS.
    fn describe<T: domain::base::wire::Composer>(
        &self,
        builder: &mut AdditionalBuilder<T>,
        error: Option<ExtendedErrorCode>,
    ) {
        let Some(edns) = self.edns else { return };
        let _ = builder.opt(|opt| {
            opt.set_udp_payload_size(UDP_SIZE);
            opt.set_dnssec_ok(edns.dnssec);
            if let Some(code) = error {
                let reason = ExtendedError::<Vec<u8>>::new(code, None);
                reason.map_or(Ok(()), |reason| opt.push(&reason))?;
            }
            Ok(())
        });
    }
}

/// A server's answer to a forwarded question.
#[derive(Debug)]
pub(crate) struct Reply {
    message: Message<Vec<u8>>,
    /// The name in the question, and its chain of aliases.
    chain: Vec<Name<Vec<u8>>>,
    /// The response code.
    pub(crate) rcode: Rcode,
    /// The addresses, each with its TTL in seconds.
    pub(crate) addresses: Vec<(IpAddr, u32)>,
}

/// A message from a server.
#[derive(Debug)]
pub(crate) enum Replied {
    /// The answer.
    Reply(Reply),
    /// The answer does not fit into a UDP message.
    Truncated,
    /// Not an answer to this question; perhaps somebody guesses.
    Other,
    /// The server's answer, but it cannot be parsed.
    Garbled,
}

/// Parses a server's answer to `question`, which was sent with this id.
pub(crate) fn reply(bytes: &[u8], question: &Question, id: u16) -> Replied {
    let Ok(message) = Message::from_octets(bytes.to_vec()) else { return Replied::Other };
    let header = message.header();
    if !header.qr() || header.id() != id || header.opcode() != Opcode::QUERY {
        return Replied::Other;
    }
    match message.sole_question() {
        Ok(asked) if asked.qtype() == question.kind && asked.qname().name_eq(&question.name) => {}
        // Some servers leave the question out if they do not understand it.
        Err(_) if header.rcode() != Rcode::NOERROR && message.header_counts().qdcount() == 0 => {}
        _ => return Replied::Other,
    }
    if header.tc() {
        return Replied::Truncated;
    }
    let extended = message.opt().is_some_and(|opt| opt.rcode(header) != OptRcode::from(header.rcode()));
    let rcode = if extended { Rcode::SERVFAIL } else { header.rcode() };
    let Some((chain, mut addresses)) = follow(&message, &question.name) else { return Replied::Garbled };
    // An address of a type that was not asked for is not passed on and opens nothing.
    addresses.retain(|(address, _)| match question.kind {
        Rtype::A => address.is_ipv4(),
        Rtype::AAAA => address.is_ipv6(),
        kind => kind == Rtype::ANY,
    });
    Replied::Reply(Reply { message, chain, rcode, addresses })
}

type Parsed<'a> = Record<ParsedName<&'a [u8]>, AllRecordData<&'a [u8], ParsedName<&'a [u8]>>>;

/// The records of a section. None if one of them cannot be parsed.
fn records<'a>(section: RecordSection<'a, Vec<u8>>) -> Option<Vec<Parsed<'a>>> {
    section.limit_to_in::<AllRecordData<_, _>>().collect::<Result<Vec<_>, _>>().ok()
}

/// The chain of aliases in the answer, and the addresses at its end. Records about other names are
/// ignored.
#[expect(clippy::type_complexity, reason = "two lists")]
fn follow(
    message: &Message<Vec<u8>>,
    asked: &Name<Vec<u8>>,
) -> Option<(Vec<Name<Vec<u8>>>, Vec<(IpAddr, u32)>)> {
    let records = records(message.answer().ok()?)?;
    let mut chain = vec![asked.clone()];
    while chain.len() <= CHAIN {
        let last = chain.last()?;
        let next = records.iter().find_map(|record| match record.data() {
            AllRecordData::Cname(to) if record.owner().name_eq(last) => Some(to.cname().to_vec()),
            _ => None,
        });
        match next {
            // A loop of aliases has no address.
            Some(next) if !chain.contains(&next) => chain.push(next),
            _ => break,
        }
    }
    let last = chain.last()?;
    let of_last = records.iter().filter(|record| record.owner().name_eq(last));
    let addresses = of_last.filter_map(|record| {
        let address = match record.data() {
            AllRecordData::A(a) => IpAddr::V4(a.addr()),
            AllRecordData::Aaaa(aaaa) => IpAddr::V6(aaaa.addr()),
            _ => return None,
        };
        Some((address, record.ttl().as_secs().min(LONGEST)))
    });
    let addresses = addresses.collect();
    Some((chain, addresses))
}

impl Reply {
    /// Builds the client's answer: the records of the alias chain, the addresses that `keep`
    /// accepts, and of the rest the SOA record, with the TTL of a negative answer.
    pub(crate) fn answer(
        &self,
        question: &Question,
        datagram: bool,
        keep: impl Fn(IpAddr) -> bool,
    ) -> Vec<u8> {
        let (answers, authority) = (self.message.answer(), self.message.authority());
        let answers = answers.ok().and_then(records).unwrap_or_default();
        let authority = authority.ok().and_then(records).unwrap_or_default();
        let ttl = |record: &Parsed<'_>| Ttl::from_secs(record.ttl().as_secs().min(LONGEST));
        let is_wanted = |record: &&Parsed<'_>| {
            let kind = record.rtype();
            let of_type =
                [question.kind, Rtype::CNAME, Rtype::RRSIG].contains(&kind) || question.kind == Rtype::ANY;
            let kept = match record.data() {
                AllRecordData::A(a) => keep(a.addr().into()),
                AllRecordData::Aaaa(aaaa) => keep(aaaa.addr().into()),
                _ => true,
            };
            of_type && kept && self.chain.iter().any(|name| record.owner().name_eq(name))
        };
        let soa: Vec<Parsed<'_>> = authority
            .into_iter()
            .filter(|record| matches!(record.data(), AllRecordData::Soa(_)))
            .take(1)
            .collect();
        let exists = answers.iter().filter(is_wanted).any(|record| record.rtype() != Rtype::CNAME);
        let soa = if exists { None } else { soa.first().map(|soa| (soa, ttl(soa))) };
        question.answer(self.rcode, None, datagram, soa, |builder| {
            for record in answers.iter().filter(is_wanted) {
                builder.push((record.owner(), record.class(), ttl(record), record.data()))?;
            }
            Ok(())
        })
    }
}
