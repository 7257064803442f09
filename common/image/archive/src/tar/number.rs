//! Numbers in headers: octal text, or the binary form that GNU tar and star use for larger numbers.

/// Parses a number field. It holds octal digits, with leading spaces and a space or NUL at the end, or a
/// base-256 big-endian number with the top bit set. An empty field is 0.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement in all bits but the top one. Bit 6 is the sign.
        let negative = first & 0x40 != 0;
        let mut value: i128 = i128::from(first & 0x7f) - if negative { 0x80 } else { 0 };
        for &byte in rest {
            value = value.checked_mul(256)? + i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let start = field.iter().position(|&byte| byte != b' ' && byte != 0).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|&byte| byte == b' ' || byte == 0).unwrap_or(digits.len());
    // Anything after a NUL is ignored.
    let rest = digits[end..].split(|&byte| byte == 0).next().unwrap_or_default();
    if rest.iter().any(|&byte| byte != b' ') {
        return None;
    }
    digits[..end].iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Writes `value` as octal digits and a NUL. Returns false if it does not fit.
pub(super) fn write_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    if digits * 3 < 64 && value >> (digits * 3) != 0 {
        return false;
    }
    for (at, place) in field[..digits].iter_mut().rev().enumerate() {
        *place = b'0' + ((value >> (3 * at)) & 7) as u8;
    }
    field[digits] = 0;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777", Some(0o77777777777)),
            (b"0000648\0", None),
            (b"12 34  \0", None),
            (b"12\x0034567", Some(0o12)),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\0\0\x2a", Some(42)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x7f\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(parse(field), value, "{field:?}");
        }
    }

    #[test]
    fn octal_comes_back() {
        for value in [0, 1, 0o644, 0o7777777] {
            let mut field = [0; 8];
            assert!(write_octal(&mut field, value));
            assert_eq!(parse(&field), Some(value as i64));
        }
        assert!(!write_octal(&mut [0; 8], 0o10000000));
    }
}
