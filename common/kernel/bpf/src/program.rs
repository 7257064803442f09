use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{io::Errno, thread::CapabilitySet};

use crate::{
    NAME,
    call::{ById, Command, call, open},
    map::Information,
    name,
};

/// From linux/bpf.h.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// BPF_CGROUP_MAX_PROGS: the largest number of programs of one kind that a cgroup can have.
const MOST: usize = 64;

/// When the kernel runs a program of a cgroup (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A process opens or makes a device node.
    Device = 6,
    /// A process binds an IPv4 socket.
    Bind4 = 8,
    /// A process binds an IPv6 socket.
    Bind6 = 9,
}

/// `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramKind {
    /// Programs whose argument is `struct bpf_cgroup_dev_ctx`.
    CgroupDevice = 15,
    /// Programs whose argument is `struct bpf_sock_addr`.
    CgroupSocketAddress = 18,
}

impl Attachment {
    fn kind(self) -> ProgramKind {
        match self {
            Self::Device => ProgramKind::CgroupDevice,
            Self::Bind4 | Self::Bind6 => ProgramKind::CgroupSocketAddress,
        }
    }

    /// `expected_attach_type` for loading, if the program's kind leaves a choice.
    fn expected(self) -> u32 {
        match self {
            Self::Device => 0,
            attachment => attachment as u32,
        }
    }
}

/// A program in the kernel. It lives as long as a process has it open or it is attached.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// How often to ask the kernel to check a program.
const TRIES: usize = 16;

/// The attributes of BPF_PROG_LOAD: `union bpf_attr` up to the last member that is set.
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
    /// Older kernels require that the bytes they do not know are zero.
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
    /// Loads a program for this attachment. The kernel verifies that the program ends, and that it only
    /// accesses memory it may access.
    ///
    /// # Errors
    /// EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace; EINVAL if the kernel lacks
    /// something that the program uses; EACCES if the kernel rejects the program.
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
        // A signal aborts the kernel's verification.
        for _ in 0..TRIES {
            // SAFETY: there are `count` instructions of eight bytes, and the license ends with a zero byte.
            match unsafe { open(Command::ProgramLoad, &mut attributes) } {
                Err(Errno::AGAIN) => {}
                loaded => return loaded.map(Self),
            }
        }
        Err(Errno::AGAIN)
    }

    /// Whether the kernel knows programs for this attachment, and this process may load them. Loading one to see costs
    /// a hundred microseconds; asking for those of a cgroup that does not exist costs one.
    ///
    /// # Errors
    /// When the kernel gives another answer than "no such cgroup" or a refusal.
    pub fn can_load(attachment: Attachment) -> Result<bool, Errno> {
        let mut attributes = Query {
            target: u32::MAX,
            attachment: attachment as u32,
            flags: 0,
            attach_flags: 0,
            ids: 0,
            count: 0,
            _padding: 0,
        };
        // SAFETY: there is room for no id, and none is asked for.
        match unsafe { call(Command::Query, &mut attributes) } {
            Err(Errno::BADF) => {
                let own = rustix::thread::capabilities(None)?.effective;
                let both = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
                Ok(own.contains(CapabilitySet::SYS_ADMIN) || own.contains(both))
            }
            // Not allowed, no such programs, or no bpf(2).
            Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::NOSYS) => Ok(false),
            Err(other) => Err(other),
            Ok(_) => Err(Errno::BADF),
        }
    }

    /// The programs of this name that are attached to the cgroup, each with the ids of the maps that it uses.
    ///
    /// # Errors
    /// When the kernel does not answer.
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
                // The program was detached meanwhile.
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

    /// The kernel's hash of the program's instructions. Equal programs have equal tags.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn tag(&self) -> Result<u64, Errno> {
        Ok(self.describe()?.0.tag)
    }

    /// The kernel's description of the program, and the ids of its first four maps.
    fn describe(&self) -> Result<(Description, Vec<u32>), Errno> {
        let mut ids = [0_u32; 4];
        let mut description =
            Description { maps: ids.len() as u32, map_ids: ids.as_mut_ptr() as u64, ..Default::default() };
        let mut attributes = Information {
            descriptor: self.0.as_raw_fd() as u32,
            length: size_of_val(&description) as u32,
            information: std::ptr::from_mut(&mut description) as u64,
        };
        // SAFETY: the kernel writes as many bytes as `length` says, and as many ids as `maps` says.
        unsafe { call(Command::Information, &mut attributes) }?;
        let count = ids.len().min(description.maps as usize);
        Ok((description, ids[..count].to_vec()))
    }

    /// Attaches the program to the cgroup, beside programs of others. It applies to processes in the cgroup
    /// and in all cgroups below. It stays attached until the cgroup is removed.
    ///
    /// # Errors
    /// EPERM if another program is attached exclusively; E2BIG if 64 programs are attached.
    pub fn attach(&self, cgroup: impl AsFd, attachment: Attachment) -> Result<(), Errno> {
        self.change(Command::Attach, cgroup, attachment, BPF_F_ALLOW_MULTI)
    }

    /// Detaches the program from the cgroup.
    ///
    /// # Errors
    /// ENOENT if the program is not attached there.
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
