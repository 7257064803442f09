//! `--mount`, with Docker's syntax.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use mount::table;
use oci_spec::runtime::{Mount, MountBuilder};
use operation::quantity::{self, size};
use toolkit::prelude::*;

use super::csv;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag {
    pub(crate) target: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A directory or file of the host.
    Bind { source: PathBuf, options: Vec<String>, propagation: &'static str },
    /// A file system in memory.
    Tmpfs { options: Vec<String> },
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Values of `consistency`, which Docker accepts for other systems. Here a bind mount is always consistent.
const CONSISTENCIES: [&str; 4] = ["default", "consistent", "cached", "delegated"];

/// The fields as written.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: bool,
    propagation: Option<&'static str>,
    recursion: Option<Recursion>,
    size: Option<u64>,
    mode: Option<u32>,
    /// The names of fields that only one type of mount has.
    own: Vec<String>,
}

/// How to treat mounts below the source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recursion {
    Enabled,
    Disabled,
    /// Mount them too, and keep them writable.
    Writable,
    /// Mount them too, and make them read-only or fail.
    ReadOnly,
}

impl FromStr for MountFlag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = Fields::default();
        csv::record(text)?.iter().try_for_each(|field| fields.set(field))?;
        let target = fields.target.as_deref().ok_or("target is missing")?;
        let target = mount::plain(Path::new(target))
            .ok_or_else(|| format!("target {target:?} is not an absolute path below /"))?;
        let kind = match fields.kind.as_deref() {
            Some("bind") => fields.bind()?,
            Some("tmpfs") => fields.tmpfs()?,
            // Without a type, a mount is a volume, as with Docker.
            None | Some("volume") => {
                return Err("a volume belongs to the root file system: union-mount -v NAME:/PATH mounts it"
                    .to_owned());
            }
            Some(other) => return Err(format!("unknown type {other:?}: the types are bind and tmpfs")),
        };
        Ok(Self { target, kind })
    }
}

impl Fields {
    fn set(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, value),
            None if ["readonly", "ro", "bind-nonrecursive"].contains(&field) => (field, "true"),
            None => return Err(format!("{field:?} has no value")),
        };
        if ["bind-", "tmpfs-"].iter().any(|start| key.starts_with(start)) {
            self.own.push(key.to_owned());
        }
        let invalid = |words: &str| format!("{key}={value:?}: {words}");
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "readonly" | "ro" => self.readonly = truth(value).map_err(invalid)?,
            "bind-propagation" => {
                let known = PROPAGATIONS.iter().find(|known| **known == value.to_ascii_lowercase());
                self.propagation =
                    Some(known.ok_or_else(|| invalid(&format!("it is one of {}", PROPAGATIONS.join(", "))))?);
            }
            "bind-nonrecursive" => {
                let disabled = truth(value).map_err(invalid)?;
                self.recursion = Some(if disabled { Recursion::Disabled } else { Recursion::Enabled });
            }
            "bind-recursive" => {
                self.recursion = Some(match value {
                    "enabled" => Recursion::Enabled,
                    "disabled" => Recursion::Disabled,
                    "writable" => Recursion::Writable,
                    "readonly" => Recursion::ReadOnly,
                    _ => return Err(invalid("it is enabled, disabled, writable or readonly")),
                });
            }
            "tmpfs-size" => self.size = Some(size(value).map_err(|words| invalid(&words))?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| invalid("it is an octal number up to 7777"))?);
            }
            "consistency" if CONSISTENCIES.contains(&value) => {}
            "consistency" => return Err(invalid(&format!("it is one of {}", CONSISTENCIES.join(", ")))),
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }

    /// Fails if a field belongs to another type of mount.
    fn only(&self, kind: &str) -> Result<(), String> {
        let start = format!("{kind}-");
        match self.own.iter().find(|key| !key.starts_with(&start)) {
            Some(key) => Err(format!("{key} is not for type={kind}")),
            None => Ok(()),
        }
    }

    fn bind(self) -> Result<Kind, String> {
        self.only("bind")?;
        let source = PathBuf::from(self.source.unwrap_or_default());
        let is_here = source.components().next() == Some(std::path::Component::CurDir);
        if !(source.is_absolute() || is_here) {
            return Err(format!("source {source:?} is neither an absolute path nor one that begins with ./"));
        }
        let propagation = self.propagation.unwrap_or("rprivate");
        let mut options = vec![propagation.to_owned()];
        let recursion = self.recursion.unwrap_or(Recursion::Enabled);
        options.push(if recursion == Recursion::Disabled { "bind" } else { "rbind" }.to_owned());
        match (recursion, self.readonly) {
            (Recursion::Writable | Recursion::ReadOnly, false) => {
                return Err("bind-recursive=writable and readonly go with readonly".to_owned());
            }
            (Recursion::ReadOnly, _) if propagation != "rprivate" => {
                return Err("bind-recursive=readonly goes with bind-propagation=rprivate".to_owned());
            }
            (Recursion::Writable, true) => options.push("ro=vfs".to_owned()),
            (_, true) => options.push("ro".to_owned()),
            (_, false) => {}
        }
        Ok(Kind::Bind { source, options, propagation })
    }

    fn tmpfs(self) -> Result<Kind, String> {
        self.only("tmpfs")?;
        if let Some(source) = self.source.filter(|source| !source.is_empty()) {
            return Err(format!("source {source:?}: type=tmpfs has none"));
        }
        let mut options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        options.extend(self.readonly.then(|| "ro".to_owned()));
        options.extend(self.size.map(|size| format!("size={size}")));
        options.extend(self.mode.map(|mode| format!("mode={mode:o}")));
        Ok(Kind::Tmpfs { options })
    }
}

/// Parses a truth value.
fn truth(text: &str) -> Result<bool, &'static str> {
    quantity::truth(text).ok_or("it is true or false")
}

impl MountFlag {
    /// Returns the mount. Its source must exist.
    pub(crate) fn mount(&self) -> Result<Mount> {
        let builder = MountBuilder::default().destination(&self.target);
        let builder = match &self.kind {
            Kind::Tmpfs { options } => builder.typ("tmpfs").source("tmpfs").options(options.clone()),
            Kind::Bind { source, options, propagation } => {
                let source =
                    source.canonicalize().with_context(|| format!("find mount source {source:?}"))?;
                spreads(&source, propagation)?;
                builder.typ("bind").source(source).options(options.clone())
            }
        };
        Ok(builder.build()?)
    }
}

/// Fails if mounts below the source cannot propagate as requested. That depends on the mount that contains
/// the source.
fn spreads(source: &Path, propagation: &str) -> Result<()> {
    let kind = propagation.trim_start_matches('r');
    if kind == "private" {
        return Ok(());
    }
    let Some(entry) = table::holding(source)? else { return Ok(()) };
    if entry.shared || (kind == "slave" && entry.slave) {
        return Ok(());
    }
    let error = anyhow!(
        "mount {source:?}: bind-propagation={propagation} needs a shared mount, and {:?} is none",
        entry.target
    );
    let command = format!("mount --make-rshared {}", operation::quote(&entry.target.to_string_lossy()));
    Err(hint(error, format!("`{command}` makes it one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_as_docker_writes_them() {
        let bind = |source: &str, options: &[&str]| {
            let propagation = PROPAGATIONS.iter().find(|known| **known == options[0]).unwrap();
            Kind::Bind {
                source: source.into(),
                options: options.iter().map(|&one| one.to_owned()).collect(),
                propagation,
            }
        };
        let tmpfs = |options: &[&str]| {
            let all = ["nosuid", "nodev", "noexec"].iter().chain(options);
            Kind::Tmpfs { options: all.map(|&one| one.to_owned()).collect() }
        };
        for (text, kind) in [
            ("type=bind,source=/a,target=/x", bind("/a", &["rprivate", "rbind"])),
            ("type=BIND,src=/a,dst=/x//.,readonly", bind("/a", &["rprivate", "rbind", "ro"])),
            ("type=bind,src=./a,destination=/x,ro=1", bind("./a", &["rprivate", "rbind", "ro"])),
            ("type=bind,src=.,target=/x,ro=false,consistency=cached", bind(".", &["rprivate", "rbind"])),
            ("type=bind,\"src=/a,\"\"b\",target=/x", bind("/a,\"b", &["rprivate", "rbind"])),
            ("type=bind,src=/a,target=/x,bind-propagation=rslave", bind("/a", &["rslave", "rbind"])),
            ("type=bind,src=/a,target=/x,bind-nonrecursive,ro", bind("/a", &["rprivate", "bind", "ro"])),
            ("type=bind,src=/a,target=/x,bind-recursive=disabled", bind("/a", &["rprivate", "bind"])),
            (
                "type=bind,src=/a,target=/x,ro,bind-recursive=writable",
                bind("/a", &["rprivate", "rbind", "ro=vfs"]),
            ),
            (
                "type=bind,src=/a,target=/x,ro,bind-recursive=readonly",
                bind("/a", &["rprivate", "rbind", "ro"]),
            ),
            ("type=tmpfs,target=/x", tmpfs(&[])),
            (
                "type=tmpfs,dst=/x,tmpfs-size=64m,tmpfs-mode=0700,ro",
                tmpfs(&["ro", "size=67108864", "mode=700"]),
            ),
        ] {
            assert_eq!(text.parse(), Ok(MountFlag { target: "/x".into(), kind }), "{text}");
        }
    }

    #[test]
    fn what_is_not_carried_out_is_named() {
        let no_volumes = "a volume belongs to the root file system: union-mount -v NAME:/PATH mounts it";
        for (text, error) in [
            ("src=data,target=/x", no_volumes),
            ("type=volume,target=/x", no_volumes),
            ("type=npipe,target=/x", "unknown type \"npipe\": the types are bind and tmpfs"),
            ("type=bind,src=/a,target=/x,color=red", "unknown key \"color\""),
            ("type=volume,target=/x,volume-nocopy=true", "unknown key \"volume-nocopy\""),
            ("type=bind,src=/a,target=/x,rw", "\"rw\" has no value"),
            ("type=bind,src=/a", "target is missing"),
            ("type=bind,src=/a,target=x", "target \"x\" is not an absolute path below /"),
            ("type=bind,src=/a,target=/x/..", "target \"/x/..\" is not an absolute path below /"),
            (
                "type=bind,src=a,target=/x",
                "source \"a\" is neither an absolute path nor one that begins with ./",
            ),
            ("type=bind,target=/x", "source \"\" is neither an absolute path nor one that begins with ./"),
            ("type=bind,src=/a,target=/x,ro=maybe", "ro=\"maybe\": it is true or false"),
            ("type=bind,src=/a,target=/x,tmpfs-size=1", "tmpfs-size is not for type=bind"),
            ("type=tmpfs,target=/x,bind-propagation=rslave", "bind-propagation is not for type=tmpfs"),
            ("type=tmpfs,src=/a,target=/x", "source \"/a\": type=tmpfs has none"),
            ("type=tmpfs,target=/x,tmpfs-mode=9", "tmpfs-mode=\"9\": it is an octal number up to 7777"),
            ("type=tmpfs,target=/x,tmpfs-size=big", "tmpfs-size=\"big\": a number, with K, M, G or T"),
            (
                "type=bind,src=/a,target=/x,bind-recursive=writable",
                "bind-recursive=writable and readonly go with readonly",
            ),
            (
                "type=bind,src=/a,target=/x,ro,bind-recursive=readonly,bind-propagation=shared",
                "bind-recursive=readonly goes with bind-propagation=rprivate",
            ),
        ] {
            assert_eq!(text.parse::<MountFlag>(), Err(error.to_owned()), "{text}");
        }
    }
}
