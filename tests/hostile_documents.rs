//! Gives forged documents to `--undo`, `--repair` and `unwind` as root: only what the record says is undone
//! or made again.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};
use testkit::{Sandbox, Snapshot};

const TOOLS: [&str; 18] = [
    "layer-apply",
    "union-mount",
    "union-snapshot",
    "union-fork",
    "union-merge",
    "netns-add",
    "cgroup-limit",
    "netns-bridge",
    "veth-pair",
    "bridge-attach",
    "macvlan-attach",
    "ipvlan-attach",
    "img-mount",
    "portmap",
    "egress-allow",
    "name-serve",
    "link-hosts",
    "ns-exec",
];

/// A pipe with all kinds of steps.
fn pipe(id: &str, port: u16) -> String {
    format!(
        "layer-apply --id {id} < busybox.json | union-mount | union-snapshot | cgroup-limit --pids 100 | netns-bridge | veth-pair | \
         bridge-attach back --subnet 10.55.0.0/24 | macvlan-attach --parent out0 --gateway-priority -9 | portmap -p {port}:80 | \
         ns-exec -d -- sleep 10000 > {id}.json"
    )
}

/// A host with its own files, mounts and links, and with a container `other` that has made a link in its
/// files. `web.json` is the document of a container that is gone.
struct Host {
    sandbox: Sandbox,
    before: Snapshot,
    store: String,
    web: Value,
    other: Value,
}

impl Host {
    fn new() -> Self {
        let sandbox = Sandbox::with_busybox();
        sandbox
            .sh("mkdir -p /run/victim/e/sub /run/victim/d && cd /run/victim && echo x | tee f1 f2 10.0.0.1 > /dev/null && : > empty
                ip link add brv type bridge; ip link set brv address 02:11:22:33:44:55; ip addr add 10.77.0.1/24 dev brv
                ip link add dv type veth peer name dw; ip link set dv address 02:11:22:33:44:66; ip link set dv up
                ip addr add 10.88.0.1/24 dev dv; ip route add 10.99.0.0/16 via 10.88.0.2")
            .ok();
        sandbox.sh(&pipe("other", 10_081)).ok();
        sandbox.sh("ln -s /run/victim root/containers/other/upper/l").ok();
        sandbox.sh(&format!("{}; cp web.json gone.json; unwind web > /dev/null", pipe("web", 10_080))).ok();
        let read = |name: &str| sandbox.sh(&format!("cat {name}")).json();
        let (web, other) = (read("gone.json"), read("other.json"));
        let store = store(&sandbox);
        Self { before: sandbox.snapshot(), store, web, other, sandbox }
    }

    #[track_caller]
    fn assert_untouched(&self, context: &str) {
        let difference = self.sandbox.difference(&self.before);
        assert!(difference.is_empty(), "{context}\nleft behind (+) or lost (-):\n{difference}");
        assert!(store(&self.sandbox) == self.store, "{context}\nthe store changed");
    }
}

/// What the snapshot leaves out: images and unpacked layers. (A layer's note changes when the layer has
/// reached the disk.)
fn store(sandbox: &Sandbox) -> String {
    sandbox.sh("find root/images root/layers root/mount-points -printf '%p %m\\n' | sort; cat root/images/index.json").ok()
}

/// An operation with the disk of a top, at this path.
fn disk(operation: &str, path: &Path) -> Value {
    json!({"op": operation, "image": path, "target": path, "size": 1 << 20, "durable": false, "mode": 493, "owner": [0, 0]})
}

/// An operation with a level of snapshots in this directory, mounted there.
fn level(operation: &str, path: &Path) -> Value {
    let overlay =
        json!({"source": "stave:other", "lower": [path], "upper": path, "work": path, "target": path});
    json!({"op": operation, "number": 1, "directory": path, "target": path, "source": "stave:other", "base": overlay})
}

/// Operations on networks that do not belong to the container, each with the tool that would carry it out.
fn attacks_on_networks(link: &Path) -> Vec<(&'static str, Value)> {
    let at = |name: &str| link.join(name);
    let nowhere = "/run/stave/nowhere";
    vec![
        ("netns-bridge", json!({"op": "claim", "directory": link, "holder": "f1"})),
        ("netns-bridge", json!({"op": "claim", "directory": "/run/victim/e/sub", "holder": "/run/stave/zz"})),
        (
            "netns-bridge",
            json!({"op": "claim", "directory": "/run/stave/shared/../../victim", "holder": "f1"}),
        ),
        ("netns-bridge", json!({"op": "netns-add", "path": at("empty"), "holder": "web"})),
        (
            "netns-bridge",
            json!({"claims": nowhere, "holder": "x", "op": "sysctl", "variable": "route-localnet",
            "link": "nolink", "previous": "0", "kept": at("f2")}),
        ),
        (
            "veth-pair",
            json!({"op": "veth-add", "name": "dv", "mac": "02:11:22:33:44:66", "master": "x", "mtu": 1500,
            "peer": {"name": "y", "mac": "02:11:22:33:44:66", "namespace": "/run/netns/z"}}),
        ),
        (
            "macvlan-attach",
            json!({"op": "child-add", "parent": "dv", "kind": "macvlan", "mode": "bridge", "mtu": 1500, "mark": "other x",
            "peer": {"name": "eth1", "mac": "02:11:22:33:44:66", "namespace": "/run/netns/other"}}),
        ),
        (
            "macvlan-attach",
            json!({"claims": nowhere, "holder": "x", "op": "vlan-add", "name": "dv", "parent": "dw", "id": 7}),
        ),
        (
            "netns-bridge",
            json!({"claims": nowhere, "holder": "x", "op": "bridge-add", "name": "brv",
            "mac": "02:11:22:33:44:55"}),
        ),
        ("veth-pair", json!({"op": "address-add", "link": "dv", "address": "10.88.0.1/24"})),
        (
            "veth-pair",
            json!({"op": "route-add", "destination": "10.99.0.0/16", "gateway": "10.88.0.2", "link": "dv",
            "mac": "02:11:22:33:44:66"}),
        ),
        ("netns-add", json!({"op": "netns-add", "path": "/run/netns/other", "holder": "web"})),
        (
            "netns-bridge",
            json!({"claims": nowhere, "holder": "x", "op": "nat-bridge", "bridge": "stave0",
            "subnet": "172.17.0.0/16"}),
        ),
        (
            "netns-bridge",
            json!({"op": "lease", "directory": "/run/victim", "address": "10.0.0.1", "holder": "x"}),
        ),
    ]
}

/// The same for files and mounts.
fn attacks_on_files(root: &Path, link: &Path) -> Vec<(&'static str, Value)> {
    let at = |name: &str| link.join(name);
    vec![
        ("union-mount", json!({"op": "directory-add", "path": at("d"), "mode": 448})),
        ("union-mount", json!({"op": "directory-add", "path": "/run/stave/other.json", "mode": 448})),
        ("union-mount", json!({"op": "directory-add", "path": root.join("images"), "mode": 448})),
        ("union-mount", json!({"op": "directory-add", "path": root.join("containers/other"), "mode": 448})),
        ("union-mount", json!({"op": "file-add", "path": "/run/victim/evil", "content": "x", "mode": 420})),
        ("union-mount", json!({"op": "mount-points-add", "path": "/run/victim/x", "beside": at("d")})),
        ("union-mount", disk("disk-add", &at("f"))),
        ("union-mount", disk("disk-mount", &at("f"))),
        ("union-snapshot", level("level-mount", &at("d"))),
        ("union-snapshot", level("level-mount", &root.join("containers/other/levels/1"))),
        ("union-merge", json!({"op": "tops-merge", "from": ["/run/victim/e"], "level": level("", &at("d"))})),
        (
            "union-merge",
            json!({"op": "tops-merge", "from": ["/run/victim/e"], "level": level("", &root.join("containers/other/levels/1"))}),
        ),
        (
            "union-fork",
            json!({"op": "file-add", "path": root.join("containers/other/forks/1/web"), "content": "", "mode": 384}),
        ),
        (
            "union-mount",
            json!({"op": "bind-mount", "source": "/run/victim", "within": "/run/victim/d", "target": "/"}),
        ),
    ]
}

/// Operations on things that do not belong to the container, each with the tool that would carry it out: also
/// those of another container.
fn attacks(host: &Host) -> Vec<(&'static str, Value)> {
    let root = host.sandbox.root();
    let link = root.join("containers/other/upper/l");
    let of = |tool: &str| {
        host.other["steps"].as_array().unwrap().iter().find(|step| step["tool"] == tool).unwrap()
    };
    let operations = |tool: &str| of(tool)["operations"].as_array().unwrap().clone();
    let mut all = [attacks_on_networks(&link), attacks_on_files(&root, &link)].concat();
    for tool in TOOLS {
        let own = host.other["steps"].as_array().unwrap().iter().any(|step| step["tool"] == tool);
        if own {
            all.extend(operations(tool).into_iter().map(|operation| (tool, operation)));
        }
    }
    all
}

/// Every command that undoes or repairs what a document says.
fn commands(tool: &str) -> [String; 3] {
    ["unwind".to_owned(), format!("{tool} --undo"), format!("{tool} --repair")]
}

#[test]
fn a_document_without_record_undoes_and_makes_nothing() {
    let host = Host::new();
    for (tool, operation) in attacks(&host) {
        for command in commands(tool) {
            let step = json!({"tool": tool, "version": "0.1.0", "state": "done", "operations": [&operation]});
            let document = json!({"stave": 1, "id": "evil", "steps": [step]}).to_string();
            let outcome = host.sandbox.sh_with(&format!("{command} > /dev/null"), document.as_bytes());
            assert!(outcome.status <= 1, "{command}: {outcome:?}");
            host.assert_untouched(&format!("{command} < {document}"));
        }
    }
}

#[test]
fn what_a_document_adds_to_the_steps_of_a_living_container_is_not_believed() {
    let host = Host::new();
    for (n, (tool, operation)) in attacks(&host).into_iter().enumerate() {
        // In turn, because all commands find their operations in the same way.
        let command = &commands(tool)[n % 3];
        host.sandbox.sh(&pipe("web", 10_080)).ok();
        let mut document = host.sandbox.sh("cat web.json").json();
        let steps = document["steps"].as_array_mut().unwrap();
        for step in steps.iter_mut().filter(|step| step["tool"] == tool) {
            step["operations"].as_array_mut().unwrap().push(operation.clone());
        }
        let outcome =
            host.sandbox.sh_with(&format!("{command} > /dev/null"), document.to_string().as_bytes());
        assert!(outcome.status <= 1, "{command}: {outcome:?}");
        host.sandbox.sh("unwind web > /dev/null").ok();
        host.assert_untouched(&format!("{command} with {operation}"));
    }
}

/// Pseudo-random numbers, the same in every run (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The JSON pointers of all values in a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut below = |name: &str, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        pointers(value, &pointer, found);
        found.push(pointer);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(values) => values.iter().enumerate().for_each(|(n, value)| below(&n.to_string(), value)),
        _ => {}
    }
}

/// Things of others that a member may point to.
fn elsewhere(host: &Host) -> [Value; 16] {
    let root = host.sandbox.root();
    [
        json!("other"),
        json!("/run/victim/f1"),
        json!("/run/victim/e"),
        json!("/run/stave/other.json"),
        json!("dv"),
        json!(root.join("images")),
        json!(root.join("containers/other/upper/l/f1")),
        json!("stave0"),
        json!("brv"),
        json!("02:11:22:33:44:66"),
        json!("/run/netns/other"),
        json!("10.88.0.1/24"),
        json!("../../victim"),
        json!(host.other["process"]["pid"]),
        json!(10_081),
        host.other["instance"].clone(),
    ]
}

/// Changes one thing in a document: removes it, changes its type, doubles it, moves it, or points it
/// elsewhere.
fn change(document: &mut Value, host: &Host, draw: &mut Draw) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    // With another id, or without an instance, it would legitimately be another container's document.
    all.retain(|pointer| !["/id", "/instance", "/stave"].contains(&pointer.as_str()));
    let in_steps: Vec<_> = all.iter().filter(|pointer| pointer.starts_with("/steps/")).cloned().collect();
    let Some(pointer) =
        (if draw.below(4) == 0 { all } else { in_steps.clone() }).get(draw.below(in_steps.len())).cloned()
    else {
        return;
    };
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match draw.below(5) {
        0 => match document.pointer_mut(parent) {
            Some(Value::Object(members)) => drop(members.remove(name)),
            Some(Value::Array(values)) => drop(values.remove(name.parse().unwrap())),
            _ => {}
        },
        1 => {
            let other = [
                json!(null),
                json!(7),
                json!("x"),
                json!([]),
                json!({}),
                json!(true),
                json!(-1),
                json!([[]]),
            ];
            *document.pointer_mut(&pointer).unwrap() = draw.one(&other).clone();
        }
        2 => {
            let value = document.pointer(&pointer).unwrap().clone();
            if let Some(Value::Array(values)) = document.pointer_mut(parent) {
                values.push(value);
            }
        }
        3 => {
            if let Some(Value::Array(steps)) = document.pointer_mut("/steps") {
                let (one, other) = (draw.below(steps.len()), draw.below(steps.len()));
                steps.swap(one, other);
            }
        }
        _ => *document.pointer_mut(&pointer).unwrap() = draw.one(&elsewhere(host)).clone(),
    }
}

/// A document derived from `from`, with up to four changes.
fn derived(from: &Value, host: &Host, draw: &mut Draw) -> Value {
    let mut document = from.clone();
    // Sometimes with an operation of the other container among the container's own.
    if draw.below(3) == 0 {
        let (_, operation) = draw.one(&attacks(host)).clone();
        let at = draw.below(document["steps"].as_array().unwrap().len());
        document["steps"][at]["operations"].as_array_mut().unwrap().push(operation);
    }
    for _ in 0..=draw.below(4) {
        change(&mut document, host, draw);
    }
    document
}

/// All commands that can be asked to undo or to repair.
fn every_command() -> Vec<String> {
    let of = |tool: &&str| [format!("{tool} --undo"), format!("{tool} --repair")];
    TOOLS.iter().flat_map(of).chain(["unwind".to_owned()]).collect()
}

/// Gives random documents of a container that is gone to the `commands` of each round.
fn random_documents_of_a_container_that_is_gone(count: usize, commands: impl Fn(usize) -> Vec<String>) {
    let host = Host::new();
    let mut draw = Draw(20_261_129);
    const AT_ONCE: usize = 50;
    for round in 0..count / AT_ONCE {
        let mut script = String::new();
        for n in 0..AT_ONCE {
            let document = derived(&host.web, &host, &mut draw).to_string();
            std::fs::write(host.sandbox.directory().join(format!("d{n}.json")), document).unwrap();
            for command in commands(round * AT_ONCE + n) {
                let line = "> /dev/null 2> said; s=$?; [ $s -le 3 ] || [ $s = 125 ] || echo";
                writeln!(
                    script,
                    "{command} < d{n}.json {line} \"{command} < d{n}.json: status $s: $(cat said)\""
                )
                .unwrap();
                writeln!(script, "! grep -q panicked said || echo \"{command} < d{n}.json: $(cat said)\"")
                    .unwrap();
            }
        }
        // The whole script is too long for one argument.
        std::fs::write(host.sandbox.directory().join("round.sh"), script).unwrap();
        let said = host.sandbox.sh(". ./round.sh").stdout;
        assert_eq!(said, "", "round {round}, in {:?}", host.sandbox.directory());
        host.assert_untouched(&format!("round {round}"));
    }
}

#[test]
fn two_thousand_random_documents_touch_nothing() {
    let all = every_command();
    random_documents_of_a_container_that_is_gone(2000, |n| vec![all[n % all.len()].clone()]);
}

#[test]
#[ignore = "long: each document to each command (scripts/test --all)"]
fn two_thousand_random_documents_touch_nothing_by_any_command() {
    random_documents_of_a_container_that_is_gone(2000, |_| every_command());
}

#[test]
fn random_documents_of_a_living_container_touch_nothing_else() {
    let host = Host::new();
    let mut draw = Draw(20_261_130);
    let all = every_command();
    for round in 0..40 {
        host.sandbox.sh(&pipe("web", 10_080)).ok();
        let web = host.sandbox.sh("cat web.json").json();
        for _ in 0..4 {
            let document = derived(&web, &host, &mut draw).to_string();
            let command = draw.one(&all);
            let outcome = host.sandbox.sh_with(&format!("{command} > /dev/null"), document.as_bytes());
            assert!(!outcome.stderr.contains("panicked"), "{command} < {document}: {outcome:?}");
        }
        host.sandbox.sh("unwind web > /dev/null").ok();
        if round % 5 == 4 {
            host.assert_untouched(&format!("round {round}"));
        }
    }
}
