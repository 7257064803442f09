//! Ports that the kernel is not to choose: `net.ipv4.ip_local_reserved_ports`. A program that binds no port, or port 0, gets one
//! of `ip_local_port_range`; and so does a connection. None of them is to get a published one.

use std::{
    fs::{self, File},
    io,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::Path,
};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Its name for `sysctl`.
pub(crate) const NAME: &str = "net.ipv4.ip_local_reserved_ports";

/// The ports that the kernel chooses from: `ip_local_port_range`.
///
/// # Errors
/// When it cannot be read; when it is no range.
pub fn chosen_from() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string(RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::other(format!("{text:?} is not a range of ports"))),
    }
}

/// The ports that are reserved: a bit for each.
#[derive(Debug, Clone)]
pub struct Reserved(Vec<bool>);

impl Reserved {
    /// Those of this network namespace.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(RESERVED)?))
    }

    /// As the kernel writes them: `8080,9000-9010`.
    fn parse(text: &str) -> Self {
        let mut bits = vec![false; 1 << 16];
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
            (first..=last).for_each(|port| bits[usize::from(port)] = true);
        }
        Self(bits)
    }

    /// Whether this port is among them.
    pub fn has(&self, port: u16) -> bool {
        self.0[usize::from(port)]
    }
}

/// As the kernel takes them.
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

/// Reserves these ports as well.
pub(crate) fn add(ports: &[u16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    // What is not written at the beginning is added to what there is: nobody's ports get lost in between.
    write(&text(ports.iter().copied()), 1)
}

/// Reserves them no longer. What was never reserved is fine.
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
