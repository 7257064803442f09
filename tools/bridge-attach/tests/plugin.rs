//! bridge-attach and portmap as CNI plugins: called directly in every version, and with podman and
//! containerd as runtimes.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::{PODMAN_RUN, Sandbox, Snapshot, wait_for};

/// A host with the plugins in `cni/`, and the namespace `one`.
fn sandbox() -> (Sandbox, Snapshot) {
    let sandbox = Sandbox::new();
    sandbox
        .sh("echo 0 > /proc/sys/net/ipv4/ip_forward
            mkdir cni && ln -s $(command -v bridge-attach) cni/stave-bridge && ln -s $(command -v portmap) cni/stave-portmap
            ip netns add one")
        .ok();
    let before = sandbox.snapshot();
    (sandbox, before)
}

/// What a plugin exits with and prints.
fn plugin(
    sandbox: &Sandbox,
    name: &str,
    command: &str,
    container: &str,
    configuration: &Value,
) -> (i32, Value) {
    let script = format!(
        "CNI_COMMAND={command} CNI_CONTAINERID={container} CNI_NETNS=/run/netns/{container} CNI_IFNAME=eth0 CNI_PATH=cni cni/{name}"
    );
    let mut configuration = configuration.clone();
    if name == "stave-portmap" {
        // Each plugin has members of its own in the list.
        configuration
            .as_object_mut()
            .unwrap()
            .retain(|key, _| !["bridge", "ipam", "dns"].contains(&key.as_str()));
    }
    let outcome = sandbox.sh_with(&script, configuration.to_string().as_bytes());
    let printed = serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null);
    (outcome.status, printed)
}

fn network(version: &str) -> Value {
    json!({"cniVersion": version, "name": "web", "type": "stave-bridge", "bridge": "front",
        "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "gateway": "10.5.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {"nameservers": ["10.5.0.1"]}})
}

fn with(configuration: &Value, more: Value) -> Value {
    let mut configuration = configuration.clone();
    configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    configuration
}

/// Adds a container with both plugins, and returns the result.
#[track_caller]
fn add(sandbox: &Sandbox, version: &str, container: &str, ports: Value) -> Value {
    let (status, first) = plugin(sandbox, "stave-bridge", "ADD", container, &network(version));
    assert_eq!(status, 0, "{first}");
    let second =
        with(&network(version), json!({"prevResult": first, "runtimeConfig": {"portMappings": ports}}));
    let (status, result) = plugin(sandbox, "stave-portmap", "ADD", container, &second);
    assert_eq!(status, 0, "{result}");
    assert_eq!(result, first, "the last plugin passes on what the first one made");
    result
}

#[track_caller]
fn remove(sandbox: &Sandbox, version: &str, container: &str) {
    for name in ["stave-portmap", "stave-bridge"] {
        assert_eq!(plugin(sandbox, name, "DEL", container, &network(version)), (0, Value::Null), "{name}");
    }
}

#[test]
fn every_version_has_its_form() {
    let (sandbox, before) = sandbox();
    let supported = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let asked = plugin(&sandbox, "stave-bridge", "VERSION", "", &json!({"cniVersion": "1.0.0"}));
    assert_eq!(asked, (0, json!({"cniVersion": "1.0.0", "supportedVersions": supported})));
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = add(
            &sandbox,
            version,
            "one",
            json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]),
        );
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"], json!({"nameservers": ["10.5.0.1"]}));
        assert_eq!(result["interfaces"][2]["sandbox"], "/run/netns/one");
        assert_eq!(result["ips"][0]["address"], "10.5.0.2/24");
        assert_eq!(result["ips"][0]["gateway"], "10.5.0.1");
        let is_old = ["0.3.1", "0.4.0"].contains(&version);
        assert_eq!(result["ips"][0].get("version"), is_old.then_some(&json!("4")));
        assert_eq!(result["interfaces"][2].get("mtu").is_some(), version == "1.1.0");
        remove(&sandbox, version, "one");
        remove(&sandbox, version, "one");
        assert_eq!(sandbox.difference(&before), "", "{version}");
    }
    let (status, error) = plugin(&sandbox, "stave-bridge", "ADD", "one", &network("0.2.0"));
    assert_eq!((status, &error["code"], &error["cniVersion"]), (1, &json!(1), &json!("0.2.0")));
    let (_, error) = plugin(&sandbox, "stave-bridge", "GC", "one", &network("1.0.0"));
    assert_eq!(error["code"], 1);
}

#[test]
fn both_versions_of_ip_and_a_gateway_somewhere() {
    let (sandbox, before) = sandbox();
    let ranges = json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24", "gateway": "10.5.0.254"}],
        [{"subnet": "fd01:5::/64", "gateway": "fd01:5::ff", "rangeStart": "fd01:5::100", "rangeEnd": "fd01:5::1ff"}]]}});
    let asked = with(&network("1.0.0"), ranges);
    let (status, result) = plugin(&sandbox, "stave-bridge", "ADD", "one", &asked);
    assert_eq!(status, 0, "{result}");
    assert_eq!(
        (&result["ips"][0]["address"], &result["ips"][0]["gateway"]),
        (&json!("10.5.0.1/24"), &json!("10.5.0.254"))
    );
    assert_eq!(result["ips"][1]["gateway"], "fd01:5::ff");
    let address = result["ips"][1]["address"].as_str().unwrap();
    assert!(address.starts_with("fd01:5::1") && address.ends_with("/64"), "{address}");
    sandbox.serve("one", "TCP6-LISTEN:80", "one");
    // A neighbour that has not answered the first solicitation is asked again after a second.
    let from_the_gateway = "one [fd01:0005:0000:0000:0000:0000:0000:00ff]";
    wait_for("an answer", std::time::Duration::from_secs(10), || {
        sandbox
            .ask("host", &format!("TCP6:[{}]:80", address.trim_end_matches("/64")))
            .starts_with(from_the_gateway)
    });
    sandbox.sh("pkill -P 1 socat || true").ok();
    assert_eq!(plugin(&sandbox, "stave-bridge", "DEL", "one", &asked), (0, Value::Null));
    let fixed = json!({"ipam": {"type": "static", "addresses": [{"address": "10.5.0.7/24"}, {"address": "fd01:5::7/64"}]}});
    let fixed = with(&network("1.0.0"), fixed);
    let (status, result) = plugin(&sandbox, "stave-bridge", "ADD", "one", &fixed);
    assert_eq!((status, &result["ips"][1]["address"]), (0, &json!("fd01:5::7/64")), "{result}");
    assert_eq!(plugin(&sandbox, "stave-bridge", "DEL", "one", &fixed), (0, Value::Null));
    let asked = with(&fixed, json!({"runtimeConfig": {"ips": ["10.5.0.9/24", "fd01:5::9/64"]}}));
    let (status, result) = plugin(&sandbox, "stave-bridge", "ADD", "one", &asked);
    assert_eq!((status, &result["ips"][0]["address"]), (0, &json!("10.5.0.9/24")), "{result}");
    assert_eq!(result["ips"][1]["address"], "fd01:5::9/64");
    assert_eq!(plugin(&sandbox, "stave-bridge", "DEL", "one", &asked), (0, Value::Null));
    let alone = json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd01:5::/64"}]]}});
    let alone = with(&network("1.0.0"), alone);
    let (status, result) = plugin(&sandbox, "stave-bridge", "ADD", "one", &alone);
    let address = result["ips"][0]["address"].as_str().unwrap_or_default();
    assert!(status == 0 && address.starts_with("fd01:5::") && result["ips"][1].is_null(), "{result}");
    assert_eq!(plugin(&sandbox, "stave-bridge", "DEL", "one", &alone), (0, Value::Null));
    // An address of each set of ranges.
    let of = |sets: Value| with(&network("1.0.0"), json!({"ipam": {"type": "host-local", "ranges": sets}}));
    let two = of(json!([[{"subnet": "10.5.0.0/24"}], [{"subnet": "10.6.0.0/24", "gateway": "10.6.0.9"}]]));
    let (_, result) = plugin(&sandbox, "stave-bridge", "ADD", "one", &two);
    assert_eq!(result["ips"][1]["gateway"], "10.6.0.9", "{result}");
    assert_eq!(plugin(&sandbox, "stave-bridge", "DEL", "one", &two), (0, Value::Null));
    let either = of(json!([[{"subnet": "10.5.0.0/24"}, {"subnet": "10.6.0.0/24"}]]));
    let (_, error) = plugin(&sandbox, "stave-bridge", "ADD", "one", &either);
    assert_eq!(
        (&error["code"], &error["msg"]),
        (&json!(2), &json!("\"ipam.ranges\" with value \"10.6.0.0/24\" is not supported"))
    );
    assert_eq!(sandbox.difference(&before), "");
}

/// Several networks of one container, each with a default route, whatever the interfaces are called.
#[test]
fn each_network_has_its_default_route() {
    let (sandbox, before) = sandbox();
    let networks = [("four", "10.5.0.0/24"), ("six", "fd01:5::/64"), ("other", "10.6.0.0/24")];
    let networks = networks.map(|(name, subnet)| {
        let ipam = json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]}});
        with(&with(&network("1.0.0"), json!({"name": name, "bridge": format!("br-{name}")})), ipam)
    });
    let call = |command: &str, interface: &str, configuration: &Value| {
        let script = format!(
            "CNI_COMMAND={command} CNI_CONTAINERID=one CNI_NETNS=/run/netns/one CNI_IFNAME={interface} CNI_PATH=cni cni/stave-bridge"
        );
        sandbox.sh_with(&script, configuration.to_string().as_bytes()).ok();
    };
    for interfaces in [["eth0", "eth1", "eth2"], ["wan", "lan", "dmz"], ["eth0", "net0", "net1"]] {
        let all = || interfaces.iter().zip(&networks);
        all().for_each(|(interface, network)| call("ADD", interface, network));
        let [first, second, third] = interfaces;
        let v4 = sandbox.within("one", "ip route show default").ok();
        let v4: Vec<&str> = v4.lines().collect();
        assert!(v4.len() == 2 && v4[0].starts_with(&format!("default via 10.5.0.1 dev {first} ")), "{v4:?}");
        assert!(v4[1].starts_with(&format!("default via 10.6.0.1 dev {third} ")), "{v4:?}");
        let v6 = sandbox.within("one", "ip -6 route show default").ok();
        assert!(v6.starts_with(&format!("default via fd01:5::1 dev {second} ")), "{v6}");
        all().rev().for_each(|(interface, network)| call("DEL", interface, network));
        assert_eq!(sandbox.difference(&before), "");
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    let (sandbox, before) = sandbox();
    for (more, code, message) in [
        (json!({"vlan": 7}), 2, "\"vlan\" with value 7 is not supported"),
        (json!({"promiscMode": true}), 2, "\"promiscMode\" with value true is not supported"),
        (json!({"ipam": {"type": "dhcp"}}), 2, "\"ipam.type\" with value \"dhcp\" is not supported"),
        (json!({"mtu": "x"}), 7, "\"mtu\" with value \"x\": a number is wanted"),
        (json!({"name": ""}), 7, "the network has no name"),
        (json!({"bridge": "a/b"}), 7, "invalid value 'a/b' for '[NAME]'"),
    ] {
        let (status, error) = plugin(&sandbox, "stave-bridge", "ADD", "one", &with(&network("1.0.0"), more));
        assert_eq!((status, &error["code"]), (1, &json!(code)), "{error}");
        assert!(error["msg"].as_str().unwrap().contains(message), "{error}");
    }
    let table = json!({"ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "routes": [{"dst": "10.9.0.0/16", "table": 7}]}});
    let (_, error) = plugin(&sandbox, "stave-bridge", "ADD", "one", &with(&network("1.0.0"), table));
    assert_eq!(error["msg"], "\"routes.table\" with value 7 is not supported");
    let host = "CNI_COMMAND=ADD CNI_CONTAINERID=x CNI_NETNS=/proc/self/ns/net CNI_IFNAME=eth0 CNI_PATH=cni cni/stave-bridge";
    let refused = sandbox.sh_with(host, network("1.0.0").to_string().as_bytes()).exits(1);
    let refused: Value = serde_json::from_str(&refused.stdout).unwrap();
    let told = "CNI_NETNS \"/proc/self/ns/net\" is this host's own network namespace";
    assert_eq!((&refused["code"], &refused["msg"]), (&json!(4), &json!(told)));
    let (_, error) = plugin(&sandbox, "stave-bridge", "ADD", "a/b", &network("1.0.0"));
    assert_eq!((&error["code"], &error["msg"]), (&json!(4), &json!("CNI_CONTAINERID is \"a/b\"")));
    let (_, error) = plugin(&sandbox, "stave-bridge", "ADD", "none", &network("1.0.0"));
    assert_eq!(error["code"], 100, "there is no such namespace: {error}");
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1}]}});
    let (_, error) = plugin(&sandbox, "stave-portmap", "ADD", "one", &with(&network("1.0.0"), ports));
    assert_eq!(error["msg"], "portmap comes after stave-bridge in the list of plugins");
    let outcome = sandbox.sh("CNI_COMMAND=ADD cni/stave-bridge < /dev/null").exits(1);
    assert_eq!(serde_json::from_str::<Value>(&outcome.stdout).unwrap()["code"], 6);
    assert_eq!(sandbox.difference(&before), "");
}

#[test]
fn traffic_and_what_breaks_it() {
    let (sandbox, before) = sandbox();
    let result = add(
        &sandbox,
        "1.1.0",
        "one",
        json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]),
    );
    sandbox.serve("one", "TCP4-LISTEN:80", "one");
    assert_eq!(sandbox.ask("host", "TCP4:127.0.0.1:8080"), "one 10.5.0.1");
    let check = with(
        &network("1.1.0"),
        json!({"prevResult": result, "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}),
    );
    for name in ["stave-bridge", "stave-portmap"] {
        assert_eq!(plugin(&sandbox, name, "CHECK", "one", &check), (0, Value::Null), "{name}");
        let unknown = plugin(&sandbox, name, "CHECK", "two", &check);
        assert_eq!((unknown.0, &unknown.1["code"]), (1, &json!(3)), "{name}");
    }
    let moved = with(&check, json!({"prevResult": {"ips": [{"address": "10.5.0.77/24"}]}}));
    assert_eq!(plugin(&sandbox, "stave-bridge", "CHECK", "one", &moved).1["code"], 100);
    sandbox.sh("nft flush ruleset").ok();
    for name in ["stave-bridge", "stave-portmap"] {
        let (status, error) = plugin(&sandbox, name, "CHECK", "one", &check);
        assert_eq!((status, &error["code"]), (1, &json!(100)), "{name}: {error}");
    }
    // Our other tools know what is in the records.
    sandbox.sh("net-repair --all > /dev/null").ok();
    assert_eq!(plugin(&sandbox, "stave-portmap", "CHECK", "one", &check), (0, Value::Null));
    assert_eq!(plugin(&sandbox, "stave-bridge", "STATUS", "", &network("1.1.0")), (0, Value::Null));

    // The runtime no longer knows `one`, and `two` lost its namespace before DEL.
    sandbox.sh("ip netns add two").ok();
    add(&sandbox, "1.1.0", "two", json!([]));
    let left = json!({"cni.dev/valid-attachments": [{"containerID": "two", "ifname": "eth0"}]});
    for name in ["stave-bridge", "stave-portmap"] {
        assert_eq!(
            plugin(&sandbox, name, "GC", "", &with(&network("1.1.0"), left.clone())),
            (0, Value::Null)
        );
    }
    let other = with(&network("1.1.0"), json!({"name": "other", "cni.dev/valid-attachments": []}));
    assert_eq!(
        plugin(&sandbox, "stave-bridge", "GC", "", &other),
        (0, Value::Null),
        "another network's are left"
    );
    assert_eq!(sandbox.sh("ls $STAVE_RUN | grep -c json$").ok(), "1\n");
    sandbox.sh("pkill -P 1 socat; ip netns del two").ok();
    remove(&sandbox, "1.1.0", "two");
    assert_eq!(sandbox.difference(&before), "");
}

/// The network `web` where runtimes look for it, and its plugins.
const NETWORK: &str = r#"
    for directory in /opt /etc/cni; do mkdir -p $directory; mount -t tmpfs tmpfs $directory; done
    mkdir -p /opt/cni /etc/cni/net.d
    cp /usr/lib/cni/loopback cni && ln -s $PWD/cni /opt/cni/bin
    cat > /etc/cni/net.d/10-web.conflist <<X
        {"cniVersion": "1.0.0", "name": "web", "plugins": [
            {"type": "stave-bridge", "bridge": "front", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}]]}},
            {"type": "stave-portmap", "capabilities": {"portMappings": true}}]}
X
"#;

/// A host with the network, and what podman needs.
fn runtime() -> Sandbox {
    let (sandbox, _) = sandbox();
    sandbox.sh(NETWORK).ok();
    let network = "network_backend = \"cni\"\ncni_plugin_dirs = [\"$PWD/cni\"]\nnetwork_config_dir = \"/etc/cni/net.d\"";
    sandbox.prepare_podman(network, "");
    sandbox
}

/// podman listens on published ports itself.
#[test]
fn podman_uses_them() {
    let sandbox = runtime();
    sandbox
        .podman(&format!(
            "{PODMAN_RUN} -d --name one --network web -p 8080:80 --rootfs $PWD/rootfs \
                /bin/sh -c 'while :; do echo hello | nc -l -p 80; done' > /dev/null"
        ))
        .ok();
    assert_eq!(sandbox.ask("host", "TCP4:127.0.0.1:8080,retry=50,interval=0.1"), "hello");
    let networks = "podman inspect one | jq -c '.[0].NetworkSettings.Networks.web | [.IPAddress, .Gateway, .MacAddress]'";
    assert_eq!(sandbox.podman(networks).ok(), "[\"10.5.0.2\",\"10.5.0.1\",\"02:42:0a:05:00:02\"]\n");
    sandbox.podman("podman --runtime runc rm -f -t 0 one > /dev/null").ok();
    assert_eq!(sandbox.sh("ls $STAVE_RUN").ok(), "locks\n");
    let left = sandbox.sh("nft list ruleset; ip -br link show type bridge").ok();
    assert_eq!(left, "");
    sandbox.remove_podmans_cgroups();
}

#[test]
fn containerd_uses_them() {
    let sandbox = runtime();
    sandbox
        .sh("mkdir -p /var/lib/containerd && mount -t tmpfs tmpfs /var/lib/containerd
            containerd > containerd.log 2>&1 < /dev/null &
            for try in $(seq 100); do ctr version > /dev/null 2>&1 && break; sleep 0.05; done")
        .ok();
    let shown = sandbox.sh("ctr run --rootfs --cni --rm $PWD/rootfs one /bin/ip -4 addr show eth0").ok();
    assert!(shown.contains("inet 10.5.0.2/24"), "{shown}");
    assert_eq!(sandbox.sh("ls $STAVE_RUN").ok(), "locks\n", "containerd took it back");
}
