//! Messages on a stream, each preceded by its length (RFC 1035, 4.2.2).

/// The longest message, in bytes.
pub(crate) const MESSAGE: usize = 65_535;

/// The message with its length. Empty if the message is too long.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    match u16::try_from(message.len()) {
        Ok(length) => [&length.to_be_bytes(), message].concat(),
        Err(_) => Vec::new(),
    }
}

/// Takes the first message from the received bytes. None if it is not complete.
pub(crate) fn take(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    if received.len() < 2 + length {
        return None;
    }
    let message = received[2..2 + length].to_vec();
    received.drain(..2 + length);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_pieces_and_together() {
        let mut received = Vec::new();
        let mut taken = Vec::new();
        for piece in [&[0][..], &[3, b'a'], b"bc", &[0, 1, b'd', 0, 0, 0]] {
            received.extend(piece);
            while let Some(message) = take(&mut received) {
                taken.push(message);
            }
        }
        assert_eq!(taken, [b"abc".to_vec(), b"d".to_vec(), Vec::new()]);
        assert_eq!(received, [0]);
        assert_eq!(framed(b"abc"), [0, 3, b'a', b'b', b'c']);
    }
}
