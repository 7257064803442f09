//! Enables and disables IPv6 on a link.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use ::mount::FileSystem;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::write,
};
use rustix::mount::MountAttrFlags;

use super::{Conf, LINKS, SET};
use crate::{Error, errno_of};

/// Disables IPv6 on a link of the namespace, or here.
pub(crate) fn switch_ipv6_off(namespace: Option<&Path>, link: &str) -> Result<(), Error> {
    let conf = Conf::disable_ipv6(link);
    let failed = |source| Error::new("set", conf.name(), source).within(namespace);
    if !conf.is_plain() {
        return Err(failed(Errno::EINVAL));
    }
    with_proc(namespace, |proc| switch_ipv6_off_by(proc, link)).map_err(failed)
}

/// Whether new links in the namespace have IPv6. False if there is no such namespace yet.
pub fn new_links_have_ipv6(namespace: &Path) -> bool {
    is_ipv6_off(Some(namespace), "default").is_ok_and(|is_off| !is_off)
}

/// Disables IPv6 on an interface, or on all future ones (`default`). The variable is written
/// through the proc file system `proc`, in this thread's network namespace. Does nothing if the
/// kernel has no IPv6.
///
/// # Errors
/// When the kernel refuses. ENOENT if `proc` shows no variables.
pub fn switch_ipv6_off_by(proc: impl AsFd, interface: &str) -> Result<(), Errno> {
    match open(&proc, interface, OFlag::O_WRONLY)? {
        None => Ok(()),
        Some(file) => write(file, b"1").map(drop),
    }
}

/// Opens `disable_ipv6` of an interface. None if the kernel has no IPv6.
fn open(proc: impl AsFd, interface: &str, flags: OFlag) -> Result<Option<OwnedFd>, Errno> {
    let path = format!("sys/net/ipv6/conf/{interface}/disable_ipv6");
    match openat(&proc, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()) {
        // Not where nothing is visible: a link would keep its IPv6 without a word.
        Err(Errno::ENOENT) => {
            let links = Path::new(LINKS.trim_start_matches("/proc/"));
            openat(&proc, links, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map(|_| None)
        }
        file => file.map(Some),
    }
}

/// Runs `work` in the namespace, or here, with a proc file system that shows the variables of that
/// namespace. For another namespace, a new proc is mounted: entries looked up in a shared mount
/// would stay cached there as long as the namespace lasts.
fn with_proc<T: Send>(
    namespace: Option<&Path>,
    work: impl FnOnce(OwnedFd) -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    let here = || File::open("/proc").map(OwnedFd::from).map_err(|source| errno_of(&source));
    match namespace {
        None => work(here()?),
        Some(path) => crate::namespace::enter(path, || {
            let own = FileSystem::open("proc").and_then(|proc| proc.mount(MountAttrFlags::empty()));
            work(match own {
                Ok(proc) => proc.into(),
                Err(_) => here()?,
            })
        })?,
    }
}

/// The variables that are 0 on a link of ours with IPv6. No router decides its addresses. Duplicate
/// address detection (RFC 4862, 5.4) is off for its link-local address, which is derived from the
/// hardware address: during the detection, a second or more, the host would not resolve the
/// neighbours of forwarded packets. No redirect (RFC 4861, 8) tells the hardware address of a neighbour that a
/// bridge isolates: packets for it go by the host. The kernel has no variable for hosts that send none.
/// `disable_ipv6` is last because it enables IPv6.
pub(crate) const OFF: [&str; 4] = ["accept_ra", "accept_dad", "accept_redirects", "disable_ipv6"];

/// Enables IPv6 on a link, without router advertisements.
pub(crate) fn switch_ipv6_on(namespace: Option<&Path>, link: &str) -> Result<(), Error> {
    let conf = Conf::disable_ipv6(link);
    let failed = |source| Error::new("set", conf.name(), source).within(namespace);
    if !conf.is_plain() {
        return Err(failed(Errno::EINVAL));
    }
    let set = |proc: OwnedFd| {
        for variable in OFF {
            let path = format!("sys/net/ipv6/conf/{link}/{variable}");
            let file = openat(&proc, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            write(file, b"0")?;
        }
        Ok(())
    };
    with_proc(namespace, set).map_err(failed)
}

/// Whether IPv6 is off on a link of the namespace, or here. Without IPv6 in the kernel it is off
/// everywhere.
pub(crate) fn is_ipv6_off(namespace: Option<&Path>, link: &str) -> Result<bool, Error> {
    let conf = Conf::disable_ipv6(link);
    let failed = |source| Error::new("read", conf.name(), source).within(namespace);
    let read = |proc: OwnedFd| {
        let Some(file) = open(&proc, link, OFlag::O_RDONLY)? else { return Ok(true) };
        let mut value = String::new();
        let read = File::from(file).read_to_string(&mut value);
        read.map_err(|source| errno_of(&source)).map(|_| value.trim() == SET)
    };
    with_proc(namespace, read).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_proc_without_variables_does_not_mean_a_kernel_without_ipv6() {
        let dir = tempfile::tempdir().unwrap();
        let proc = File::open(dir.path()).unwrap();
        assert_eq!(switch_ipv6_off_by(&proc, "default"), Err(Errno::ENOENT));
        std::fs::create_dir_all(dir.path().join("sys/net/ipv4/conf")).unwrap();
        assert_eq!(switch_ipv6_off_by(&proc, "default"), Ok(()));
    }
}
