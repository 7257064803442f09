use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::io::Errno;

use crate::{
    NAME,
    call::{ById, Command, call, open},
    map::Information,
    name,
};

/// linux/bpf.h
const BPF_F_ALLOW_MULTI: u32 = 2;
/// BPF_CGROUP_MAX_PROGS: a cgroup has at most so many programs of a kind.
const MOST: usize = 64;

/// Where in the kernel the programs of a cgroup are asked (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// When a device is opened or made.
    Device = 6,
    /// When a socket of IPv4 is bound to an address.
    Bind4 = 8,
    /// When a socket of IPv6 is.
    Bind6 = 9,
}

/// `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramKind {
    /// It gets `struct bpf_cgroup_dev_ctx`.
    CgroupDevice = 15,
    /// It gets `struct bpf_sock_addr`.
    CgroupSocketAddress = 18,
}

impl Attachment {
    fn kind(self) -> ProgramKind {
        match self {
            Self::Device => ProgramKind::CgroupDevice,
            Self::Bind4 | Self::Bind6 => ProgramKind::CgroupSocketAddress,
        }
    }

    /// What a program says at loading about where it will be attached, if its kind leaves a choice.
    fn expected(self) -> u32 {
        match self {
            Self::Device => 0,
            attachment => attachment as u32,
        }
    }
}

/// A program in the kernel. It lives as long as somebody has it open, or it is attached.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// How often the kernel is asked to check a program.
const TRIES: usize = 16;

/// Up to the last member of `union bpf_attr` that is set for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; NAME + 1],
    device: u32,
    attachment: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attachment: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    attachment: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// Kernels that know less than this one look whether it is zero.
    _padding: u32,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Description {
    kind: u32,
    id: u32,
    tag: u64,
    lengths: [u32; 2],
    code: [u64; 2],
    loaded: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; NAME + 1],
}

impl Program {
    /// Gives the kernel a program that is to be attached there. The kernel checks that it ends, and that it keeps to what is its
    /// own.
    ///
    /// # Errors
    /// EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace; EINVAL on a kernel that lacks something that the
    /// program uses; EACCES for a program that it does not take.
    pub fn load(called: &str, attachment: Attachment, instructions: &[u64]) -> Result<Self, Errno> {
        const LICENSE: &CStr = c"MIT";
        let mut attributes = Load {
            kind: attachment.kind() as u32,
            count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel: 0,
            flags: 0,
            name: name(called),
            device: 0,
            attachment: attachment.expected(),
        };
        // A signal that arrives while the kernel checks the program ends the check.
        for _ in 0..TRIES {
            // SAFETY: there are `count` instructions of eight bytes, and the license ends with a zero byte.
            match unsafe { open(Command::ProgramLoad, &mut attributes) } {
                Err(Errno::AGAIN) => {}
                loaded => return loaded.map(Self),
            }
        }
        Err(Errno::AGAIN)
    }

    /// The programs that are attached to the cgroup there, of this name, each with the ids of the maps that it uses.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn attached(
        cgroup: impl AsFd,
        attachment: Attachment,
        called: &str,
    ) -> Result<Vec<(Self, Vec<u32>)>, Errno> {
        let mut ids = [0_u32; MOST];
        let mut attributes = Query {
            target: cgroup.as_fd().as_raw_fd() as u32,
            attachment: attachment as u32,
            flags: 0,
            attach_flags: 0,
            ids: ids.as_mut_ptr() as u64,
            count: MOST as u32,
            _padding: 0,
        };
        // SAFETY: there is room for `count` ids.
        unsafe { call(Command::Query, &mut attributes) }?;
        let mut found = Vec::new();
        for id in ids.into_iter().take(attributes.count as usize) {
            let mut by_id = ById { id, next: 0, flags: 0 };
            // SAFETY: the attributes point to nothing.
            let program = match unsafe { open(Command::ProgramById, &mut by_id) } {
                // Detached meanwhile.
                Err(Errno::NOENT) => continue,
                program => Self(program?),
            };
            let (description, maps) = program.describe()?;
            if description.name == name(called) {
                found.push((program, maps));
            }
        }
        Ok(found)
    }

    /// What the kernel makes of its instructions: programs that do the same have the same.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn tag(&self) -> Result<u64, Errno> {
        Ok(self.describe()?.0.tag)
    }

    /// What the kernel says of it, and the ids of its maps: of the first ones.
    fn describe(&self) -> Result<(Description, Vec<u32>), Errno> {
        let mut ids = [0_u32; 4];
        let mut description =
            Description { maps: ids.len() as u32, map_ids: ids.as_mut_ptr() as u64, ..Default::default() };
        let mut attributes = Information {
            descriptor: self.0.as_raw_fd() as u32,
            length: size_of_val(&description) as u32,
            information: std::ptr::from_mut(&mut description) as u64,
        };
        // SAFETY: the kernel writes as much as the length says, and as many ids as there is room for.
        unsafe { call(Command::Information, &mut attributes) }?;
        let count = ids.len().min(description.maps as usize);
        Ok((description, ids[..count].to_vec()))
    }

    /// Attaches it to the cgroup, for its processes and those of the cgroups below it, beside programs of others. It stays as
    /// long as the cgroup does.
    ///
    /// # Errors
    /// EPERM where a program of somebody wants to be the only one; E2BIG where there are 64.
    pub fn attach(&self, cgroup: impl AsFd, attachment: Attachment) -> Result<(), Errno> {
        self.change(Command::Attach, cgroup, attachment, BPF_F_ALLOW_MULTI)
    }

    /// Detaches it. ENOENT if it is not attached there.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub fn detach(&self, cgroup: impl AsFd, attachment: Attachment) -> Result<(), Errno> {
        self.change(Command::Detach, cgroup, attachment, 0)
    }

    fn change(
        &self,
        command: Command,
        cgroup: impl AsFd,
        attachment: Attachment,
        flags: u32,
    ) -> Result<(), Errno> {
        let mut attributes = Attach {
            target: cgroup.as_fd().as_raw_fd() as u32,
            program: self.0.as_raw_fd() as u32,
            attachment: attachment as u32,
            flags,
        };
        // SAFETY: the attributes point to nothing.
        unsafe { call(command, &mut attributes) }.map(drop)
    }
}
