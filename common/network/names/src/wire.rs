//! Questions and answers on the wire (RFC 1035, with EDNS of RFC 6891).

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

/// The most that is sent by UDP: it passes every path of today in one piece (DNS flag day 2020).
pub(crate) const UDP_SIZE: u16 = 1232;
/// What a client without EDNS takes (RFC 1035, 2.3.4).
const PLAIN_SIZE: u16 = 512;
/// The longest that an answer counts, in seconds.
const LONGEST: u32 = 86_400;
/// The most names that one name leads to.
const CHAIN: usize = 16;

/// A question of a client.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    name: Name<Vec<u8>>,
    /// The labels of the name in lower case, the first one first; without the root.
    labels: Vec<Vec<u8>>,
    /// The type that it asks for.
    pub kind: Rtype,
    recursion: bool,
    unchecked: bool,
    edns: Option<Edns>,
}

/// What a client says of itself.
#[derive(Debug, Clone, Copy)]
struct Edns {
    size: u16,
    dnssec: bool,
}

/// What to do with a client's message.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is a question.
    Question(Question),
    /// It gets this answer.
    Refused(Vec<u8>),
    /// It is nothing that could be answered.
    Nothing,
}

/// Reads a message of a client.
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

/// An answer that is made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// These addresses, for so many seconds. Those of another type than was asked for are left out.
    Addresses(Vec<IpAddr>, u32),
    /// The names of an address, for so many seconds.
    Pointers(Vec<String>, u32),
    /// The name exists, and has nothing of the type.
    NoData,
    /// There is no such name.
    NoSuchName,
    /// It may not be asked for. Clients see that there is no such name, and those with EDNS why (RFC 8914). Another code would
    /// make them wait, or ask again: musl's resolver takes REFUSED for no answer at all.
    Prohibited,
    /// There is no answer.
    Failure,
}

impl Question {
    /// The labels of the name in lower case, the first one first; without the root.
    pub fn labels(&self) -> &[Vec<u8>] {
        &self.labels
    }

    /// The answer to it, of a name that has these addresses: those of the type that it asks for. With none of them, the name is
    /// there all the same.
    pub fn of_addresses(&self, addresses: Vec<IpAddr>, seconds: u32) -> Own {
        match self.asked_for(addresses) {
            none if none.is_empty() => Own::NoData,
            addresses => Own::Addresses(addresses, seconds),
        }
    }

    /// Those of the addresses that are of the type that it asks for.
    pub fn asked_for(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let is_asked = |address: &IpAddr| match self.kind {
            Rtype::A => address.is_ipv4(),
            Rtype::AAAA => address.is_ipv6(),
            _ => false,
        };
        addresses.into_iter().filter(is_asked).collect()
    }

    /// The name as text, without a dot at its end; `.` for the root. Bytes that are not of a host name are escaped.
    pub fn text(&self) -> String {
        let text = self.name.to_string().to_ascii_lowercase();
        if text.is_empty() { ".".to_owned() } else { text }
    }

    /// The same question for a server.
    pub(crate) fn query(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        let header = builder.header_mut();
        header.set_id(id);
        header.set_rd(true);
        header.set_cd(self.unchecked);
        let mut builder = builder.question();
        // One question fits.
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

    /// How much the client takes by UDP.
    fn limit(&self) -> usize {
        usize::from(self.edns.map_or(PLAIN_SIZE, |edns| edns.size.min(UDP_SIZE)))
    }

    /// The answer, for UDP (`datagram`) cut to what the client takes.
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

    /// Makes an answer; `fill` puts records into it, and `missing` says for how long there is nothing.
    fn answer(
        &self,
        rcode: Rcode,
        error: Option<ExtendedErrorCode>,
        datagram: bool,
        missing: Option<(&Parsed<'_>, Ttl)>,
        fill: impl FnOnce(&mut AnswerBuilder<StaticCompressor<Vec<u8>>>) -> Result<(), PushError>,
    ) -> Vec<u8> {
        // A vector takes everything up to the 64 KiB of a message.
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
            // Without it the answer is one that is not kept.
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

    /// What says that the client is to ask by TCP.
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

    /// The answerer's side of EDNS, where the client has one.
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

/// An answer of a server to one of our questions.
#[derive(Debug)]
pub(crate) struct Reply {
    message: Message<Vec<u8>>,
    /// The name that was asked for, and those that it leads to.
    chain: Vec<Name<Vec<u8>>>,
    /// What it says.
    pub(crate) rcode: Rcode,
    /// The addresses, each with the seconds for which it counts.
    pub(crate) addresses: Vec<(IpAddr, u32)>,
}

/// What came back from a server.
#[derive(Debug)]
pub(crate) enum Replied {
    /// The answer.
    Reply(Reply),
    /// The answer is longer than UDP takes.
    Truncated,
    /// It is no answer to this question; perhaps somebody guesses.
    Other,
    /// It is the server's answer, and cannot be read.
    Garbled,
}

/// Reads what a server sent as the answer to `question`, which went out with this id.
pub(crate) fn reply(bytes: &[u8], question: &Question, id: u16) -> Replied {
    let Ok(message) = Message::from_octets(bytes.to_vec()) else { return Replied::Other };
    let header = message.header();
    if !header.qr() || header.id() != id || header.opcode() != Opcode::QUERY {
        return Replied::Other;
    }
    match message.sole_question() {
        Ok(asked) if asked.qtype() == question.kind && asked.qname().name_eq(&question.name) => {}
        // Some servers leave the question out where they do not understand it.
        Err(_) if header.rcode() != Rcode::NOERROR && message.header_counts().qdcount() == 0 => {}
        _ => return Replied::Other,
    }
    if header.tc() {
        return Replied::Truncated;
    }
    let extended = message.opt().is_some_and(|opt| opt.rcode(header) != OptRcode::from(header.rcode()));
    let rcode = if extended { Rcode::SERVFAIL } else { header.rcode() };
    let Some((chain, mut addresses)) = follow(&message, &question.name) else { return Replied::Garbled };
    // What was not asked for is not answered, and opens nothing.
    addresses.retain(|(address, _)| match question.kind {
        Rtype::A => address.is_ipv4(),
        Rtype::AAAA => address.is_ipv6(),
        kind => kind == Rtype::ANY,
    });
    Replied::Reply(Reply { message, chain, rcode, addresses })
}

type Parsed<'a> = Record<ParsedName<&'a [u8]>, AllRecordData<&'a [u8], ParsedName<&'a [u8]>>>;

/// The records of a section; none if one of them cannot be read.
fn records<'a>(section: RecordSection<'a, Vec<u8>>) -> Option<Vec<Parsed<'a>>> {
    section.limit_to_in::<AllRecordData<_, _>>().collect::<Result<Vec<_>, _>>().ok()
}

/// The names that the answer leads through, and the addresses at their end. Records about other names do not count.
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
            // A ring leads nowhere.
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
    /// What the client gets: the records of the names that it leads to, with addresses that `keep` takes, and of the rest what says
    /// for how long something does not exist.
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
