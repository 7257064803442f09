use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::{
    NAME,
    call::{ById, Command, call, open},
    name,
};

/// From linux/bpf.h.
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// A hash table in the kernel, with keys of `K` bytes and values of `V` bytes. It lives as long as a process
/// has it open or a program that uses it is attached.
#[derive(Debug)]
pub struct Map<const K: usize, const V: usize>(OwnedFd);

#[repr(C)]
struct Create {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; NAME + 1],
}

#[repr(C)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// Makes an empty map for at most `entries` entries. The kernel allocates memory only for entries that
    /// exist.
    ///
    /// # Errors
    /// EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace.
    pub fn new(called: &str, entries: u32) -> Result<Self, Errno> {
        let mut attributes = Create {
            kind: BPF_MAP_TYPE_HASH,
            key: K as u32,
            value: V as u32,
            entries,
            flags: BPF_F_NO_PREALLOC,
            inner: 0,
            node: 0,
            name: name(called),
        };
        // SAFETY: the attributes point to nothing.
        unsafe { open(Command::MapCreate, &mut attributes) }.map(Self)
    }

    /// Opens the map with this id, which [`Map::new`] made.
    ///
    /// # Errors
    /// ENOENT if there is no such map; EINVAL if its keys or values have other sizes; EPERM without
    /// CAP_SYS_ADMIN in the first user namespace.
    pub fn by_id(id: u32) -> Result<Self, Errno> {
        let mut attributes = ById { id, next: 0, flags: 0 };
        // SAFETY: the attributes point to nothing.
        let map = unsafe { open(Command::MapById, &mut attributes) }?;
        match sizes(&map)? {
            (key, value) if (key as usize, value as usize) == (K, V) => Ok(Self(map)),
            _ => Err(Errno::INVAL),
        }
    }

    fn element(&self, key: &[u8; K], value: u64, flags: u64) -> Element {
        Element { map: self.0.as_raw_fd() as u32, _padding: 0, key: key.as_ptr() as u64, value, flags }
    }

    /// The value of this key. `None` if the map does not have the key.
    ///
    /// # Errors
    /// When the kernel cannot look it up.
    pub fn get(&self, key: &[u8; K]) -> Result<Option<[u8; V]>, Errno> {
        let mut value = [0; V];
        let mut attributes = self.element(key, value.as_mut_ptr() as u64, 0);
        // SAFETY: key and value have the map's sizes.
        match unsafe { call(Command::MapLookUp, &mut attributes) } {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(|_| Some(value)),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// EEXIST if the map has the key already; E2BIG if the map is full.
    pub fn insert(&self, key: &[u8; K], value: &[u8; V]) -> Result<(), Errno> {
        self.update(key, value, BPF_NOEXIST)
    }

    /// Adds an entry, or replaces the value of an existing one.
    ///
    /// # Errors
    /// E2BIG if the map is full.
    pub fn set(&self, key: &[u8; K], value: &[u8; V]) -> Result<(), Errno> {
        self.update(key, value, BPF_ANY)
    }

    fn update(&self, key: &[u8; K], value: &[u8; V], flags: u64) -> Result<(), Errno> {
        let mut attributes = self.element(key, value.as_ptr() as u64, flags);
        // SAFETY: key and value have the map's sizes.
        unsafe { call(Command::MapUpdate, &mut attributes) }.map(drop)
    }

    /// Removes an entry. A missing entry is no error.
    ///
    /// # Errors
    /// When the kernel cannot remove it.
    pub fn remove(&self, key: &[u8; K]) -> Result<(), Errno> {
        let mut attributes = self.element(key, 0, 0);
        // SAFETY: the key has the map's size.
        match unsafe { call(Command::MapDelete, &mut attributes) } {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// The key after this one, or the first key. While other processes add or remove entries, the iteration
    /// may start again or skip entries.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn next_key(&self, after: Option<&[u8; K]>) -> Result<Option<[u8; K]>, Errno> {
        let mut next = [0; K];
        let after = after.map_or(0, |key| key.as_ptr() as u64);
        let value = next.as_mut_ptr() as u64;
        let mut attributes =
            Element { map: self.0.as_raw_fd() as u32, _padding: 0, key: after, value, flags: 0 };
        // SAFETY: both keys have the map's size.
        match unsafe { call(Command::MapNextKey, &mut attributes) } {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(|_| Some(next)),
        }
    }

    /// All keys. Keys that are added or removed meanwhile may be among them or not.
    ///
    /// # Errors
    /// As [`Map::next_key`].
    pub fn keys(&self) -> Result<Vec<[u8; K]>, Errno> {
        let mut keys: Vec<[u8; K]> = Vec::new();
        while let Some(key) = self.next_key(keys.last())? {
            // The last key was removed meanwhile, so the iteration started again.
            if keys.first() == Some(&key) {
                break;
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

impl<const K: usize, const V: usize> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The sizes of the map's keys and values, in bytes.
fn sizes(map: &OwnedFd) -> Result<(u32, u32), Errno> {
    // The beginning of `struct bpf_map_info`: type, id, sizes.
    let mut information = [0_u32; 4];
    let mut attributes = Information {
        descriptor: map.as_raw_fd() as u32,
        length: size_of_val(&information) as u32,
        information: information.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes as many bytes as `length` says.
    unsafe { call(Command::Information, &mut attributes) }?;
    Ok((information[2], information[3]))
}

#[repr(C)]
pub(crate) struct Information {
    pub(crate) descriptor: u32,
    pub(crate) length: u32,
    pub(crate) information: u64,
}
