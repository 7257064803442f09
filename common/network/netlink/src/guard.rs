//! A tc classifier that protects 127.0.0.0/8 where `route_localnet` is on.
//!
//! With `route_localnet`, neighbours on the link could reach services on this host's loopback
//! (CVE-2020-8558). An nf_tables rule against this would be lost with `nft flush ruleset`, which a
//! firewall runs when it restarts. A classifier belongs to its link and stays as long as the link
//! does.
//!
//! On a bridge of ours, each port has a classifier. On the bridge itself it would act too late:
//! with br_netfilter, a container's answer to 127.0.0.1 is translated back before the bridge
//! receives it, and then has that destination. On another program's bridge, ports come and go
//! without our knowledge, so the classifier is on the bridge. With br_netfilter, ports published on
//! 127.0.0.1 do not answer there.

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use crate::{
    Connection, Error, Refusal, Request,
    attribute::{Attribute, find, string},
};

// linux/rtnetlink.h
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
// linux/pkt_cls.h
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// The return values of the program: continue with the next classifier, or drop the packet.
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
// linux/pkt_sched.h
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `struct tcmsg`.
const TCMSG: usize = 20;

/// The preference and the handle of our classifier. Both are the number that marks our addresses
/// and routes.
const PREFERENCE: u32 = 83;
const HANDLE: u32 = 83;

/// An instruction of classic BPF: code, jump if true, jump if false, operand.
type Instruction = (u16, u8, u8, u32);

/// Drops IPv4 packets from or to 127.0.0.0/8 (SKF_AD_OFF + SKF_AD_PROTOCOL and SKF_NET_OFF,
/// linux/filter.h).
const PROGRAM: [Instruction; 10] = [
    (0x28, 0, 0, 0xffff_f000), // A = the protocol
    (0x15, 0, 6, 0x0800),      // IPv4, or go on
    (0x20, 0, 0, 0xfff0_0010), // A = the destination
    (0x54, 0, 0, 0xff00_0000), // its first byte
    (0x15, 4, 0, 0x7f00_0000), // drop
    (0x20, 0, 0, 0xfff0_000c), // A = the source
    (0x54, 0, 0, 0xff00_0000),
    (0x15, 1, 0, 0x7f00_0000), // drop
    (0x06, 0, 0, TC_ACT_UNSPEC),
    (0x06, 0, 0, TC_ACT_SHOT),
];

/// The program as an array of `struct sock_filter`.
fn program() -> Vec<u8> {
    let bytes = |(code, yes, no, operand): &Instruction| {
        [&code.to_ne_bytes()[..], &[*yes, *no], &operand.to_ne_bytes()].concat()
    };
    PROGRAM.iter().flat_map(bytes).collect()
}

fn number(kind: u16, value: u32) -> Attribute {
    Attribute::Bytes(kind, value.to_ne_bytes().to_vec())
}

/// A message about a queueing discipline or a classifier.
fn message(kind: u16, flags: u16, link: u32, ids: [u32; 3], attributes: &[Attribute]) -> Request {
    let mut body = vec![0; 4];
    body.extend(link.to_ne_bytes());
    ids.iter().for_each(|id| body.extend(id.to_ne_bytes()));
    attributes.iter().for_each(|attribute| attribute.write(&mut body));
    Request { kind, flags, body }
}

/// A message about the guard. One number holds its preference and its protocol, which is ETH_P_ALL.
fn about(kind: u16, flags: u16, link: u32, attributes: &[Attribute]) -> Request {
    let all_protocols = u32::from(3_u16.to_be());
    message(kind, flags, link, [HANDLE, INGRESS, PREFERENCE << 16 | all_protocols], attributes)
}

fn options() -> Vec<Attribute> {
    let length = Attribute::Bytes(TCA_BPF_OPS_LEN, (PROGRAM.len() as u16).to_ne_bytes().to_vec());
    let program = Attribute::Bytes(TCA_BPF_OPS, program());
    vec![length, program, number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)]
}

/// The classifiers of the link in one direction.
fn classifiers(connection: &Connection, link: u32, parent: u32) -> Result<Vec<Vec<u8>>, Refusal> {
    let list = message(RTM_GETTFILTER, NLM_F_DUMP, link, [0, parent, 0], &[]);
    match connection.socket.request(&list) {
        // Without the queueing discipline there are no classifiers.
        Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL) => Ok(Vec::new()),
        listed => Ok(listed?.into_iter().map(|(_, payload)| payload).collect()),
    }
}

fn is_ours(classifier: &[u8]) -> bool {
    let attributes = classifier.get(TCMSG..).unwrap_or_default();
    let of_bpf = find(attributes, TCA_KIND).is_some_and(|kind| string(kind) == "bpf");
    let program_is = |bytes: &[u8]| find(bytes, TCA_BPF_OPS).is_some_and(|found| found == program());
    of_bpf && find(attributes, TCA_OPTIONS).is_some_and(program_is)
}

/// Whether the link with this index has the guard.
pub(crate) fn stands(connection: &Connection, link: u32) -> Result<bool, Error> {
    let failed = |refusal| Error::new("list", format!("classifiers of link {link}"), refusal);
    Ok(classifiers(connection, link, INGRESS).map_err(failed)?.iter().any(|found| is_ours(found)))
}

/// Makes sure that the link has the guard. False if the kernel has no BPF classifiers.
pub(crate) fn set(connection: &Connection, link: u32) -> Result<bool, Error> {
    if stands(connection, link)? {
        return Ok(true);
    }
    const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    let ids = [CLSACT, TC_H_CLSACT, 0];
    let discipline = message(RTM_NEWQDISC, CREATE, link, ids, &[Attribute::string(TCA_KIND, "clsact")]);
    let kind = Attribute::string(TCA_KIND, "bpf");
    let guard = about(RTM_NEWTFILTER, CREATE, link, &[kind, Attribute::Nested(TCA_OPTIONS, options())]);
    let ask = |request| connection.socket.request(request).map(drop);
    let made = match ask(&discipline) {
        // Another program made the discipline and has classifiers there. Ours uses the same one.
        Err(refusal) if refusal.errno == Errno::EEXIST => ask(&guard),
        made => made.and_then(|()| ask(&guard)),
    };
    match made {
        Ok(()) => Ok(true),
        Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(false),
        Err(refusal) => Err(Error::new("add", format!("classifier of link {link}"), refusal)),
    }
}

/// Removes the guard, and the discipline unless another program has a classifier there.
pub(crate) fn remove(connection: &Connection, link: u32) -> Result<(), Error> {
    let failed = |refusal| Error::new("remove", format!("classifier of link {link}"), refusal);
    if !stands(connection, link)? {
        return Ok(());
    }
    let gone = |answer: Result<Vec<_>, Refusal>| match answer {
        Err(refusal) if !operation::is_gone(&refusal.errno) => Err(failed(refusal)),
        _ => Ok(()),
    };
    gone(connection.socket.request(&about(RTM_DELTFILTER, NLM_F_ACK, link, &[])))?;
    for direction in [INGRESS, EGRESS] {
        if !classifiers(connection, link, direction).map_err(failed)?.is_empty() {
            return Ok(());
        }
    }
    gone(connection.socket.request(&message(RTM_DELQDISC, NLM_F_ACK, link, [CLSACT, TC_H_CLSACT, 0], &[])))
}

/// The commands that set the guard up.
pub(crate) fn commands(link: &str) -> Vec<String> {
    let instruction = |(code, yes, no, operand): &Instruction| format!("{code} {yes} {no} {operand}");
    let program: Vec<_> = PROGRAM.iter().map(instruction).collect();
    let link = operation::quote(link);
    vec![
        format!("tc qdisc add dev {link} clsact"),
        format!(
            "tc filter add dev {link} ingress pref {PREFERENCE} handle {HANDLE:#x} protocol all bpf direct-action bytecode '{},{}'",
            PROGRAM.len(),
            program.join(",")
        ),
    ]
}
