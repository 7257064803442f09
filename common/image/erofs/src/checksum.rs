//! CRC-32C as the kernel's `crc32c` function computes it: it starts with all ones and is not inverted at the
//! end.

/// Castagnoli's polynomial, bit-reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of `data`. The data is small, so bit by bit is fast enough.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    /// From RFC 3720, appendix B.4, which inverts the result.
    #[test]
    fn known_values() {
        assert_eq!(!super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(!super::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!super::crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
