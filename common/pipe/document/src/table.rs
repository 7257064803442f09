//! The one table of the document's members: the name of each, the tools that make it, and what it holds.
//!
//! These come from the table: the names by which an object is recognised as a document, the tool to run when
//! a member is missing, the tools that `unwind` starts, `--schema`, and the table in `docs/document.md`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use operation::Namespace;

use crate::{
    Id, Instance, Member, Name, VERSION,
    members::{
        Cgroup, Egress, Failure, Hosts, Image, Layers, Names, Network, Networks, Planned, Ports, Process,
        Rootfs, Stage, Steps,
    },
};

/// A member of the document.
#[derive(Debug)]
pub struct Row {
    /// The member's name.
    pub name: &'static str,
    /// The tools that make the member in a step. Each can do so alone; the usual one comes first. `unwind`
    /// starts these tools.
    makers: &'static [&'static str],
    /// The tools that add to the member in a step, once it exists. `unwind` starts these tools too.
    extenders: &'static [&'static str],
    /// Whether these tools make up the container's network, which net-repair and net-guard restore.
    is_network: bool,
    /// Who else makes the member, for people.
    others: &'static str,
    /// What the member holds, for people. `{stages}` stands for the names of [`Stage::ALL`].
    holds: &'static str,
    /// The member's JSON Schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// All members, in their usual order in a document.
pub const ROWS: [Row; 18] = [
    Row {
        name: "stave",
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "the first tool",
        holds: "`1`, the version of this contract",
        schema: |_| json_schema!({"const": VERSION}),
    },
    Row {
        name: Id::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "the first tool that needs one",
        holds: "the container's id: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 64 characters; given with `--id`, or drawn",
        schema: of::<Id>,
    },
    Row {
        name: Name::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "container-rename",
        holds: "what the container is called, if that is not its id; the record's counts, whatever a document says",
        schema: of::<Name>,
    },
    Row {
        name: Instance::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "the first tool that makes something of a container",
        holds: "16 random hexadecimal digits; they tell the container from a later one with the same id",
        schema: of::<Instance>,
    },
    Row {
        name: Planned::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "a filter with `--dry-run`",
        holds: "`true`: nothing of this exists, and the tools that read it plan as well",
        schema: of::<Planned>,
    },
    Row {
        name: Steps::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "every tool",
        holds: "a stack of `{tool, version, state, operations, adds}` in the order of making; `state` is `begun` or `done`",
        schema: of::<Steps>,
    },
    Row {
        name: Image::NAME,
        makers: &["img-build", "img-edit", "img-convert", "img-pull", "img-load", "img-inspect"],
        extenders: &["img-mount", "union-fork"],
        is_network: false,
        others: "img-commit replaces it with the new image",
        holds: "`reference`, `descriptor` (OCI descriptor of the manifest), `configuration` (OCI image configuration, with every other member that the image has there)",
        schema: of::<Image>,
    },
    Row {
        name: Layers::NAME,
        makers: &["layer-apply"],
        extenders: &["img-mount", "union-fork"],
        is_network: false,
        others: "",
        holds: "an array, lowest layer first, of `descriptor`, `diffID`, and the place: `directory`, or `erofs`, the image of \
                `--format erofs`",
        schema: of::<Layers>,
    },
    Row {
        name: Rootfs::NAME,
        makers: &["union-mount"],
        extenders: &["union-fork", "union-snapshot", "union-merge"],
        is_network: false,
        others: "",
        holds: "`path`, `lower` (directories, lowest first; for an image, where it is mounted), `levels` (tops that snapshots have \
                frozen, lowest first), `upper`, `work`, `readonly`, `durable`, `fork` (`container`, `instance` and `snapshot` that it stands on, and how many of `levels` are from there), `userns` (the mappings of the user namespace that it is for, as OCI runtime-spec has them)",
        schema: of::<Rootfs>,
    },
    Row {
        name: Cgroup::NAME,
        makers: &["cgroup-limit"],
        extenders: &[],
        is_network: false,
        others: "",
        holds: "`path` (in each hierarchy where it is), `resources` (limits, as OCI runtime-spec has them)",
        schema: of::<Cgroup>,
    },
    Row {
        name: Network::NAME,
        makers: &["netns-add", "netns-bridge"],
        extenders: &["bridge-attach", "macvlan-attach", "ipvlan-attach", "veth-pair"],
        is_network: true,
        others: "",
        holds: "`mode` (`none`, or `bridge`, `macvlan` or `ipvlan` with an attachment), `namespace` (path); for versions before 0.2 also `bridge` and `cni` of the \
                first of `networks`",
        schema: of::<Network>,
    },
    Row {
        name: Networks::NAME,
        makers: &["bridge-attach", "macvlan-attach", "ipvlan-attach", "veth-pair"],
        extenders: &[],
        is_network: true,
        others: "",
        holds: "an array of attachments: `name` (of the network), `interface` (in the namespace), `bridge` (`name`, `subnet`, `gateway`, \
                `gatewayMode`: `nat` or `routed`, `ipRange`, `ipv6`, `further`, `internal`, `isolated`, `ndpProxy`, and `vxlan` of a network of several hosts) or `parent` (`name`, `driver`, `mode`, `subnet`, `gateway`, `ipRange`, `ipv6`, `further`, `internal`), `aliases` (names on this network), `cni` (a CNI 1.1.0 result)",
        schema: of::<Networks>,
    },
    Row {
        name: Ports::NAME,
        makers: &["portmap"],
        extenders: &[],
        is_network: true,
        others: "",
        holds: "an array in the shape of CNI's `portMappings`: `hostPort`, `containerPort`, `protocol`, `hostIP`, and `range` of a run of more than 256 ports; on a routed bridge `hostIP` is the container's own address",
        schema: of::<Ports>,
    },
    Row {
        name: Names::NAME,
        makers: &["name-serve"],
        extenders: &[],
        is_network: true,
        others: "",
        holds: "`resolver` (the name server that answers the container), `aliases` (what others call it), `servers` (for all other names)",
        schema: of::<Names>,
    },
    Row {
        name: Egress::NAME,
        makers: &["egress-allow"],
        extenders: &[],
        is_network: true,
        others: "",
        holds: "what the container may reach: `resolver` (the only name server that answers it), `allow` (an array of `name` or `address`, `port`, `protocol`), `log` (the file with what was rejected), `logOnly` with `--log`, `sni` with `--sni`",
        schema: of::<Egress>,
    },
    Row {
        name: Hosts::NAME,
        makers: &["link-hosts"],
        extenders: &[],
        is_network: true,
        others: "",
        holds: "`entries` (`ip`, `names`) for `/etc/hosts`, `environment` (`NAME=value`)",
        schema: of::<Hosts>,
    },
    Row {
        name: Process::NAME,
        makers: &["ns-exec"],
        extenders: &[],
        is_network: false,
        others: "",
        holds: "`pid`, `startTime` (clock ticks since boot), `exitStatus`, `oomKilled` and `usage` (`cpuTime` in microseconds, `memoryPeak` in bytes, \
                `pidsPeak`) once it has ended, `log`, `stopSignal` where the image or the user names one, `spec` (OCI runtime-spec \
                process), `config` (`Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User`, `StopSignal` as used, where they differ from the image's; and then `Healthcheck`, `ExposedPorts`, `Labels` and Docker's `StopTimeout`), `started` and `finished` (when it began and ended), `restart`, `restarts`, `restarting`, `stopped`, `healthcheck`, `health`, `error` (why it could not be started the last time)",
        schema: of::<Process>,
    },
    Row {
        name: Failure::NAME,
        makers: &[],
        extenders: &[],
        is_network: false,
        others: "the tool that failed",
        holds: "`tool`, `step` ({stages}), `message`, `causes`",
        schema: of::<Failure>,
    },
];

impl Row {
    /// The tools whose steps make the member or add to it.
    fn tools(&self) -> impl Iterator<Item = &'static str> {
        self.makers.iter().chain(self.extenders).copied()
    }
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The row of a member; `None` if the contract does not know the name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// Whether a member belongs to the contract itself, so that no step makes it or adds to it.
pub fn is_of_contract(name: &str) -> bool {
    row(name).is_some_and(|row| row.tools().next().is_none())
}

/// The tools whose steps make members or add to them. `unwind` starts these without being asked. A tool may
/// occur more than once.
pub fn tools() -> impl Iterator<Item = &'static str> {
    ROWS.iter().flat_map(Row::tools)
}

/// The namespace of the host in which steps of this tool make something: links, addresses, routes, rules and
/// sockets belong to a network namespace, and a process to a pid namespace.
pub fn works_in(tool: &str) -> Option<Namespace> {
    let is_maker = |row: &Row| row.tools().any(|maker| maker == tool);
    match tool {
        // They make only a namespace, and a file.
        "netns-add" | "link-hosts" => None,
        _ if makes(tool, Process::NAME) => Some(Namespace::Pids),
        _ => ROWS.iter().any(|row| row.is_network && is_maker(row)).then_some(Namespace::Network),
    }
}

/// The tools whose steps make up a container's network, each once.
pub fn network_tools() -> Vec<&'static str> {
    let mut tools = Vec::new();
    for tool in ROWS.iter().filter(|row| row.is_network).flat_map(Row::tools) {
        if !tools.contains(&tool) {
            tools.push(tool);
        }
    }
    tools
}

/// Whether steps of this tool make the member or add to it.
pub fn makes(tool: &str, name: &str) -> bool {
    row(name).is_some_and(|row| row.tools().any(|maker| maker == tool))
}

/// The tools that make a member, as text: `img-build, img-pull or img-load`.
pub(crate) fn made_by(name: &str) -> String {
    match row(name).map_or(&[][..], |row| row.makers) {
        [] => "the tool that makes it".to_owned(),
        [tool] => (*tool).to_owned(),
        [tools @ .., last] => format!("{} or {last}", tools.join(", ")),
    }
}

/// The table in Markdown, for `docs/document.md`.
pub fn markdown() -> String {
    let stages: Vec<String> = Stage::ALL.iter().map(|stage| format!("`{stage}`")).collect();
    let line = |row: &Row| {
        let holds = row.holds.replace("{stages}", &stages.join(", "));
        let tools: Vec<&str> = row.tools().collect();
        let made_by = match (tools.join(", "), row.others) {
            (tools, "") => tools,
            (tools, others) if tools.is_empty() => others.to_owned(),
            (tools, others) => format!("{tools}; {others}"),
        };
        format!("| `{}` | {made_by} | {holds} |\n", row.name)
    };
    let lines: String = ROWS.iter().map(line).collect();
    format!("| member | made by | holds |\n| --- | --- | --- |\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_shows_this_table() {
        let contract = include_str!("../../../../docs/document.md");
        let start = contract.find("| member |").unwrap();
        let shown: String =
            contract[start..].split_inclusive('\n').take_while(|line| line.starts_with('|')).collect();
        assert_eq!(shown, markdown(), "docs/document.md shows another table than this crate generates");
    }

    #[test]
    fn every_tool_of_the_table_is_there() {
        let tools_directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tools");
        for tool in tools() {
            assert!(tools_directory.join(tool).join("src/main.rs").is_file(), "there is no tool {tool}");
        }
    }

    /// What changes a network holds the lock of the network. A tool that is missing here would not be repaired.
    #[test]
    fn a_tool_with_the_lock_of_the_network_is_one_of_its_tools() {
        let tools_directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tools");
        let has_lock = |tool: &str| {
            let main = std::fs::read_to_string(tools_directory.join(tool).join("src/main.rs")).unwrap();
            main.contains("const LOCK: Option<&'static str> = Some(\"network\")")
        };
        let network = network_tools();
        let left_out: Vec<&str> = tools().filter(|tool| has_lock(tool) && !network.contains(tool)).collect();
        assert_eq!(left_out, [""; 0]);
        assert!(network.contains(&"netns-add") && network.contains(&"macvlan-attach"));
        assert!(!network.contains(&"ns-exec") && !network.contains(&"union-mount"));
    }

    #[test]
    fn who_makes_what() {
        assert_eq!(made_by("image"), "img-build, img-edit, img-convert, img-pull, img-load or img-inspect");
        assert_eq!(made_by("network"), "netns-add or netns-bridge");
        assert_eq!(made_by("theirs"), "the tool that makes it");
        assert!(is_of_contract("steps") && !is_of_contract("ports") && !is_of_contract("theirs"));
        assert!(makes("veth-pair", "network") && !makes("veth-pair", "ports"));
    }
}
