//! Ports that the kernel must not choose by itself: `net.ipv4.ip_local_reserved_ports`. A socket
//! that is not bound, or is bound to port 0, gets a port of `ip_local_port_range`, also for
//! outgoing connections. None of them may get a published port.

use std::{
    fs::{self, File},
    io,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::Path,
};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The variable's name for `sysctl`.
pub(crate) const NAME: &str = "net.ipv4.ip_local_reserved_ports";

/// The ports that the kernel chooses from (`ip_local_port_range`).
///
/// # Errors
/// When the range cannot be read or parsed.
pub fn chosen_from() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string(RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::other(format!("{text:?} is not a range of ports"))),
    }
}

/// The reserved ports, with one bit for each port.
#[derive(Debug, Clone)]
pub struct Reserved(Vec<bool>);

impl Reserved {
    /// Reads the reserved ports of this network namespace.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(RESERVED)?))
    }

    /// Parses the kernel's format: `8080,9000-9010`.
    fn parse(text: &str) -> Self {
        let mut bits = vec![false; 1 << 16];
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
            (first..=last).for_each(|port| bits[usize::from(port)] = true);
        }
        Self(bits)
    }

    /// Whether this port is reserved.
    pub fn has(&self, port: u16) -> bool {
        self.0[usize::from(port)]
    }
}

/// The ports in the kernel's format.
pub(crate) fn text(ports: impl IntoIterator<Item = u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let words = ranges.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(",")
}

/// Reserves these ports in addition.
pub(crate) fn add(ports: &[u16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    // A write at an offset other than 0 adds to the list, so concurrent changes are not lost.
    write(&text(ports.iter().copied()), 1)
}

/// Releases these ports. Ports that are not reserved are ignored.
pub(crate) fn remove(ports: &[u16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut reserved = Reserved::read()?;
    if !ports.iter().any(|port| reserved.has(*port)) {
        return Ok(());
    }
    ports.iter().for_each(|port| reserved.0[usize::from(*port)] = false);
    write(&text((0..=u16::MAX).filter(|port| reserved.has(*port))), 0)
}

fn write(text: &str, offset: u64) -> io::Result<()> {
    let file = File::options().write(true).open(Path::new(RESERVED))?;
    file.write_all_at(format!("{text}\n").as_bytes(), offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_writes_and_takes_them() {
        for list in ["", "1", "8080,9000-9010", "1-65535", "32768,32770,60999-61000"] {
            let reserved = Reserved::parse(&format!("{list}\n"));
            assert_eq!(text((0..=u16::MAX).filter(|port| reserved.has(*port))), list);
        }
        let reserved = Reserved::parse("9000-9010\n");
        assert_eq!([8999, 9000, 9010, 9011].map(|port| reserved.has(port)), [false, true, true, false]);
    }
}
