//! Writes an image.

use std::{collections::HashMap, os::fd::OwnedFd};

use crate::{
    Attributes, BLOCK, Error, Kind,
    directory::{self, Named},
    format::{self, Content, INODE, Inode, LINKS, ROOT, SLOT},
    space::{Space, TAIL},
    tree::{Directory, Entry, File, Tree},
    xattr,
};

/// An image that is being written.
#[derive(Debug)]
pub struct Writer {
    space: Space,
    tree: Tree,
    /// The link counts of files that do not have exactly one link.
    links: HashMap<u64, u32>,
    /// The number of files with a name.
    files: u64,
    /// The size of all directories' extended attributes, in bytes.
    attributes: usize,
}

/// A regular file that is being written.
#[derive(Debug)]
pub struct Open {
    file: File,
    /// The encoded inode.
    inode: Vec<u8>,
    /// The offset of the file's blocks, in bytes.
    start: u64,
    /// How many bytes of the content are in these blocks.
    blocks: u64,
    size: u64,
    /// The rest of the content, which follows the inode.
    tail: Vec<u8>,
}

/// Facts about a finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The size of the image in bytes.
    pub size: u64,
    /// The number of files and directories.
    pub inodes: u64,
}

impl Writer {
    /// Starts an image in `file`, which must be empty and open for writing. The image has an empty root
    /// directory.
    pub fn new(file: OwnedFd) -> Self {
        Self { space: Space::new(file), tree: Tree::new(), links: HashMap::new(), files: 0, attributes: 0 }
    }

    /// The approximate memory used, in bytes.
    pub fn kept(&self) -> usize {
        self.tree.kept() + self.attributes + self.links.len() * 32
    }

    /// The entry for `name` in `directory`.
    pub fn get(&self, directory: Directory, name: &[u8]) -> Option<Entry> {
        self.tree.get(directory, name)
    }

    /// Makes a directory. The name must not be in use. [`Writer::set_attributes`] sets its attributes.
    ///
    /// # Errors
    /// When the name is too long.
    pub fn directory(&mut self, parent: Directory, name: &[u8]) -> Result<Directory, Error> {
        let directory = self.tree.add(parent)?;
        self.tree.insert(parent, name, Entry::Directory(directory))?;
        Ok(directory)
    }

    /// Sets the attributes of a directory.
    pub fn set_attributes(&mut self, directory: Directory, attributes: Attributes) {
        let bytes = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len();
        if let Some(node) = self.tree.nodes.get_mut(directory.index()) {
            self.attributes += attributes.xattrs.iter().map(bytes).sum::<usize>();
            node.attributes = attributes;
        }
    }

    /// Begins a regular file of `size` bytes. Parts that are never written are zeros.
    ///
    /// # Errors
    /// When the attributes do not fit, or the image gets too large.
    pub fn file(&mut self, attributes: &Attributes, size: u64) -> Result<Open, Error> {
        self.open(Kind::File, attributes, size)
    }

    fn open(&mut self, kind: Kind, attributes: &Attributes, size: u64) -> Result<Open, Error> {
        let xattrs = xattr::encode(&attributes.xattrs)?;
        // If a link's target does not share a block with its inode, it gets a block of its own. All kernels
        // can read that.
        let room = if kind == Kind::Symlink { BLOCK - INODE } else { u64::MAX };
        let tail = match size % BLOCK {
            tail if tail <= TAIL && xattrs.len() as u64 + tail <= room => tail,
            _ => 0,
        };
        let blocks = size - tail;
        let start = match blocks.div_ceil(BLOCK) {
            0 => None,
            count => Some(self.space.blocks(count)?),
        };
        let content = match (start, tail) {
            (None, 0) => Content::None,
            (Some(start), 0) => Content::Plain(start),
            (start, _) => Content::Inline(start),
        };
        let offset = self.space.inode(INODE + xattrs.len() as u64, tail)?;
        let file = File { kind, number: format::number_at(offset) };
        let inode = Inode { kind, attributes, xattrs: &xattrs, size, links: 1, content, number: file.number };
        let start = u64::from(start.unwrap_or_default()) * BLOCK;
        Ok(Open { file, inode: inode.encode(), start, blocks, size, tail: vec![0; tail as usize] })
    }

    /// Writes `data` at `offset` in a file.
    ///
    /// # Errors
    /// When the data exceeds the size of the file, or cannot be written.
    pub fn write(&self, open: &mut Open, offset: u64, data: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= open.size).ok_or(Error::Size)?;
        let (body, rest) = data.split_at(open.blocks.saturating_sub(offset).min(data.len() as u64) as usize);
        self.space.write(open.start + offset, body)?;
        if !rest.is_empty() {
            let end = (end - open.blocks) as usize;
            open.tail[end - rest.len()..end].copy_from_slice(rest);
        }
        Ok(())
    }

    /// Ends a file. [`Writer::name`] gives it a name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn close(&mut self, open: Open) -> Result<File, Error> {
        let Open { file, mut inode, tail, .. } = open;
        inode.extend(tail);
        self.space.write_inode(file.number * SLOT, &inode)?;
        Ok(file)
    }

    /// Makes a symbolic link. [`Writer::name`] gives it a name.
    ///
    /// # Errors
    /// Those of [`Writer::file`].
    pub fn symlink(&mut self, attributes: &Attributes, target: &[u8]) -> Result<File, Error> {
        let mut open = self.open(Kind::Symlink, attributes, target.len() as u64)?;
        self.write(&mut open, 0, target)?;
        self.close(open)
    }

    /// Makes a device (with major and minor number), a named pipe or a socket. [`Writer::name`] gives it a
    /// name.
    ///
    /// # Errors
    /// Those of [`Writer::file`].
    pub fn special(
        &mut self,
        kind: Kind,
        attributes: &Attributes,
        (major, minor): (u32, u32),
    ) -> Result<File, Error> {
        let xattrs = xattr::encode(&attributes.xattrs)?;
        let offset = self.space.inode(INODE + xattrs.len() as u64, 0)?;
        let content = match kind {
            Kind::CharDevice | Kind::BlockDevice => Content::Device(format::device(major, minor)),
            _ => Content::None,
        };
        let number = format::number_at(offset);
        let inode = Inode { kind, attributes, xattrs: &xattrs, size: 0, links: 1, content, number };
        self.space.write_inode(offset, &inode.encode())?;
        Ok(File { kind, number })
    }

    /// Gives a file its first name. The name must not be in use. Further names are added with
    /// [`Writer::link`].
    ///
    /// # Errors
    /// When the name is too long.
    pub fn name(&mut self, directory: Directory, name: &[u8], file: File) -> Result<(), Error> {
        self.tree.insert(directory, name, Entry::File(file))?;
        self.files += 1;
        Ok(())
    }

    /// Adds a name to a file that has one already: a hard link.
    ///
    /// # Errors
    /// Those of [`Writer::name`], and when the file has too many names.
    pub fn link(&mut self, directory: Directory, name: &[u8], file: File) -> Result<(), Error> {
        self.tree.insert(directory, name, Entry::File(file))?;
        let links = self.links.entry(file.number).or_insert(1);
        *links = links.checked_add(1).ok_or(Error::Links)?;
        Ok(())
    }

    /// Removes `name` from `directory`, with everything below it.
    pub fn remove(&mut self, directory: Directory, name: &[u8]) {
        for file in self.tree.remove(directory, name) {
            match self.links.get_mut(&file.number) {
                Some(links) if *links > 1 => *links -= 1,
                _ => self.files -= 1,
            }
        }
    }

    /// Writes the directories and the superblock. Images that are mounted together should have different
    /// UUIDs.
    ///
    /// # Errors
    /// When the attributes of a directory do not fit, or something cannot be written.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<Summary, Error> {
        self.space.flush()?;
        for (number, links) in &self.links {
            self.space.write(number * SLOT + LINKS, &links.to_le_bytes())?;
        }
        let directories = self.tree.standing();
        let inodes = self.files + directories.len() as u64;
        // Each entry contains an inode number, so all numbers must be known before the first entry is
        // written.
        let mut placed = vec![Place::default(); self.tree.nodes.len()];
        for directory in &directories {
            placed[directory.index()] = self.place(*directory)?;
        }
        let mut root = Vec::new();
        for directory in &directories {
            let inode = self.write_directory(*directory, &placed)?;
            match *directory == Directory::ROOT {
                true => root = inode,
                false => self.space.write_inode(placed[directory.index()].offset, &inode)?,
            }
        }
        let blocks = self.space.close()?;
        self.space.write(0, &format::first_block(&root, inodes, blocks, &uuid))?;
        Ok(Summary { size: u64::from(blocks) * BLOCK, inodes })
    }

    fn place(&mut self, directory: Directory) -> Result<Place, Error> {
        let node = &self.tree.nodes[directory.index()];
        let names = self.tree.sorted(directory);
        let size = directory::size(names.iter().map(|(name, _)| *name));
        let head = INODE + xattr::encode(&node.attributes.xattrs)?.len() as u64;
        let is_root = directory == Directory::ROOT;
        let room = if is_root { BLOCK - ROOT } else { u64::MAX };
        if head > room {
            let (size, limit) = ((head - INODE) as usize, (room - INODE) as usize);
            return Err(Error::Attributes { size, limit });
        }
        let tail = match size % BLOCK {
            tail if tail <= TAIL && head + tail <= room => tail,
            _ => 0,
        };
        let start = match (size - tail).div_ceil(BLOCK) {
            0 => None,
            count => Some(self.space.blocks(count)?),
        };
        let offset = if is_root { ROOT } else { self.space.inode(head, tail)? };
        Ok(Place { offset, start, size, tail })
    }

    /// Writes a directory's blocks. Returns its encoded inode, with attributes and tail.
    fn write_directory(&self, directory: Directory, placed: &[Place]) -> Result<Vec<u8>, Error> {
        let node = &self.tree.nodes[directory.index()];
        let Place { start, size, tail, .. } = placed[directory.index()];
        let number = |directory: Directory| format::number_at(placed[directory.index()].offset);
        let sorted = self.tree.sorted(directory);
        let is_directory = |(_, entry): &&(&[u8], Entry)| matches!(entry, Entry::Directory(_));
        // The links of a directory: its own ".", its name (for the root, ".."), and the ".." of each
        // subdirectory.
        let links = sorted.iter().filter(is_directory).count() as u32;
        let entries = sorted.into_iter().map(|(name, entry)| {
            let (kind, number) = match entry {
                Entry::Directory(directory) => (Kind::Directory, number(directory)),
                Entry::File(file) => (file.kind, file.number),
            };
            Named { name, number, kind }
        });
        let mut content = directory::blocks(entries).concat();
        let behind = content.split_off(content.len() - tail as usize);
        if let Some(start) = start {
            self.space.write(u64::from(start) * BLOCK, &content)?;
        }
        let xattrs = xattr::encode(&node.attributes.xattrs)?;
        let inode = Inode {
            kind: Kind::Directory,
            attributes: &node.attributes,
            xattrs: &xattrs,
            size,
            links,
            content: match (start, tail) {
                (Some(start), 0) => Content::Plain(start),
                (start, _) => Content::Inline(start),
            },
            number: number(directory),
        };
        let mut out = inode.encode();
        out.extend(behind);
        Ok(out)
    }
}

/// The place of a directory.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The offset of its inode, in bytes.
    offset: u64,
    /// The first of its blocks.
    start: Option<u32>,
    /// The size of its content, in bytes.
    size: u64,
    /// How many bytes of the content follow the inode.
    tail: u64,
}
