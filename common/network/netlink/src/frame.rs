//! The framing of netlink messages (linux/netlink.h): a 16-byte header, and the kernel's
//! acknowledgement.

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};

use crate::{Refusal, attribute};

const HEADER: usize = 16;
/// The attribute with an error's text (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// A message to the kernel: its type, its flags, and the content after the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The message type.
    pub kind: u16,
    /// The flags; `NLM_F_REQUEST` is always added.
    pub flags: u16,
    /// The content after the header.
    pub body: Vec<u8>,
}

impl Request {
    /// Appends the message to a datagram.
    pub(crate) fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 4]);
        out.extend(self.kind.to_ne_bytes());
        out.extend((self.flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]); // The port: the kernel knows the socket.
        out.extend(&self.body);
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Frame<'a> {
    /// The first message of a datagram, and the rest. None if no complete message is left.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = word(bytes, 0)? as usize;
        let frame = Self {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        Some((frame, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// The errno of the kernel's answer, or 0 for success. None for a message with content. Does
    /// not allocate.
    pub(crate) fn code(&self) -> Option<i32> {
        match self.kind {
            NLMSG_ERROR => word(self.payload, 0).map(|code| (code as i32).saturating_neg()),
            // NLMSG_DONE without a code ends a list.
            NLMSG_DONE => Some(word(self.payload, 0).map_or(0, |code| (code as i32).saturating_neg())),
            _ => None,
        }
    }

    /// The kernel's acknowledgement of a request: success or a refusal. None for a message with
    /// content.
    pub(crate) fn verdict(&self) -> Option<Result<(), Refusal>> {
        let is_error = self.kind == NLMSG_ERROR;
        let Some(code) = self.code() else {
            return is_error.then(|| Err(Errno::EBADMSG.into()));
        };
        if code == 0 {
            return Some(Ok(()));
        }
        // An error repeats the request's header, or the whole request if the answer is not capped.
        let repeated = match (is_error, self.flags & NLM_F_CAPPED != 0) {
            (false, _) => Some(0),
            (true, true) => Some(HEADER),
            (true, false) => word(self.payload, 4).map(|length| (length as usize).next_multiple_of(4)),
        };
        let attributes = match (self.flags & NLM_F_ACK_TLVS != 0, repeated) {
            (true, Some(repeated)) => self.payload.get(4 + repeated..).unwrap_or_default(),
            _ => &[],
        };
        let text = attribute::find(attributes, ERROR_TEXT).map(attribute::string);
        Some(Err(Refusal { errno: Errno::from_raw(code), text: text.filter(|text| !text.is_empty()) }))
    }
}

/// The messages of a datagram. An incomplete message yields an error and ends the iteration.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, Errno>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((frame, rest)) = Frame::first(bytes) else {
            bytes = &[];
            return Some(Err(Errno::EBADMSG));
        };
        bytes = rest;
        Some(Ok(frame))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, flags: u16, body: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        Request { kind, flags, body }.write(7, &mut out);
        out
    }

    #[test]
    fn written_as_the_kernel_reads_it() {
        #[rustfmt::skip]
        assert_eq!(datagram(18, 4, vec![1]), [17, 0, 0, 0, 18, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn what_is_not_whole_is_an_error_and_not_the_end() {
        let whole = [datagram(18, 0, vec![1, 2, 3, 4]), datagram(19, 0, vec![])].concat();
        let kinds = |bytes: &[u8]| frames(bytes).map(|frame| frame.map(|f| f.kind)).collect::<Vec<_>>();
        assert_eq!(kinds(&whole), [Ok(18), Ok(19)]);
        for length in 21..whole.len() {
            assert_eq!(kinds(&whole[..length]), [Ok(18), Err(Errno::EBADMSG)], "{length} bytes");
        }
        assert_eq!(kinds(&[3; 20]), [Err(Errno::EBADMSG)], "a length that lies");
        assert_eq!(kinds(&[0; 20]), [Err(Errno::EBADMSG)], "a length of nothing");
    }

    #[test]
    fn the_kernels_word_and_its_text() {
        let code = |errno: i32| (-errno).to_ne_bytes().to_vec();
        let header = [16, 0, 0, 0, 18, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0].to_vec();
        let mut text = Vec::new();
        attribute::Attribute::string(ERROR_TEXT, "no room").write(&mut text);
        let refused = |errno, text: &str| {
            let text = (!text.is_empty()).then(|| text.to_owned());
            Some(Err(Refusal { errno, text }))
        };
        for (kind, flags, body, verdict) in [
            (18, 0, code(1), None),
            (NLMSG_ERROR, 0, [code(0), header.clone()].concat(), Some(Ok(()))),
            (NLMSG_DONE, 0, vec![], Some(Ok(()))),
            (NLMSG_DONE, 0, code(12), refused(Errno::ENOMEM, "")),
            (NLMSG_ERROR, 0, [code(17), header.clone()].concat(), refused(Errno::EEXIST, "")),
            (
                NLMSG_ERROR,
                NLM_F_CAPPED | NLM_F_ACK_TLVS,
                [code(28), header.clone(), text.clone()].concat(),
                refused(Errno::ENOSPC, "no room"),
            ),
            (
                NLMSG_ERROR,
                NLM_F_ACK_TLVS,
                [code(28), header.clone(), text.clone()].concat(),
                refused(Errno::ENOSPC, "no room"),
            ),
            (NLMSG_DONE, NLM_F_ACK_TLVS, [code(28), text].concat(), refused(Errno::ENOSPC, "no room")),
            (NLMSG_ERROR, NLM_F_ACK_TLVS, code(1), refused(Errno::EPERM, "")),
        ] {
            let bytes = datagram(kind, flags, body);
            let frame = frames(&bytes).next().unwrap().unwrap();
            assert_eq!(frame.verdict(), verdict, "{kind} {flags:x}");
        }
    }
}
