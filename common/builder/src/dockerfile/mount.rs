//! `RUN --mount=type=cache,target=/var/cache/apt` (reference, "RUN --mount").

use operation::quantity;

use super::suggest::suggest;

/// What a mount shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Type {
    /// Files of the context, of a stage or of an image. Writes are dropped after the step.
    #[default]
    Bind,
    /// A directory that stays from one build to the next.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A file or a variable that only the command sees; no image and no cache has it.
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

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// One; others get a new one.
    Private,
    /// One; others wait.
    Locked,
}

/// One `--mount`, its variables expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: Type,
    /// `from`: a stage or an image; none for the context, or for an empty cache.
    pub from: Option<String>,
    /// `source`, below `from`.
    pub source: Option<String>,
    /// `target`; relative to the working directory, which is the target where none is given.
    pub target: String,
    /// Whether the command may not write there.
    pub readonly: bool,
    /// `id` of a cache, the target where not given; of a secret or an agent.
    pub id: Option<String>,
    /// `required`: whether the step fails without the secret or the agent.
    pub required: bool,
    /// `env` of a secret: the variable that has it.
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

/// What can be said of a mount before variables are known.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.contains('$') {
        return match fields(text)
            .iter()
            .any(|(key, value)| key == "from" && value.as_ref().is_some_and(|v| v.contains('$')))
        {
            true => Err("'from' doesn't support variable expansion, define alias stage instead".to_owned()),
            false => Ok(()),
        };
    }
    parse(text).map(|_| ())
}

/// `from`, which holds no variables.
pub(crate) fn from(text: &str) -> Option<String> {
    fields(text).into_iter().find(|(key, _)| key == "from").and_then(|(_, value)| value)
}

/// The comma-separated fields, of which one may be quoted as a whole (`"target=/a,b"`).
fn fields(text: &str) -> Vec<(String, Option<String>)> {
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
    fields.into_iter().map(split).collect()
}

/// What a mount may say.
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

/// Parses the value of `--mount`.
///
/// # Errors
/// What is wrong with it, in Docker's words where it has them.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut readonly = None;
    for (key, value) in fields(text) {
        let invalid = |value: &str| format!("invalid value for {key}: {value}");
        let boolean = |value: &str| match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(invalid(other)),
        };
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
    mount.readonly = readonly.unwrap_or(!matches!(mount.kind, Type::Cache | Type::Tmpfs));
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

/// Rules between fields.
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
