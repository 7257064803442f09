//! The nf_tables expressions that rules are made of, and the parts that all nf_tables messages
//! share (linux/netfilter/nf_tables.h). Attributes are in the order of the kernel's dumps.

use std::net::IpAddr;

use crate::attribute::{Attribute, string};

/// An expression.
pub type Expression = Vec<Attribute>;

/// The type of a list's members.
pub const LIST_ELEM: u16 = 1;
/// A flag of a set: its elements are ranges.
pub const SET_INTERVAL: u32 = 4;
/// A flag of a set: its elements are ranges of a concatenation.
pub const SET_CONCAT: u32 = 0x80;
/// A flag of an element: it is the end of a range.
pub const ELEMENT_INTERVAL_END: u32 = 1;

/// The first register.
pub const REGISTER_1: u32 = 1;
/// A payload base: the link-layer header.
pub const LINK: u32 = 0;
/// A payload base: the network header.
pub const NETWORK: u32 = 1;
/// A payload base: the transport header.
pub const TRANSPORT: u32 = 2;
/// A key of `meta`: the transport protocol.
pub const META_L4PROTO: u32 = 16;
/// A verdict: the packet is dropped (NF_DROP).
pub const DROP: i32 = 0;
/// A verdict: the packet is accepted by this chain (NF_ACCEPT).
pub const ACCEPT: i32 = 1;
/// A verdict: evaluation continues in another chain (NFT_GOTO).
pub const GOTO: i32 = -4;

/// The attributes that name a set or a chain in a table.
pub fn named(table: &str, name: &str) -> Vec<Attribute> {
    vec![Attribute::string(1, table), Attribute::string(2, name)]
}

/// An attribute of this type that holds a value.
pub fn data(kind: u16, bytes: Vec<u8>) -> Attribute {
    const VALUE: u16 = 1;
    Attribute::Nested(kind, vec![Attribute::Bytes(VALUE, bytes)])
}

/// The bytes of an address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The big-endian number plus one. None if it would overflow.
pub fn following(mut number: Vec<u8>) -> Option<Vec<u8>> {
    for byte in number.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(number);
        }
    }
    None
}

/// User data that nft shows as a comment: type 0, length, text, zero byte. The text has at most 253
/// bytes.
pub fn comment(text: &str) -> Vec<u8> {
    [&[0, text.len() as u8 + 1][..], text.as_bytes(), &[0]].concat()
}

/// Reads the comment from user data.
pub fn read_comment(bytes: &[u8]) -> Option<String> {
    let length = usize::from(*bytes.get(1)?);
    let text = bytes.get(2..2 + length)?;
    (bytes[0] == 0).then(|| string(text))
}

/// The attribute that holds a rule's expressions.
pub fn list(expressions: Vec<Expression>) -> Attribute {
    let member = |expression| Attribute::Nested(LIST_ELEM, expression);
    Attribute::Nested(4, expressions.into_iter().map(member).collect())
}

/// The number of the register at a word offset: a 16-byte register if one starts there, otherwise a
/// 4-byte one, as in the kernel's dumps.
pub fn register(word: u32) -> u32 {
    const REGISTER32_00: u32 = 8;
    if word.is_multiple_of(4) { REGISTER_1 + word / 4 } else { REGISTER32_00 + word }
}

/// An expression with this name and these attributes.
pub fn expression(name: &str, attributes: Vec<Attribute>) -> Expression {
    let mut expression = vec![Attribute::string(1, name)];
    if !attributes.is_empty() {
        expression.push(Attribute::Nested(2, attributes));
    }
    expression
}

/// Attributes with numeric values.
pub fn numbers<const N: usize>(numbers: [(u16, u32); N]) -> Vec<Attribute> {
    numbers.map(|(kind, value)| Attribute::number(kind, value)).to_vec()
}

/// Loads packet metadata into a register.
pub fn meta(key: u32, into: u32) -> Expression {
    expression("meta", numbers([(2, key), (1, into)]))
}

/// Loads bytes of the packet into a register. Offset and length are in bytes.
pub fn payload(base: u32, offset: u32, length: u32, into: u32) -> Expression {
    expression("payload", numbers([(1, into), (2, base), (3, offset), (4, length)]))
}

/// Continues with the next expression if the first register equals `bytes`, or with `not`, if it
/// differs.
pub fn compare(not: bool, bytes: &[u8]) -> Expression {
    let mut attributes = numbers([(1, REGISTER_1), (2, u32::from(not))]);
    attributes.push(data(3, bytes.to_vec()));
    expression("cmp", attributes)
}

/// Clears the bits of the first register that are not in the mask.
pub fn mask(bytes: &[u8]) -> Expression {
    let mut attributes = numbers([(1, REGISTER_1), (2, REGISTER_1), (3, bytes.len() as u32)]);
    attributes.extend([data(4, bytes.to_vec()), data(5, vec![0; bytes.len()])]);
    expression("bitwise", attributes)
}

/// Continues with the next expression if the value that starts in the first register is in the set,
/// or with `not`, if it is not.
pub fn lookup(set: &str, not: bool) -> Expression {
    let mut attributes = vec![Attribute::string(1, set), Attribute::number(2, REGISTER_1)];
    attributes.extend(not.then(|| Attribute::number(5, 1)));
    expression("lookup", attributes)
}

/// Loads the type of the destination address (RTN_…) into the first register.
pub fn destination_type() -> Expression {
    let (address_type, destination) = (3, 2);
    expression("fib", numbers([(1, REGISTER_1), (2, address_type), (3, destination)]))
}

/// Continues with the next expression if no route to the packet's source leads back to the link that
/// the packet came from: `fib saddr . iif oif missing`.
pub fn no_route_back() -> Vec<Expression> {
    // NFT_FIB_RESULT_OIF; NFTA_FIB_F_SADDR, NFTA_FIB_F_IIF and NFTA_FIB_F_PRESENT.
    let (link, is_present) = (1, 1 | 1 << 3 | 1 << 5);
    vec![expression("fib", numbers([(1, REGISTER_1), (2, link), (3, is_present)])), compare(false, &[0])]
}

/// Issues a verdict. `chain` is the target of [`GOTO`].
pub fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let mut parts = vec![Attribute::number(1, code.cast_unsigned())];
    parts.extend(chain.map(|chain| Attribute::string(2, chain)));
    let verdict = Attribute::Nested(2, vec![Attribute::Nested(2, parts)]);
    expression("immediate", vec![Attribute::number(1, 0), verdict])
}
