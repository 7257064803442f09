//! The directories of an image and the names in them. Nothing else stays in memory.

use crate::{
    Attributes, Error, Kind,
    index::{Index, Keys},
};

/// A directory of the image that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory(u32);

impl Directory {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file that is written already, of any kind but a directory. It is identified by its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    /// The kind of file.
    pub kind: Kind,
    pub(crate) number: u64,
}

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory(Directory),
    /// Anything else.
    File(File),
}

/// An entry of a directory, in 20 bytes.
#[derive(Debug)]
struct Name {
    directory: u32,
    /// The offset of the name. The byte at this offset is the length of the name, which follows.
    at: u32,
    /// The previous entry of the same directory; [`NONE`] in the first entry.
    before: u32,
    /// The target of the entry: a number of 48 bits and the code of the kind; code 0 if the entry was
    /// removed.
    low: u32,
    high: u16,
    kind: u8,
}

/// The index that means no entry.
const NONE: u32 = u32::MAX;

impl Name {
    fn set(&mut self, entry: Entry) {
        let (kind, number) = match entry {
            Entry::Directory(directory) => (Kind::Directory, directory.0.into()),
            Entry::File(file) => (file.kind, file.number),
        };
        (self.kind, self.high, self.low) = (kind.code(), (number >> 32) as u16, number as u32);
    }

    fn get(&self) -> Option<Entry> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == self.kind)?;
        Some(match kind {
            Kind::Directory => Entry::Directory(Directory(self.low)),
            kind => Entry::File(File { kind, number: u64::from(self.high) << 32 | u64::from(self.low) }),
        })
    }
}

/// A directory's attributes, parent and entries.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) parent: Directory,
    /// The latest entry.
    last: u32,
}

/// All directories, including removed ones.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    names: Names,
    index: Index,
}

#[derive(Debug, Default)]
struct Names {
    entries: Vec<Name>,
    bytes: Vec<u8>,
}

impl Names {
    fn name(&self, at: u32) -> &[u8] {
        let (length, rest) = self.bytes[at as usize..].split_first().unwrap_or((&0, &[]));
        &rest[..usize::from(*length)]
    }
}

impl Keys for Names {
    fn key(&self, index: u32) -> (u32, &[u8]) {
        let entry = &self.entries[index as usize];
        (entry.directory, self.name(entry.at))
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node { attributes: Attributes::default(), parent: Directory::ROOT, last: NONE };
        Self { nodes: vec![root], names: Names::default(), index: Index::default() }
    }

    /// The approximate memory used, in bytes, without the attributes of directories.
    pub(crate) fn kept(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
            + self.names.entries.len() * size_of::<Name>()
            + self.names.bytes.len()
            + self.index.kept()
    }

    fn find(&self, directory: Directory, name: &[u8]) -> Option<u32> {
        self.index.find((directory.0, name), &self.names)
    }

    pub(crate) fn get(&self, directory: Directory, name: &[u8]) -> Option<Entry> {
        self.names.entries[self.find(directory, name)? as usize].get()
    }

    /// Adds a directory that has no name yet.
    pub(crate) fn add(&mut self, parent: Directory) -> Result<Directory, Error> {
        let index = u32::try_from(self.nodes.len()).map_err(|_| Error::TooLarge)?;
        self.nodes.push(Node { attributes: Attributes::default(), parent, last: NONE });
        Ok(Directory(index))
    }

    /// Adds a name for `entry`. The name must not be in use.
    pub(crate) fn insert(&mut self, directory: Directory, name: &[u8], entry: Entry) -> Result<(), Error> {
        // The maximum length of a name is 255 bytes (erofs_fs.h, EROFS_NAME_LEN).
        let length = u8::try_from(name.len()).map_err(|_| Error::NameTooLong)?;
        if let Some(found) = self.find(directory, name) {
            self.names.entries[found as usize].set(entry);
            return Ok(());
        }
        let number = |length| u32::try_from(length).ok().filter(|at| *at != NONE).ok_or(Error::TooLarge);
        let (index, at) = (number(self.names.entries.len())?, number(self.names.bytes.len())?);
        self.names.bytes.push(length);
        self.names.bytes.extend(name);
        let before = std::mem::replace(&mut self.nodes[directory.index()].last, index);
        let mut made = Name { directory: directory.0, at, before, low: 0, high: 0, kind: 0 };
        made.set(entry);
        self.names.entries.push(made);
        self.index.insert(index, &self.names);
        Ok(())
    }

    /// Removes a name and everything below it. Returns the removed files, once for each of their removed
    /// names.
    pub(crate) fn remove(&mut self, directory: Directory, name: &[u8]) -> Vec<File> {
        let (mut left, mut files) = (Vec::from_iter(self.find(directory, name)), Vec::new());
        while let Some(index) = left.pop() {
            let entry = &mut self.names.entries[index as usize];
            let removed = entry.get();
            entry.kind = 0;
            match removed {
                Some(Entry::File(file)) => files.push(file),
                Some(Entry::Directory(directory)) => left.extend(self.entries(directory)),
                None => {}
            }
        }
        files
    }

    /// The entries of a directory, including removed ones, latest first.
    fn entries(&self, directory: Directory) -> impl Iterator<Item = u32> {
        let number = |at: u32| (at != NONE).then_some(at);
        let before = move |at: &u32| number(self.names.entries[*at as usize].before);
        std::iter::successors(number(self.nodes[directory.index()].last), before)
    }

    /// The entries of a directory, sorted by name, including `.` and `..`.
    pub(crate) fn sorted(&self, directory: Directory) -> Vec<(&[u8], Entry)> {
        let parent = self.nodes[directory.index()].parent;
        let own = [(&b"."[..], Entry::Directory(directory)), (b"..", Entry::Directory(parent))];
        let entries = self.entries(directory).filter_map(|index| {
            let entry = &self.names.entries[index as usize];
            Some((self.names.name(entry.at), entry.get()?))
        });
        let mut sorted: Vec<_> = own.into_iter().chain(entries).collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        sorted
    }

    /// The directories that were not removed. Parents come before children.
    pub(crate) fn standing(&self) -> Vec<Directory> {
        let (mut found, mut left) = (Vec::new(), vec![Directory::ROOT]);
        while let Some(directory) = left.pop() {
            found.push(directory);
            let entries =
                self.entries(directory).filter_map(|index| self.names.entries[index as usize].get());
            left.extend(entries.filter_map(|entry| match entry {
                Entry::Directory(directory) => Some(directory),
                Entry::File(_) => None,
            }));
        }
        found
    }
}
