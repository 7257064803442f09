use std::{fs, io::Read, time::Duration};

use nix::unistd::{SysconfVar, sysconf};
use operation::unless_gone;

use crate::{Error, error::Result};

/// The content of `/proc/pid/stat`: the name of a process, and a line of numbers (proc(5)).
#[derive(Debug)]
pub struct Stat {
    /// The name of its program; the kernel keeps 15 bytes.
    pub name: String,
    /// Its state, as a letter.
    pub state: char,
    /// The pid of its parent.
    pub parent: i32,
    /// Its start time, in clock ticks since boot.
    pub start_time: u64,
    /// Whether it has executed a program of its own since it was forked, and is more than a fork of its parent.
    /// This stays true after its end, until it is reaped.
    pub has_executed: bool,
    /// The third field, and all fields behind it.
    fields: String,
}

impl Stat {
    /// Reads the file of the process `pid`; none if the process is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(pid: i32) -> Result<Option<Self>> {
        // The kernel gives the fifty numbers and the name in one read.
        let mut text = [0; 2048];
        let path = format!("/proc/{pid}/stat");
        let length = fs::File::open(&path).and_then(|mut file| file.read(&mut text));
        let Some(length) = unless_gone(length).map_err(Error::at("read", &path))? else { return Ok(None) };
        match Self::parse(&text[..length]) {
            Some(stat) => Ok(Some(stat)),
            None => Err(Error::system("read", path, "it is not as proc(5) describes it")),
        }
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // The second field, the name in parentheses, may contain anything.
        let before = text.iter().position(|byte| *byte == b'(')?;
        let after = text.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(text.get(before + 1..after)?).into_owned();
        let fields = str::from_utf8(&text[after + 1..]).ok()?.to_owned();
        let number = |place| number(&fields, place);
        Some(Self {
            name,
            state: fields.trim_start().chars().next()?,
            parent: i32::try_from(number(4)?).ok()?,
            start_time: number(22)?,
            has_executed: number(9)? & FORKED_ONLY == 0,
            fields,
        })
    }

    /// The number at this place in proc(5), which counts from 1. None if the field is missing, negative or
    /// not a number.
    pub fn number(&self, place: usize) -> Option<u64> {
        number(&self.fields, place)
    }

    /// Whether all its threads have ended. Until then the first thread, whose state this is, may wait for the
    /// others as a zombie (proc(5), `num_threads`).
    pub fn has_ended(&self) -> bool {
        ['Z', 'X'].contains(&self.state) && self.number(20).is_none_or(|threads| threads <= 1)
    }

    /// The processor time that the process has used.
    pub fn processor_time(&self) -> Duration {
        // utime and stime
        ticks([14, 15].into_iter().filter_map(|place| self.number(place)).sum())
    }

    /// The resident memory of the process, in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.number(24).unwrap_or_default() * constant(SysconfVar::PAGE_SIZE).unwrap_or(4096)
    }
}

/// `PF_FORKNOEXEC` of the kernel's linux/sched.h: the process was forked and has executed nothing since.
const FORKED_ONLY: u64 = 0x40;

fn number(fields: &str, place: usize) -> Option<u64> {
    fields.split_ascii_whitespace().nth(place.checked_sub(3)?)?.parse().ok()
}

/// Converts clock ticks, in which the kernel counts time.
pub(crate) fn ticks(number: u64) -> Duration {
    Duration::from_millis(number * 1000 / constant(SysconfVar::CLK_TCK).unwrap_or(100))
}

fn constant(variable: SysconfVar) -> Option<u64> {
    sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let numbers: String = (10..=24).map(|number| format!(" {number}")).collect();
        let line = format!("7 (a) b (c) S 4 -1 6 7 8 64{numbers}\n");
        let stat = Stat::parse(line.as_bytes()).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) b (c", 'S', 4));
        assert_eq!((stat.start_time, stat.has_executed), (22, false));
        assert_eq!([0, 3, 5, 24, 25].map(|place| stat.number(place)), [None, None, None, Some(24), None]);
        for text in ["", "7", ")(", "7 (a", "7 (a) S 4", &line.replace("S 4", "S -4")] {
            assert!(Stat::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
