//! Mount options in the form of `mount -o`, `/etc/fstab` and the OCI runtime-spec.

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// The options of one mount, sorted by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount to set: read-only, nosuid, nodev, noexec, access times.
    pub attributes: MountAttrFlags,
    /// Attributes to set on the mount itself, but never on the mounts below it.
    pub shallow: MountAttrFlags,
    /// Attributes to clear on a bind mount. All others stay.
    pub cleared: MountAttrFlags,
    /// Whether `attributes` contains access times.
    pub sets_times: bool,
    /// Whether it is a bind mount. `Some(true)` includes the mounts below.
    pub bind: Option<bool>,
    /// Propagation. With `REC` it includes the mounts below.
    pub propagation: Option<MountPropagationFlags>,
    /// Attributes to set and to clear on the mount and on all mounts below it, and whether access times are
    /// among them.
    pub below: (MountAttrFlags, MountAttrFlags, bool),
    /// Whether to change the existing mount.
    pub remounts: bool,
    /// Whether a new tmpfs starts with a copy of the files at the mount point.
    pub copies_up: bool,
    /// Options for the file system, as `key=value` or `flag`.
    pub data: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attributes: MountAttrFlags::empty(),
            shallow: MountAttrFlags::empty(),
            cleared: MountAttrFlags::empty(),
            sets_times: false,
            bind: None,
            propagation: None,
            below: (MountAttrFlags::empty(), MountAttrFlags::empty(), false),
            remounts: false,
            copies_up: false,
            data: Vec::new(),
        }
    }
}

/// The options of OCI runtime-spec that are flags of a whole file system (mount(2)).
pub const FILE_SYSTEM: [&str; 7] = ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"];

enum Meaning {
    Set(MountAttrFlags),
    SetHere(MountAttrFlags),
    Clear(MountAttrFlags),
    Times(MountAttrFlags),
    Bind(bool),
    Propagation(MountPropagationFlags),
    Remount,
    CopyUp,
    Nothing,
}

fn meaning(word: &str) -> Option<Meaning> {
    use Meaning::*;
    let recursive = MountPropagationFlags::REC;
    Some(match word {
        "ro" => Set(MountAttrFlags::MOUNT_ATTR_RDONLY),
        // mount(8): read-only for this mount only, not for its file system.
        "ro=vfs" => SetHere(MountAttrFlags::MOUNT_ATTR_RDONLY),
        "rw" => Clear(MountAttrFlags::MOUNT_ATTR_RDONLY),
        "nosuid" => Set(MountAttrFlags::MOUNT_ATTR_NOSUID),
        "suid" => Clear(MountAttrFlags::MOUNT_ATTR_NOSUID),
        "nodev" => Set(MountAttrFlags::MOUNT_ATTR_NODEV),
        "dev" => Clear(MountAttrFlags::MOUNT_ATTR_NODEV),
        "noexec" => Set(MountAttrFlags::MOUNT_ATTR_NOEXEC),
        "exec" => Clear(MountAttrFlags::MOUNT_ATTR_NOEXEC),
        "nosymfollow" => Set(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => Clear(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => Set(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        "diratime" => Clear(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        // The default (mount(8)).
        "atime" | "norelatime" | "nostrictatime" => Times(MountAttrFlags::MOUNT_ATTR_RELATIME),
        "relatime" => Times(MountAttrFlags::MOUNT_ATTR_RELATIME),
        "noatime" => Times(MountAttrFlags::MOUNT_ATTR_NOATIME),
        "strictatime" => Times(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        "bind" => Bind(false),
        "rbind" => Bind(true),
        "private" => Propagation(MountPropagationFlags::PRIVATE),
        "rprivate" => Propagation(MountPropagationFlags::PRIVATE | recursive),
        "slave" => Propagation(MountPropagationFlags::DOWNSTREAM),
        "rslave" => Propagation(MountPropagationFlags::DOWNSTREAM | recursive),
        "shared" => Propagation(MountPropagationFlags::SHARED),
        "rshared" => Propagation(MountPropagationFlags::SHARED | recursive),
        "unbindable" => Propagation(MountPropagationFlags::UNBINDABLE),
        "runbindable" => Propagation(MountPropagationFlags::UNBINDABLE | recursive),
        "remount" => Remount,
        "tmpcopyup" => CopyUp,
        // `silent` and `loud` only change what the kernel logs, and the mount API has no such options. Nor has it
        // `iversion`: a file system that counts versions does so by itself.
        "defaults" | "" | "iversion" | "noiversion" | "silent" | "loud" => Nothing,
        _ => return None,
    })
}

/// Options of the OCI runtime-spec that include all mounts below, such as `rro` for `ro`.
fn recursive_meaning(word: &str) -> Option<Meaning> {
    const WORDS: [&str; 15] = [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "strictatime",
        "nosymfollow",
    ];
    let plain = word.strip_prefix('r')?;
    (WORDS.contains(&plain) || ["symfollow", "norelatime", "nostrictatime"].contains(&plain))
        .then(|| meaning(plain))?
}

impl Options {
    /// Parses mount options. Later ones override earlier ones.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        let mut options = Self::default();
        for word in words {
            let meaning = meaning(word.as_ref());
            if meaning.is_none() && options.add_below(word.as_ref()) {
                continue;
            }
            match meaning {
                Some(Meaning::Remount) => options.remounts = true,
                Some(Meaning::CopyUp) => options.copies_up = true,
                Some(Meaning::Set(flag)) => {
                    options.attributes |= flag;
                    options.cleared -= flag;
                }
                Some(Meaning::SetHere(flag)) => {
                    options.shallow |= flag;
                    options.attributes -= flag;
                    options.cleared -= flag;
                }
                Some(Meaning::Clear(flag)) => {
                    options.cleared |= flag;
                    options.attributes -= flag;
                    options.shallow -= flag;
                }
                Some(Meaning::Times(flag)) => {
                    options.attributes -= MountAttrFlags::MOUNT_ATTR__ATIME;
                    options.attributes |= flag;
                    options.sets_times = true;
                }
                // `rbind` includes `bind`, so it wins in either order.
                Some(Meaning::Bind(recursive)) => {
                    options.bind = Some(recursive || options.bind == Some(true))
                }
                Some(Meaning::Propagation(kind)) => options.propagation = Some(kind),
                Some(Meaning::Nothing) => {}
                None => options.data.push(word.as_ref().to_owned()),
            }
        }
        options
    }

    /// Applies `word` if it is an option for this mount and all mounts below. Returns false for any other
    /// word.
    fn add_below(&mut self, word: &str) -> bool {
        let (set, cleared, times) = &mut self.below;
        match recursive_meaning(word) {
            Some(Meaning::Set(flag)) => {
                *set |= flag;
                *cleared -= flag;
            }
            Some(Meaning::Clear(flag)) => {
                *cleared |= flag;
                *set -= flag;
            }
            Some(Meaning::Times(flag)) => {
                *set = (*set - MountAttrFlags::MOUNT_ATTR__ATIME) | flag;
                *times = true;
            }
            _ => return false,
        }
        true
    }

    /// Whether the mount is read-only.
    pub fn is_readonly(&self) -> bool {
        (self.attributes | self.below.0).contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Whether the propagation includes the mounts below.
    pub fn is_recursive(&self) -> bool {
        self.propagation.is_some_and(|kind| kind.contains(MountPropagationFlags::REC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_words_win_and_unknown_ones_are_the_file_systems_own() {
        let options =
            Options::parse(["nosuid", "ro", "rw", "strictatime", "mode=755", "rbind", "bind", "rprivate"]);
        assert_eq!(
            options,
            Options {
                attributes: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME,
                shallow: MountAttrFlags::empty(),
                cleared: MountAttrFlags::MOUNT_ATTR_RDONLY,
                sets_times: true,
                bind: Some(true),
                propagation: Some(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
                data: vec!["mode=755".into()],
                ..Options::default()
            }
        );
    }

    #[test]
    fn words_of_the_runtime_spec_for_all_mounts_below() {
        let options = Options::parse(["rbind", "rro", "rnodev", "rdev", "rnoatime", "tmpcopyup", "remount"]);
        let (set, cleared, times) = options.below;
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME;
        assert_eq!((set, cleared, times), (read_only, MountAttrFlags::MOUNT_ATTR_NODEV, true));
        assert!(options.remounts && options.copies_up && options.data.is_empty());
        assert_eq!(Options::parse(["rfoo", "ridmap"]).data, ["rfoo", "ridmap"]);
    }
}
