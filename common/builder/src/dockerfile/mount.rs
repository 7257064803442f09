//! `--mount` of RUN: `RUN --mount=type=cache,target=/var/cache/apt` (reference, "RUN --mount").

use std::fmt;

use operation::quantity;

use super::suggest::suggest;

/// The type of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Type {
    /// Files of the context, a stage or an image. What the command writes is dropped after the step.
    #[default]
    Bind,
    /// A directory that persists from one build to the next.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A file or variable that only the command sees. It gets into no image and no cache.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache mount at the same time, from the least strict to the strictest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Any number of builds.
    #[default]
    Shared,
    /// One build. Another build gets a new directory.
    Private,
    /// One build. Other builds wait.
    Locked,
}

/// One `--mount` whose variables are expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: Type,
    /// `from`: a stage or image. `None` for the context, or for an empty cache.
    pub from: Option<String>,
    /// `source`: the path in `from`.
    pub source: Option<String>,
    /// `target`: the mount point. Relative paths are relative to the working directory, which is also the
    /// default.
    pub target: String,
    /// Whether the mount is read-only.
    pub readonly: bool,
    /// `id` of a cache (by default the target), a secret or an agent.
    pub id: Option<String>,
    /// `required`: whether the step fails without the secret or the agent.
    pub required: bool,
    /// `env` of a secret: the variable that gets the secret.
    pub env: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Sharing,
    /// `size` of a tmpfs in bytes.
    pub size: Option<u64>,
    /// `mode` of a new cache directory or a secret's file.
    pub mode: Option<u32>,
    /// `uid` of a new cache directory or a secret's file.
    pub uid: Option<u32>,
    /// `gid` of a new cache directory or a secret's file.
    pub gid: Option<u32>,
}

impl Mount {
    /// The mount option for reading only, or for reading and writing: `ro` or `rw`.
    pub(crate) fn access(&self) -> &'static str {
        if self.readonly { "ro" } else { "rw" }
    }
}

/// Checks the part of a mount that must not depend on variables.
pub(super) fn check(text: &str) -> Result<(), String> {
    match from(text).is_some_and(|from| from.contains('$')) {
        true => Err("'from' doesn't support variable expansion, define alias stage instead".to_owned()),
        false => Ok(()),
    }
}

/// The value of `from`, which cannot contain variables.
pub(crate) fn from(text: &str) -> Option<String> {
    MountFields::of(text).0.into_iter().find(|(key, _)| key == "from").and_then(|(_, value)| value)
}

/// The fields of a mount: keys, and values if they have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFields(Vec<(String, Option<String>)>);

impl MountFields {
    /// Splits the text at commas. A field may be quoted as a whole (`"target=/a,b"`).
    pub fn of(text: &str) -> Self {
        let mut fields = vec![String::new()];
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
            }
        }
        let split = |field: String| match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        Self(fields.into_iter().map(split).collect())
    }

    /// Changes each value. A value that a variable gives stays one value, whatever it contains.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map<E>(self, change: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        let change = |(key, value): (String, Option<String>)| {
            Ok((key, value.map(|value| change(&value)).transpose()?))
        };
        self.0.into_iter().map(change).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for MountFields {
    /// Writes the fields as in a Dockerfile. A field with a comma is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let field = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
            let quote = if field.contains(',') { "\"" } else { "" };
            write!(f, "{}{quote}{field}{quote}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The keys of a mount.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Reads the value of `--mount`.
///
/// # Errors
/// What is wrong, in Docker's words if Docker has the same error.
pub fn parse(fields: MountFields) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut readonly = None;
    for (key, value) in fields.0 {
        let invalid = |value: &str| format!("invalid value for {key}: {value}");
        let boolean = |value: &str| quantity::truth(value).ok_or_else(|| invalid(value));
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => readonly = Some(true),
                "readwrite" | "rw" => readonly = Some(false),
                "required" => mount.required = true,
                _ => return Err(format!("invalid field '{key}' must be a key=value pair")),
            }
            continue;
        };
        match key.as_str() {
            "type" => mount.kind = kind(&value)?,
            "from" => mount.from = Some(value),
            "source" | "src" => mount.source = Some(value),
            "target" | "dst" | "destination" => mount.target = value,
            "readonly" | "ro" => readonly = Some(boolean(&value)?),
            "readwrite" | "rw" => readonly = Some(!boolean(&value)?),
            "size" => mount.size = Some(quantity::size(&value).map_err(|_| invalid(&value))?),
            "id" => mount.id = Some(value),
            "required" => mount.required = boolean(&value)?,
            "env" => mount.env = Some(value),
            "sharing" => mount.sharing = sharing(&value)?,
            "mode" => mount.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| invalid(&value))?),
            "uid" => mount.uid = Some(value.parse().map_err(|_| invalid(&value))?),
            "gid" => mount.gid = Some(value.parse().map_err(|_| invalid(&value))?),
            _ => return Err(format!("unexpected key '{key}' in '{key}={value}'{}", suggest(&key, &KEYS))),
        }
    }
    // The socket of an agent can be used through a read-only mount too. Then only its mode cannot be changed.
    mount.readonly = readonly.unwrap_or(matches!(mount.kind, Type::Bind | Type::Secret));
    finish(mount)
}

fn kind(value: &str) -> Result<Type, String> {
    match value.to_ascii_lowercase().as_str() {
        "bind" => Ok(Type::Bind),
        "cache" => Ok(Type::Cache),
        "tmpfs" => Ok(Type::Tmpfs),
        "secret" => Ok(Type::Secret),
        "ssh" => Ok(Type::Ssh),
        _ => {
            let near = suggest(value, &["bind", "cache", "tmpfs", "secret", "ssh"]);
            Err(format!("unsupported mount type {value:?}{near}"))
        }
    }
}

fn sharing(value: &str) -> Result<Sharing, String> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let near = suggest(value, &["shared", "private", "locked"]);
            Err(format!("unsupported sharing value {value:?}{near}"))
        }
    }
}

/// Checks the rules between fields.
fn finish(mount: Mount) -> Result<Mount, String> {
    let (kind, name) = (mount.kind, mount.kind.name());
    if mount.size.is_some() && kind != Type::Tmpfs {
        return Err(format!("unexpected key 'size' for mount type '{name}'"));
    }
    if mount.sharing != Sharing::Shared && kind != Type::Cache {
        return Err(format!("invalid cache sharing set for {name} mount"));
    }
    if mount.required && !matches!(kind, Type::Secret | Type::Ssh) {
        return Err(format!("unexpected key 'required' for mount type '{name}'"));
    }
    if mount.env.is_some() && kind != Type::Secret {
        return Err(format!("unexpected key 'env' for mount type '{name}'"));
    }
    let source = mount.source.as_deref().unwrap_or_default();
    if kind == Type::Cache && mount.from.is_none() && !source.trim_matches(['/', '.']).is_empty() {
        return Err("'source' of a cache mount needs 'from'".to_owned());
    }
    if matches!(kind, Type::Bind | Type::Tmpfs) {
        for (field, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if given.is_some() {
                return Err(format!("{field} not allowed for {name:?} type mounts"));
            }
        }
    }
    if kind == Type::Secret {
        if mount.from.is_some() {
            return Err("secret mount should not have a from".to_owned());
        }
        if mount.source.is_none() && mount.target.is_empty() && mount.id.is_none() {
            return Err("invalid secret mount. one of source, target required".to_owned());
        }
        if mount.source.is_some() && mount.id.is_some() {
            return Err("both source and id can't be set".to_owned());
        }
    }
    Ok(mount)
}
