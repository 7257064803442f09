//! Digests of files that earlier builds have read. A file that has not changed since then is not read again.
//!
//! The table of a context is one file of batches. A batch is a magic, the number of its records, the start of their SHA-256,
//! and the records. Each save appends one batch. A batch that a power cut has damaged does not fit its hash: it and all
//! behind it count as missing.
//!
//! Git keeps such a table in its index, with the same rule for recent changes (racy-git.txt).

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::Stat;
use sha2::{Digest as _, Sha256};

use crate::cache;

/// The SHA-256 of a file's content.
type Sum = [u8; 32];

/// What stat(2) tells of a file that has not changed: device, inode, size, and the times of modification and of change, in
/// nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    file: (u64, u64),
    size: u64,
    modified: i64,
    changed: i64,
}

/// The table of one context.
#[derive(Debug)]
pub(crate) struct StatCache {
    path: PathBuf,
    known: HashMap<(u64, u64), (Facts, Sum)>,
    /// Records that are not in the file yet.
    fresh: Vec<(Facts, Sum)>,
    /// Whole records in the file, also those that later ones replace; none if it must be written anew.
    kept: Option<usize>,
}

const MAGIC: &[u8; 8] = b"stave-s1";
const RECORD: usize = 5 * 8 + size_of::<Sum>();
const HEADER: usize = MAGIC.len() + 8 + 8;
/// A larger table is thrown away: the context is another one now, or was many.
const MOST: u64 = 256 << 20;
/// A file that changed less than this before it was read may change again within the same tick of the clock.
const RECENT: i64 = 2_000_000_000;

impl Facts {
    fn of(stat: &Stat) -> Self {
        let nanoseconds =
            |seconds: i64, rest: u64| seconds.wrapping_mul(1_000_000_000).wrapping_add(rest as i64);
        Self {
            file: (stat.st_dev, stat.st_ino),
            size: stat.st_size as u64,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let (device, inode) = self.file;
        for number in [device, inode, self.size, self.modified as u64, self.changed as u64] {
            to.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(record: &[u8]) -> Option<(Self, Sum)> {
        let number = |at: usize| Some(u64::from_le_bytes(record.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        let facts = Self {
            file: (number(0)?, number(1)?),
            size: number(2)?,
            modified: number(3)? as i64,
            changed: number(4)? as i64,
        };
        Some((facts, record.get(5 * 8..)?.try_into().ok()?))
    }
}

impl StatCache {
    /// Reads the table in the file `path`. An unreadable one counts as empty.
    pub(crate) fn open(path: PathBuf) -> Self {
        let is_small = fs::metadata(&path).is_ok_and(|file| file.len() <= MOST);
        let bytes = if is_small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let (mut known, mut rest, mut kept) = (HashMap::new(), bytes.as_slice(), 0);
        while let Some((records, behind)) = batch(rest) {
            for (facts, sum) in records.chunks_exact(RECORD).filter_map(Facts::read) {
                known.insert(facts.file, (facts, sum));
                kept += 1;
            }
            rest = behind;
        }
        let is_whole = is_small && rest.is_empty();
        // Its time of change is that of its last use, for img-gc.
        cache::touch_all(&path);
        Self { path, known, fresh: Vec::new(), kept: is_whole.then_some(kept) }
    }

    /// The content of a file, if it is as it was when it was read.
    pub(super) fn get(&self, stat: &Stat) -> Option<Sum> {
        let facts = Facts::of(stat);
        let (known, sum) = self.known.get(&facts.file)?;
        (*known == facts).then_some(*sum)
    }

    /// Notes the content of a file that was the same before and after it was read. `began` is when reading began
    /// ([`now`]).
    pub(super) fn put(&mut self, before: &Stat, after: &Stat, began: i64, sum: Sum) {
        let facts = Facts::of(before);
        let is_settled = facts.changed.max(facts.modified) < began.saturating_sub(RECENT);
        if is_settled && facts == Facts::of(after) {
            self.known.insert(facts.file, (facts, sum));
            self.fresh.push((facts, sum));
        }
    }

    /// Writes what is new. A table with many replaced records is written anew.
    ///
    /// # Errors
    /// When the file cannot be written. Then the next build reads some files once more.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return Ok(());
        }
        let directory = self.path.parent().unwrap_or(Path::new("."));
        operation::make_directories(directory, 0o777)?;
        let records = self.kept.map_or(usize::MAX, |kept| kept + fresh.len());
        if records <= 2 * self.known.len() + 1000 {
            self.kept = Some(records);
            // Builds side by side append whole batches.
            return File::options().append(true).create(true).open(&self.path)?.write_all(&encode(&fresh));
        }
        let all: Vec<_> = self.known.values().copied().collect();
        let beside = directory.join(format!(".{}", std::process::id()));
        fs::write(&beside, encode(&all))?;
        self.kept = Some(all.len());
        fs::rename(&beside, &self.path)
    }
}

/// The time, in nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn encode(records: &[(Facts, Sum)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(records.len() * RECORD);
    for (facts, sum) in records {
        facts.write(&mut body);
        body.extend_from_slice(sum);
    }
    let mut batch = MAGIC.to_vec();
    batch.extend_from_slice(&(records.len() as u64).to_le_bytes());
    batch.extend_from_slice(&Sha256::digest(&body)[..8]);
    batch.append(&mut body);
    batch
}

/// The records of the first batch, and what is behind it.
fn batch(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (magic, header) = header.split_at(MAGIC.len());
    let (count, sum) = header.split_at(8);
    let count = usize::try_from(u64::from_le_bytes(count.try_into().ok()?)).ok()?;
    let (records, behind) = rest.split_at_checked(count.checked_mul(RECORD)?)?;
    (magic == MAGIC && Sha256::digest(records)[..8] == *sum).then_some((records, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(directory: &Path, name: &str, text: &str) -> Stat {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        rustix::fs::stat(&path).unwrap()
    }

    /// Long after the file was written.
    fn later(stat: &Stat) -> i64 {
        Facts::of(stat).changed + RECENT + 1
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("files/table");
        let (a, b) = (stat(dir.path(), "a", "1"), stat(dir.path(), "b", "2"));
        let mut cache = StatCache::open(table.clone());
        cache.put(&a, &a, later(&a), [1; 32]);
        cache.save().unwrap();
        cache.put(&b, &b, later(&b), [2; 32]);
        cache.save().unwrap();
        let cache = StatCache::open(table);
        assert_eq!((cache.get(&a), cache.get(&b)), (Some([1; 32]), Some([2; 32])));
        assert_eq!(cache.kept, Some(2));
        let changes: [fn(&mut Stat); 3] =
            [|stat| stat.st_size += 1, |stat| stat.st_ctime += 1, |stat| stat.st_mtime_nsec += 1];
        for change in changes {
            let mut changed = a;
            change(&mut changed);
            assert_eq!(cache.get(&changed), None);
        }
    }

    #[test]
    fn a_recent_change_and_one_while_it_was_read_are_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let a = stat(dir.path(), "a", "1");
        let mut cache = StatCache::open(dir.path().join("table"));
        cache.put(&a, &a, later(&a) - 1, [1; 32]);
        assert_eq!(cache.get(&a), None);
        let mut after = a;
        after.st_ctime += 1;
        cache.put(&a, &after, later(&a), [1; 32]);
        assert_eq!((cache.get(&a), cache.get(&after)), (None, None));
        cache.save().unwrap();
        assert!(!dir.path().join("table").exists(), "nothing new, nothing written");
    }

    #[test]
    fn a_damaged_table_is_used_up_to_the_damage_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("table");
        let (a, b) = (stat(dir.path(), "a", "1"), stat(dir.path(), "b", "2"));
        for (of, sum) in [(&a, [1; 32]), (&b, [2; 32])] {
            let mut cache = StatCache::open(table.clone());
            cache.put(of, of, later(of), sum);
            cache.save().unwrap();
        }
        let mut bytes = fs::read(&table).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&table, &bytes).unwrap();
        let mut cache = StatCache::open(table.clone());
        assert_eq!((cache.get(&a), cache.get(&b), cache.kept), (Some([1; 32]), None, None));
        cache.put(&b, &b, later(&b), [2; 32]);
        cache.save().unwrap();
        let cache = StatCache::open(table.clone());
        assert_eq!((cache.get(&a), cache.get(&b), cache.kept), (Some([1; 32]), Some([2; 32]), Some(2)));
        fs::write(&table, [0; 200]).unwrap();
        assert!(StatCache::open(table).known.is_empty());
    }

    #[test]
    fn replaced_records_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("table");
        let mut a = stat(dir.path(), "a", "1");
        let mut cache = StatCache::open(table.clone());
        for _ in 0..3000 {
            a.st_mtime -= 1;
            cache.put(&a, &a, later(&a), [1; 32]);
            cache.save().unwrap();
        }
        let cache = StatCache::open(table);
        assert!(cache.kept.unwrap() <= 1003, "{:?}", cache.kept);
        assert_eq!(cache.get(&a), Some([1; 32]));
    }
}
