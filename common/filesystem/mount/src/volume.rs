use std::{
    path::{Component, Path, PathBuf},
    str::FromStr,
};

/// This file exists if SELinux is active.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// A file or directory of the host that is mounted in a container: `SRC:DST[:OPTIONS]`, as in Docker's `-v`,
/// with Podman's option `idmap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container, without `.` and `..`.
    pub target: PathBuf,
    /// Whether the mount is read-only.
    pub readonly: bool,
    /// Whether files have the same owner ids in the container's user namespace as on the disk.
    pub idmap: bool,
}

/// The options of a volume: `ro,idmap`, as in Docker's `-v`, with Podman's option `idmap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeOptions {
    /// Whether the mount is read-only.
    pub readonly: bool,
    /// Whether files have the same owner ids in the container's user namespace as on the disk.
    pub idmap: bool,
    /// Whether an empty volume with a name stays empty, and does not get the image's files.
    pub nocopy: bool,
}

/// The error for text that is not a volume.
#[derive(Debug, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct InvalidVolume {
    text: String,
    reason: &'static str,
}

impl InvalidVolume {
    /// What is wrong, without the text.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl FromStr for VolumeOptions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let mut options = Self::default();
        for option in text.split(',') {
            match option {
                "ro" => options.readonly = true,
                "rw" => options.readonly = false,
                "idmap" => options.idmap = true,
                "nocopy" => options.nocopy = true,
                // The default, and options that only have an effect with Docker on other systems.
                "rprivate" | "consistent" | "cached" | "delegated" => {}
                "z" | "Z" if Path::new(SELINUX).exists() => {
                    return Err("files are not labelled anew for SELinux: leave out z and Z, and use chcon");
                }
                // Without SELinux there are no labels.
                "z" | "Z" => {}
                _ => return Err("the options of a volume are ro, rw, nocopy and idmap"),
            }
        }
        Ok(options)
    }
}

impl FromStr for Volume {
    type Err = InvalidVolume;

    fn from_str(text: &str) -> Result<Self, InvalidVolume> {
        let error = |reason| InvalidVolume { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, "rw"),
            [source, target, options] => (source, target, options),
            _ => return Err(error("a volume is SRC:DST or SRC:DST:ro")),
        };
        let VolumeOptions { readonly, idmap, nocopy } = options.parse().map_err(error)?;
        if nocopy {
            return Err(error("nocopy is for a volume with a name"));
        }
        if !source.starts_with('/') {
            return Err(error("the source of a volume is an absolute path on the host"));
        }
        let target = plain(Path::new(target))
            .ok_or_else(|| error("the target of a volume is an absolute path below /"))?;
        Ok(Self { source: source.into(), target, readonly, idmap })
    }
}

/// Returns an absolute path below `/` in normal form, and `None` for other paths. `..` removes the name before it,
/// whatever is there, and has no effect at the top, as with Docker.
pub fn plain(path: &Path) -> Option<PathBuf> {
    let mut spelled = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => spelled.push(name),
            Component::ParentDir => drop(spelled.pop()),
            _ => return None,
        }
    }
    (path.is_absolute() && spelled != Path::new("/")).then_some(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_writes_it() {
        let volume = |source: &str, target: &str, readonly| Volume {
            source: source.into(),
            target: target.into(),
            readonly,
            idmap: false,
        };
        for (text, expected) in [
            ("/a:/b", Ok(volume("/a", "/b", false))),
            ("/a:/b//c/.:ro", Ok(volume("/a", "/b/c", true))),
            ("/a:/b:rw", Ok(volume("/a", "/b", false))),
            ("/a:/b:ro,cached", Ok(volume("/a", "/b", true))),
            ("/a:/b:ro,idmap", Ok(Volume { idmap: true, ..volume("/a", "/b", true) })),
            ("/a", Err("\"/a\": a volume is SRC:DST or SRC:DST:ro")),
            ("a:/b", Err("\"a:/b\": the source of a volume is an absolute path on the host")),
            ("/a:b", Err("\"/a:b\": the target of a volume is an absolute path below /")),
            ("/a:/b/../c", Ok(volume("/a", "/c", false))),
            ("/a:/../../c/d/..", Ok(volume("/a", "/c", false))),
            ("/a:/b/..", Err("\"/a:/b/..\": the target of a volume is an absolute path below /")),
            ("/a:/", Err("\"/a:/\": the target of a volume is an absolute path below /")),
            ("/a:/b:x", Err("\"/a:/b:x\": the options of a volume are ro, rw, nocopy and idmap")),
        ] {
            assert_eq!(
                text.parse::<Volume>().map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
    }
}
