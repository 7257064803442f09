//! The members of the document, under the names of the contract. Keys are camelCase. Forms that a standard
//! defines (OCI descriptors and configurations, CNI results and port mappings) are used unchanged.

use std::{fmt, net::IpAddr, path::PathBuf};

use oci_spec::{image::Descriptor, runtime::LinuxResources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::{
    cni::{CniInterface, CniIp, CniResult, CniRoute},
    configuration::Configuration,
    gateway_mode::GatewayMode,
    network::{Attached, Attachment, Namespace, Network, Networks},
    on::{Bridge, On, Parent, Subnet, Vxlan},
    rootfs::{Fork, Rootfs},
};

/// A type that is a member of the document.
pub trait Member: Serialize + serde::de::DeserializeOwned + JsonSchema {
    /// The member's name.
    const NAME: &'static str;
}

/// What a step adds to members: a whole member, a part of one, or parts of several.
pub trait Contribution {
    /// The names of the members that a step may add to.
    const MEMBERS: &'static [&'static str];

    /// What the step adds: one value for each member's name.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
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
    /// The name by which the image was requested, `debian:latest`. `None` for an image without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The OCI descriptor of the image manifest in the store.
    #[serde(serialize_with = "crate::order::descriptor")]
    #[schemars(with = "Value")]
    pub descriptor: Descriptor,
    /// The OCI image configuration, with all its other members.
    #[schemars(with = "Value")]
    pub configuration: Configuration,
}
member!(Image, "image");

/// One of `layers`: an unpacked layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The OCI descriptor of the layer's blob in the store.
    #[serde(serialize_with = "crate::order::descriptor")]
    #[schemars(with = "Value")]
    pub descriptor: Descriptor,
    /// The digest of the layer's uncompressed tar (OCI image-spec, config.md, "Layer DiffID").
    #[serde(rename = "diffID")]
    pub diff_id: String,
    /// Where the unpacked layer is.
    #[serde(flatten)]
    pub place: Place,
}

/// Where a [`Layer`] is, and in which form. Both have whiteouts and opaque directories as overlayfs expects
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A directory with the layer's files. The path is absolute.
    Directory(PathBuf),
    /// An EROFS image of the layer. The path is absolute.
    Erofs(PathBuf),
}

/// `layers`: the unpacked layers, lowest first, as in the image configuration's `rootfs.diff_ids`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Layers(pub Vec<Layer>);
member!(Layers, "layers");

/// `cgroup`: the container's own cgroup, with its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// The cgroup's path, the same in each hierarchy that has it.
    pub path: PathBuf,
    /// The limits, as OCI runtime-spec has them (config-linux.md, "Control groups").
    #[schemars(with = "Value")]
    pub resources: LinuxResources,
}
member!(Cgroup, "cgroup");

/// `usage` of `process`: what the container's processes have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Time on all processors, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<u64>,
    /// The largest amount of memory at one time, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The largest number of processes and threads at one time.
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
    /// The host address that the port is published on. `None` for all addresses.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The number of consecutive ports, which start with these. `None` for one. As in podman's port mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u16>,
}

impl PortMapping {
    /// The container's ports, from the first to the last.
    pub fn container_ports(&self) -> std::ops::RangeInclusive<u16> {
        self.container_port..=self.container_port.saturating_add(self.range.unwrap_or(1).saturating_sub(1))
    }
}

/// `ports`: the active port mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ports(pub Vec<PortMapping>);
member!(Ports, "ports");

/// `names`: the container can resolve the names of containers that share a network with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// The name server that answers the container: an address in its own network namespace.
    pub resolver: IpAddr,
    /// The names that other containers use for this one, besides its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The name servers for all other names. Empty for the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
}
member!(Names, "names");

/// `egress`: what the container may reach. Other traffic is rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// The only name server that answers the container: an address in its own network namespace.
    pub resolver: IpAddr,
    /// Whether other traffic is logged and not rejected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_only: bool,
    /// Whether the name in the TLS hello is compared as well (`--sni`). A name without a port then
    /// means port 443.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sni: bool,
    /// What the container may reach.
    pub allow: Vec<Allowed>,
    /// The log file: what the container asked for, and what was rejected.
    pub log: PathBuf,
}
member!(Egress, "egress");

/// An element of `allow` in [`Egress`]: hosts, by name or by address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Allowed {
    /// The host's name; `*.example.org` means all names below `example.org`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address, or a network in CIDR notation.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ipnet::IpNet>,
    /// The port. `None` allows ping, and every TCP port except those of name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp` or `sctp`. Set if `port` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// `hosts`: names for the container's `/etc/hosts`, and the environment of links.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hosts {
    /// The lines for `/etc/hosts`.
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
    /// The names for the address.
    pub names: Vec<String>,
}

/// `planned`: the document is only a plan, and nothing in it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Planned(pub bool);
member!(Planned, "planned");

/// `process`: the container's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The pid on the host; 0 before the process is started.
    pub pid: i32,
    /// The start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`). It tells the process from a
    /// later one with the same pid.
    pub start_time: u64,
    /// The exit status, if known; 128 + N if signal N ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Once the process has ended: whether the kernel killed a process of the container for lack of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// The number of OOM kills in the container's cgroup before this process started. The kernel's counter is
    /// never reset. `None` for 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills_before: Option<u64>,
    /// Once the process has ended: what the container used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the process was started (RFC 3339). Processes of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When the process ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Why the process could not be started the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The restart policy: `always`, `unless-stopped`, `on-failure` or `on-failure:N`. `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// How often the restart policy has restarted the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Whether the process has ended, and the restart policy is about to restart it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// The pause before the last restart, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<u64>,
    /// Whether somebody stopped the process. The restart policy does not restart it then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// The healthcheck, in the form of Docker's image configuration (`Healthcheck`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// The results of the healthcheck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The log file, with `-d` or `--monitor`. The path is absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The signal that asks the process to stop, if the image or the user names one. SIGTERM by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The OCI runtime-spec `process`: args, env, cwd, user, capabilities.
    #[serde(default)]
    pub spec: Value,
    /// The `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User` and `StopSignal` that were used, in the form of
    /// the image's `config` (image-spec, config.md). `None` if all of them are the image's own. Where they are not the
    /// image's, also `Healthcheck` (`{"Test": ["NONE"]}` for none), `ExposedPorts`, `Labels` and Docker's `StopTimeout`
    /// in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}
member!(Process, "process");

/// `health` of `process`: the results of the healthcheck.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// The number of consecutive checks that failed, up to now.
    #[serde(default)]
    pub failing_streak: u32,
    /// The exit status of the last check. `None` if the check took too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The end of the last check's output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// The last five checks, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Checked>,
}

/// A check in `log` of `health`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// When the check began (RFC 3339).
    pub started: String,
    /// When its result was known (RFC 3339).
    pub finished: String,
    /// The exit status. `None` if the check took too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The end of its output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl Health {
    /// The health of a container that has just started.
    pub fn starting() -> Self {
        Self { status: "starting".to_owned(), ..Self::default() }
    }
}

/// `step` of `error`: what a tool was doing when it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The tool read its command line.
    Arguments,
    /// The tool locked the record and compared the document with it.
    Record,
    /// The tool planned its operations.
    Plan,
    /// The tool applied its operations.
    Apply,
    /// The tool wrote the document.
    Write,
    /// The tool undid a step.
    Undo,
    /// The tool compared the document with the machine.
    Check,
    /// The name that a tool of another maker uses.
    #[serde(untagged)]
    Other(String),
}

impl Stage {
    /// The stages that Stave's own tools use.
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

/// `error`: why a tool failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The tool that failed.
    pub tool: String,
    /// What the tool was doing.
    pub step: Stage,
    /// One line: the action, the object and the cause.
    pub message: String,
    /// The chain of causes, nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
}
member!(Failure, "error");

/// `state` of a step: whether its operations are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// The operations are about to be applied, or some of them are.
    Begun,
    /// All operations are applied.
    Done,
}

/// An element of `steps`. `O` is the tool's type of operation, or any JSON value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Step")]
pub struct Step<O = Value> {
    /// The tool's name, which is also the name of its binary.
    pub tool: String,
    /// The tool's version.
    pub version: String,
    /// Whether the step is begun or done.
    pub state: StepState,
    /// What the tool made, in order. Only the tool itself parses the operations. Others only look for mount
    /// points in them.
    pub operations: Vec<O>,
    /// What the step added, by the member's name. Empty until the step is done.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub adds: Map<String, Value>,
}

impl<O> Step<O> {
    /// A step that adds nothing to members.
    pub fn new(tool: &str, version: &str, state: StepState, operations: Vec<O>) -> Self {
        Self { tool: tool.to_owned(), version: version.to_owned(), state, operations, adds: Map::new() }
    }
}

/// `steps`: a stack. The last step is the newest and is undone first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Steps(pub Vec<Step>);
member!(Steps, "steps");
