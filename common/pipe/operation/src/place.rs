//! Where an operation works, and what the user can do about an error there.

use nix::{errno::Errno, unistd::geteuid};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use crate::is_full;

/// Where the failed operation worked. The code that makes the error knows this, so nobody has to guess from
/// the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Files below `--root`: images, layers, containers, the cache.
    Store,
    /// Files below `--run-dir`: records, locks, leases, claims.
    RunDir,
    /// Standard output.
    Output,
    /// A file that the user named.
    File,
    /// Kernel variables below `/proc/sys`.
    Sysctl,
    /// Links, addresses, rules and network namespaces, which need root.
    Network,
    /// Mounts and the namespaces of processes, for which root of a user namespace is enough.
    Namespace,
}

const NEEDS_ROOT: &str = "this needs root: try it with sudo";
const NEEDS_NAMESPACE: &str =
    "this needs root, or a user namespace: run the pipe in `unshare --user --map-root-user --mount`";

const IN_CONTAINER: &str = "root may not do this here, as in a container: run the pipe in `unshare --user --map-root-user --mount`, \
     and start a container of Docker's with --security-opt seccomp=unconfined";

/// Whether the caller has CAP_SYS_ADMIN. Root in a container often does not.
fn is_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

impl Place {
    /// What the user can do about this error of the system in this place; `None` if nothing is known.
    pub fn hint(self, errno: Errno) -> Option<&'static str> {
        match errno {
            errno if is_full(&errno) => self.full(),
            Errno::EROFS => self.read_only(),
            Errno::EACCES | Errno::EPERM if !geteuid().is_root() => Some(self.denied(errno)),
            Errno::EPERM if self == Self::Namespace && !is_admin() => Some(IN_CONTAINER),
            _ => None,
        }
    }

    fn full(self) -> Option<&'static str> {
        match self {
            Self::Store => Some("make room there; `img-gc` removes images and layers that nothing refers to"),
            Self::RunDir => Some("make room there, or choose another place: --run-dir DIR (STAVE_RUN)"),
            Self::Output => Some("make room where standard output goes, or send it elsewhere"),
            Self::File => Some("make room there, or choose another place"),
            // Here ENOSPC means too many mounts or watches, and not a full disk.
            Self::Sysctl | Self::Network | Self::Namespace => None,
        }
    }

    fn read_only(self) -> Option<&'static str> {
        match self {
            Self::Store => Some("choose a place that can be written to: --root DIR (STAVE_ROOT)"),
            Self::RunDir => Some("choose a place that can be written to: --run-dir DIR (STAVE_RUN)"),
            Self::File => Some("choose a place that can be written to"),
            Self::Sysctl => Some(
                "/proc/sys is read-only here, as in a container: run it on the host, or in a privileged container",
            ),
            Self::Output | Self::Network | Self::Namespace => None,
        }
    }

    /// The hint for a user who is not root.
    fn denied(self, errno: Errno) -> &'static str {
        match self {
            // EPERM is not about the directory, but about chown, which only root may do.
            Self::Store if errno == Errno::EPERM => NEEDS_NAMESPACE,
            Self::RunDir => {
                "this needs root: try it with sudo, or choose a place of your own: --run-dir DIR (STAVE_RUN)"
            }
            Self::Namespace => NEEDS_NAMESPACE,
            Self::Store | Self::Output | Self::File | Self::Sysctl | Self::Network => NEEDS_ROOT,
        }
    }
}

/// The hint for a user who is not root and got EACCES or EPERM, when the place is not known.
pub fn needs_root(errno: Errno) -> Option<&'static str> {
    (matches!(errno, Errno::EACCES | Errno::EPERM) && !geteuid().is_root()).then_some(NEEDS_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_words() {
        for (place, errno, words) in [
            (Place::Store, Errno::EDQUOT, "img-gc"),
            (Place::Store, Errno::EROFS, "--root DIR"),
            (Place::RunDir, Errno::ENOSPC, "--run-dir DIR"),
            (Place::RunDir, Errno::EROFS, "--run-dir DIR"),
            (Place::Output, Errno::ENOSPC, "standard output"),
            (Place::Sysctl, Errno::EROFS, "/proc/sys"),
        ] {
            let hint = place.hint(errno).unwrap();
            assert!(hint.contains(words), "{place:?}: {hint}");
        }
        for (place, errno) in [
            (Place::Namespace, Errno::ENOSPC),
            (Place::Network, Errno::ENOSPC),
            (Place::Output, Errno::EPIPE),
            (Place::Store, Errno::EIO),
        ] {
            assert_eq!(place.hint(errno), None, "{place:?}");
        }
    }
}
