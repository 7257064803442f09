//! The members of the document, with the names of the contract. Keys are camelCase. A standard's form (OCI descriptors
//! and configuration, CNI results and port mappings) is used unchanged.

use std::{fmt, net::IpAddr, path::PathBuf};

use oci_spec::{image::Descriptor, runtime::LinuxResources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::{
    configuration::Configuration,
    network::{
        Attached, Attachment, Bridge, CniInterface, CniIp, CniResult, CniRoute, GatewayMode, Ipv6, Namespace,
        Network, Networks,
    },
};

/// A type that has one name in the document.
pub trait Member: Serialize + serde::de::DeserializeOwned + JsonSchema {
    /// The member's name.
    const NAME: &'static str;
}

/// What a step adds to members: a member's own type, a part of it, or parts of several.
pub trait Contribution {
    /// The names of the members that it may add to.
    const MEMBERS: &'static [&'static str];

    /// What it adds, by the member's name.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn parts(&self) -> serde_json::Result<Map<String, Value>>;
}

impl<M: Member> Contribution for M {
    const MEMBERS: &'static [&'static str] = &[M::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        Ok(Map::from_iter([(M::NAME.to_owned(), serde_json::to_value(self)?)]))
    }
}

macro_rules! member {
    ($type:ty, $name:literal) => {
        impl $crate::Member for $type {
            const NAME: &'static str = $name;
        }
    };
}
pub(crate) use member;

/// `image`: an image in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The name by which it was requested: `debian:latest`. None for an image without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// OCI descriptor of the image manifest, in the store.
    #[serde(serialize_with = "crate::order::descriptor")]
    #[schemars(with = "Value")]
    pub descriptor: Descriptor,
    /// The OCI image configuration, with whatever else stands in it.
    #[schemars(with = "Value")]
    pub configuration: Configuration,
}
member!(Image, "image");

/// One of `layers`: an unpacked layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// OCI descriptor of the layer's blob, in the store.
    #[serde(serialize_with = "crate::order::descriptor")]
    #[schemars(with = "Value")]
    pub descriptor: Descriptor,
    /// The digest of the layer's uncompressed tar (OCI image-spec, config.md, "Layer DiffID").
    #[serde(rename = "diffID")]
    pub diff_id: String,
    /// Its place.
    #[serde(flatten)]
    pub place: Place,
}

/// The place of a [`Layer`], in overlayfs's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Absolute path of the directory with its files.
    Directory(PathBuf),
    /// Absolute path of its EROFS image.
    Erofs(PathBuf),
}

/// `layers`, lowest first, as in the image configuration's `rootfs.diff_ids`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Layers(pub Vec<Layer>);
member!(Layers, "layers");

/// `rootfs`: the union mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rootfs {
    /// Absolute path of the merged file system.
    pub path: PathBuf,
    /// The lower directories, lowest first.
    pub lower: Vec<PathBuf>,
    /// The writable top; none if the mount is read-only and nothing is mounted in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    /// overlayfs's work directory, on the same file system as `upper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
    /// Whether the file system is mounted read-only.
    #[serde(default)]
    pub readonly: bool,
    /// Whether what is written there survives a crash of the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// The user namespace that it is for, if that is not the caller's: `path` shows the files' owners as it maps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UserNamespace>")]
    pub userns: Option<userns::Namespace>,
}
member!(Rootfs, "rootfs");

/// The mappings of a user namespace, as OCI runtime-spec has them.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // It describes the type of another crate.
struct UserNamespace {
    /// Its users.
    uid_mappings: Vec<IdMapping>,
    /// Its groups.
    gid_mappings: Vec<IdMapping>,
}

/// One run of ids.
#[derive(JsonSchema)]
#[allow(dead_code)] // As above.
struct IdMapping {
    /// The first id inside.
    #[serde(rename = "containerID")]
    container_id: u32,
    /// The first id outside.
    #[serde(rename = "hostID")]
    host_id: u32,
    /// How many ids.
    size: u32,
}

/// `cgroup`: the container's own cgroup, with its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// Its path, the same in each hierarchy where it is.
    pub path: PathBuf,
    /// Its limits, as OCI runtime-spec has them (config-linux.md, "Control groups").
    #[schemars(with = "Value")]
    pub resources: LinuxResources,
}
member!(Cgroup, "cgroup");

/// What the processes of a container have used: `usage` of `process`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The time of all processors, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<u64>,
    /// The most memory at a time, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The most processes and threads at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_peak: Option<u64>,
}

/// One of `ports`, in the shape of CNI's `portMappings` capability (CNI CONVENTIONS.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host address that it is published on; none for all of them.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// How many ports, one after another, of which these are the first; one if there is none. As in podman's port mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u16>,
}

impl PortMapping {
    /// The ports of the container.
    pub fn container_ports(&self) -> std::ops::RangeInclusive<u16> {
        self.container_port..=self.container_port.saturating_add(self.range.unwrap_or(1).saturating_sub(1))
    }
}

/// `ports`: the active port mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ports(pub Vec<PortMapping>);
member!(Ports, "ports");

/// `names`: the container hears the names of those that share a network with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// The name server that answers the container: an address in its own network namespace.
    pub resolver: IpAddr,
    /// What the others call it, besides its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The name servers for all other names; the host's if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
}
member!(Names, "names");

/// `egress`: what the container may reach. Everything else is rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// The only name server that answers the container: an address in its own network namespace.
    pub resolver: IpAddr,
    /// Whether everything may be reached all the same, and is logged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_only: bool,
    /// The list.
    pub allow: Vec<Allowed>,
    /// The file that says what the container asked for and what was rejected.
    pub log: PathBuf,
}
member!(Egress, "egress");

/// One of `allow` in [`Egress`]: hosts by name or by address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Allowed {
    /// The name; `*.example.org` for all names below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address, or a network.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ipnet::IpNet>,
    /// The port. Without one it is every TCP port except for those of name servers, and ping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp` or `sctp`, with a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// `hosts`: names for the container's `/etc/hosts`, and the environment of links.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hosts {
    /// The lines.
    #[serde(default)]
    pub entries: Vec<HostEntry>,
    /// `NAME=value`, in the form of Docker's links: `DB_PORT_5432_TCP_ADDR=172.17.0.2`.
    #[serde(default)]
    pub environment: Vec<String>,
}
member!(Hosts, "hosts");

/// One line of an `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostEntry {
    /// The address.
    pub ip: IpAddr,
    /// The names for it.
    pub names: Vec<String>,
}

/// `planned`: nothing of what the document tells exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Planned(pub bool);
member!(Planned, "planned");

/// `process`: what runs in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its pid on the host; 0 before it was started.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`), which tells it from a later process
    /// with its pid.
    pub start_time: u64,
    /// Its exit status, if known; 128 + N if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Whether the kernel killed one of its processes because there was no memory left, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// How many processes the kernel had killed in its cgroup before it was started: the kernel's count does not go back. None for
    /// 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills_before: Option<u64>,
    /// What it has used, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When it ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// When it is started again by itself: `always`, `unless-stopped`, `on-failure` or `on-failure:N`; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// How often it was started again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Whether it has ended and is about to be started again by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// How long the last pause before that was, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<u64>,
    /// Whether somebody stopped it, so that it is not started again by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// How its health is checked, in the form of Docker's image configuration (`Healthcheck`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// What the checks have found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Absolute path of its log file, with `-d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The signal that asks it to stop, if the image or the user names one; SIGTERM by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The OCI runtime-spec `process`: args, env, cwd, user, capabilities.
    #[serde(default)]
    pub spec: Value,
    /// `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User` and `StopSignal` of the image's `config` (image-spec, config.md), as they
    /// were used; none if all of them are the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}
member!(Process, "process");

/// `health` of `process`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// How many checks have failed since the last one that did not.
    #[serde(default)]
    pub failing_streak: u32,
    /// The exit status of the last check; none if it took too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The end of what the last check printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl Health {
    /// That of a container that was just started.
    pub fn starting() -> Self {
        Self { status: "starting".to_owned(), ..Self::default() }
    }
}

/// What a tool was doing when it failed: `step` of `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It read its command line.
    Arguments,
    /// It took the record and compared the document with it.
    Record,
    /// It decided what to do.
    Plan,
    /// It did it.
    Apply,
    /// It wrote the document.
    Write,
    /// It undid a step.
    Undo,
    /// It compared the document with the machine.
    Check,
    /// What a tool of another maker calls it.
    #[serde(untagged)]
    Other(String),
}

impl Stage {
    /// Those of Stave's tools.
    pub const ALL: [Self; 7] =
        [Self::Arguments, Self::Record, Self::Plan, Self::Apply, Self::Write, Self::Undo, Self::Check];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arguments => "arguments",
            Self::Record => "record",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Write => "write",
            Self::Undo => "undo",
            Self::Check => "check",
            Self::Other(stage) => stage,
        })
    }
}

/// `error`: the failure of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The tool.
    pub tool: String,
    /// What it was doing.
    pub step: Stage,
    /// One line: the action, the object and the cause.
    pub message: String,
    /// The chain of causes, nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
}
member!(Failure, "error");

/// Whether a step's operations are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// The operations are about to be applied, or half applied.
    Begun,
    /// All of them are applied.
    Done,
}

/// One of `steps`, with the operations of a tool, or in the form of the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Step")]
pub struct Step<O = Value> {
    /// The tool's name, as its binary is called.
    pub tool: String,
    /// The tool's version.
    pub version: String,
    /// Begun or done.
    pub state: StepState,
    /// What it made, in order. The tool itself parses them; others only look for mount points.
    pub operations: Vec<O>,
    /// What it added to members, by their names, once it is done.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub adds: Map<String, Value>,
}

impl<O> Step<O> {
    /// One that adds nothing to members.
    pub fn new(tool: &str, version: &str, state: StepState, operations: Vec<O>) -> Self {
        Self { tool: tool.to_owned(), version: version.to_owned(), state, operations, adds: Map::new() }
    }
}

/// `steps`: a stack. The last step is the newest, and the first to be undone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Steps(pub Vec<Step>);
member!(Steps, "steps");
