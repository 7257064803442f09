//! Architectures: how the kernel identifies them, and the numbers of their system calls.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use oci_spec::runtime::Arch as OciArch;

use crate::argument::Width;

/// An ABI of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// The ABI of 64-bit x86 with pointers of 32 bits.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit IBM Z.
    S390x,
    /// 64-bit POWER, little endian.
    Ppc64le,
    /// 64-bit LoongArch.
    Loongarch64,
}

/// The bit that tells x32 from the other system calls of 64-bit x86 (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// The system calls that have another number in x32 than in 64-bit x86
/// (arch/x86/entry/syscalls/syscall_64.tbl, "x32-specific").
const X32_OWN: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// The system calls of 64-bit x86 that x32 does not have (the same file, ABI "64").
const X32_LACKS: [&str; 13] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "map_shadow_stack",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uretprobe",
    "uselib",
    "vserver",
];

/// The numbers of system calls by their names. A container's start compiles its policy, and spent a third of that time
/// on the hashes of the standard library, which resist keys that somebody chose to collide; these keys are known.
type Numbers = HashMap<&'static str, u32, FixedState>;

/// Collects the table of one architecture from the crate `syscalls`.
macro_rules! table {
    ($module:ident) => {
        syscalls::$module::Sysno::iter().map(|call| (call.name(), call.id() as u32)).collect()
    };
}

impl Arch {
    /// All architectures.
    pub(crate) const ALL: [Self; 9] = [
        Self::X86_64,
        Self::X86,
        Self::X32,
        Self::Aarch64,
        Self::Arm,
        Self::Riscv64,
        Self::S390x,
        Self::Ppc64le,
        Self::Loongarch64,
    ];

    /// The architecture that this program is built for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else if cfg!(target_arch = "arm") {
        Self::Arm
    } else if cfg!(target_arch = "riscv64") {
        Self::Riscv64
    } else if cfg!(target_arch = "s390x") {
        Self::S390x
    } else if cfg!(target_arch = "powerpc64") {
        Self::Ppc64le
    } else if cfg!(target_arch = "loongarch64") {
        Self::Loongarch64
    } else if cfg!(target_arch = "x86") {
        Self::X86
    } else {
        Self::X86_64
    };

    /// The architecture of an OCI policy; none if no machine that Stave runs on makes its calls.
    pub(crate) fn of(arch: OciArch) -> Option<Self> {
        Some(match arch {
            OciArch::ScmpArchNative => Self::NATIVE,
            OciArch::ScmpArchX86_64 => Self::X86_64,
            OciArch::ScmpArchX86 => Self::X86,
            OciArch::ScmpArchX32 => Self::X32,
            OciArch::ScmpArchAarch64 => Self::Aarch64,
            OciArch::ScmpArchArm => Self::Arm,
            OciArch::ScmpArchRiscv64 => Self::Riscv64,
            OciArch::ScmpArchS390x => Self::S390x,
            OciArch::ScmpArchPpc64le => Self::Ppc64le,
            _ => return None,
        })
    }

    /// Its name in OCI runtime-spec.
    pub fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
            Self::Riscv64 => "SCMP_ARCH_RISCV64",
            Self::S390x => "SCMP_ARCH_S390X",
            Self::Ppc64le => "SCMP_ARCH_PPC64LE",
            Self::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
        }
    }

    /// Its name in Docker's conditions on `arches`, which use Go's names.
    pub fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
            Self::Ppc64le => "ppc64le",
            Self::Loongarch64 => "loong64",
        }
    }

    /// The value of `arch` in `struct seccomp_data`: `AUDIT_ARCH_*` of linux/audit.h.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::S390x => 0x8000_0016,
            Self::Ppc64le => 0xc000_0015,
            Self::Loongarch64 => 0xc000_0102,
        }
    }

    pub(crate) fn width(self) -> Width {
        match self {
            Self::X86 | Self::X32 | Self::Arm => Width::Half,
            _ => Width::Full,
        }
    }

    /// The numbers of its system calls, by name.
    pub(crate) fn numbers(self) -> Numbers {
        match self {
            Self::X86_64 => table!(x86_64),
            Self::X86 => table!(x86),
            Self::X32 => {
                let mut numbers: Numbers = table!(x86_64);
                numbers.retain(|name, _| !X32_LACKS.contains(name));
                numbers.extend(X32_OWN);
                numbers.into_iter().map(|(name, number)| (name, number | X32_BIT)).collect()
            }
            Self::Aarch64 => generic(table!(aarch64)),
            Self::Arm => table!(arm),
            Self::Riscv64 => generic(table!(riscv64)),
            Self::S390x => table!(s390x),
            Self::Ppc64le => table!(powerpc64),
            Self::Loongarch64 => generic(table!(loongarch64)),
        }
    }
}

/// The kernel's generic table for 64 bits (include/uapi/asm-generic/unistd.h). It calls `newfstatat`
/// `fstatat`, and the numbers 403 to 423 are for 32 bits only.
fn generic(mut numbers: Numbers) -> Numbers {
    if let Some(number) = numbers.get("fstatat").copied() {
        numbers.entry("newfstatat").or_insert(number);
    }
    numbers.retain(|_, number| !(403..=423).contains(number));
    numbers
}
