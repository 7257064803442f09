//! Mount options in the form of `mount -o`, `/etc/fstab` and the OCI runtime-spec.

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// Options of one mount, sorted by their kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount to set: read-only, nosuid, nodev, noexec, access times.
    pub attributes: MountAttrFlags,
    /// Attributes to set on the mount itself, and never on those below it.
    pub shallow: MountAttrFlags,
    /// Attributes of a bind mount to clear. The others stay.
    pub cleared: MountAttrFlags,
    /// Whether access times are among the attributes.
    pub sets_times: bool,
    /// A bind mount; `Some(true)` includes the mounts below.
    pub bind: Option<bool>,
    /// Propagation; with `REC` also of the mounts below.
    pub propagation: Option<MountPropagationFlags>,
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
            data: Vec::new(),
        }
    }
}

enum Meaning {
    Set(MountAttrFlags),
    SetHere(MountAttrFlags),
    Clear(MountAttrFlags),
    Times(MountAttrFlags),
    Bind(bool),
    Propagation(MountPropagationFlags),
    Nothing,
}

fn meaning(word: &str) -> Option<Meaning> {
    use Meaning::*;
    let recursive = MountPropagationFlags::REC;
    Some(match word {
        "ro" => Set(MountAttrFlags::MOUNT_ATTR_RDONLY),
        // mount(8): of this mount alone, and not of its file system.
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
        "defaults" | "" => Nothing,
        _ => return None,
    })
}

impl Options {
    /// Sorts the words; later ones override.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        let mut options = Self::default();
        for word in words {
            match meaning(word.as_ref()) {
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
                Some(Meaning::Bind(recursive)) => options.bind = Some(recursive),
                Some(Meaning::Propagation(kind)) => options.propagation = Some(kind),
                Some(Meaning::Nothing) => {}
                None => options.data.push(word.as_ref().to_owned()),
            }
        }
        options
    }

    /// Whether the mounts below get the same propagation.
    pub fn is_recursive(&self) -> bool {
        self.propagation.is_some_and(|kind| kind.contains(MountPropagationFlags::REC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_words_win_and_unknown_ones_are_the_file_systems_own() {
        let options = Options::parse(["nosuid", "ro", "rw", "strictatime", "mode=755", "rbind", "rprivate"]);
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
            }
        );
    }
}
