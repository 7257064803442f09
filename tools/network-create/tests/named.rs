//! Named networks: files of Stave, podman and CNI.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::Sandbox;

fn write(sandbox: &Sandbox, name: &str, content: &Value) {
    let directory = sandbox.root().join("networks");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), content.to_string()).unwrap();
}

#[test]
fn a_network_is_made_used_and_removed() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let flags = "--ip-range 10.5.0.128/25 --subnet fd01:5::/64 --icc=false --mtu 1400 --label a=b";
    let made = sandbox.sh(&format!("network-create front --subnet 10.5.0.0/24 {flags}")).json();
    assert_eq!((&made["driver"], &made["network_interface"]), (&json!("bridge"), &json!("front")));
    assert_eq!(made["id"].as_str().unwrap().len(), 64);
    let attached = sandbox.sh("netns-add -n --id web | bridge-attach front | tee web.json").json();
    let network = &attached["networks"][0];
    assert_eq!(network["cni"]["ips"][0]["address"], "10.5.0.128/24");
    let bridge = &network["bridge"];
    assert_eq!((&bridge["isolated"], &bridge["ipv6"]["subnet"]), (&json!(true), &json!("fd01:5::/64")));
    assert_eq!(network["cni"]["interfaces"][2]["mtu"], 1400);
    for (command, told) in [
        ("network-create front", "network-create: network \"front\" exists: "),
        (
            "network-create other --subnet 10.5.0.0/16",
            "network-create: subnet 10.5.0.0/16 collides with network \"front\", which has 10.5.0.0/24",
        ),
        (
            "network-create other --bridge front",
            "network-create: bridge \"front\" is that of network \"front\"",
        ),
        (
            "network-create other --subnet 10.6.0.0/24 --ip-range 10.7.0.0/24",
            "network-create: range 10.7.0.0/24 is not in subnet 10.6.0.0/24",
        ),
        (
            "network-create other --subnet 10.6.0.0/24 --subnet 10.7.0.0/24",
            "network-create: --subnet 10.6.0.0/24 and 10.7.0.0/24: a network has one for each IP version",
        ),
        ("network-rm front", "network-rm: network \"front\" is in use by container \"web\""),
        ("network-rm none", "network-rm: no network \"none\""),
        ("network-ls none", "network-ls: no network \"none\""),
    ] {
        let refused = sandbox.sh(command).exits(1);
        assert!(refused.stderr.starts_with(told), "{command}: {}", refused.stderr);
    }
    let refused = sandbox.sh("netns-add -n --id db | bridge-attach front --internal > /dev/null").exits(1);
    assert!(
        refused.stderr.contains("says what network \"front\" is: --internal is not for it"),
        "{}",
        refused.stderr
    );
    sandbox.sh("unwind db > /dev/null").ok();
    sandbox.sh("network-create a-name-that-is-too-long-for-a-bridge > long.json").ok();
    let long = sandbox.sh("cat long.json").json();
    assert!(long["network_interface"].as_str().unwrap().starts_with("br-"));
    // The subnet is chosen once: the next network gets another one, although no bridge exists yet.
    sandbox.sh("network-create next > next.json").ok();
    let next = sandbox.sh("cat next.json").json();
    assert_ne!(long["subnets"][0]["subnet"], next["subnets"][0]["subnet"]);
    let table = sandbox.sh("network-ls --table front").ok();
    assert_eq!(
        table,
        "NETWORK   DRIVER   LINK    SUBNETS                   CONTAINERS\n\
         front     bridge   front   10.5.0.0/24 fd01:5::/64   web\n"
    );
    // One of several attachments is removed by its network's name.
    let both = "bridge-attach next < web.json | tee both.json | bridge-attach --undo front | tee one.json | jq -c '[.networks[].name]'";
    assert_eq!(sandbox.sh(both).ok(), "[\"next\"]\n");
    assert_eq!(sandbox.sh("jq -c '[.networks[].name]' /run/stave/web.json; ip -n web -br link show type veth | cut -d@ -f1").ok(), "[\"next\"]\neth1\n");
    let again =
        sandbox.sh("bridge-attach front < one.json | jq -c '[.networks[] | [.name, .interface]]'").ok();
    assert_eq!(again, "[[\"next\",\"eth1\"],[\"front\",\"eth0\"]]\n");
    sandbox
        .sh("unwind web > /dev/null; network-rm front next a-name-that-is-too-long-for-a-bridge > /dev/null")
        .ok();
    sandbox.sh("rmdir \"$STAVE_ROOT\"/networks \"$STAVE_ROOT\" 2> /dev/null; true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn files_of_podman_and_of_cni() {
    let sandbox = Sandbox::new();
    let podman = |change: Value| {
        let mut file = json!({
            "name": "pod", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9", "driver": "bridge",
            "network_interface": "podman7", "created": "2026-01-01T12:00:00.000000000Z",
            "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1",
                "lease_range": {"start_ip": "10.88.7.1", "end_ip": "10.88.7.255"}}],
            "ipv6_enabled": false, "internal": true, "dns_enabled": true,
            "options": {"mtu": "1300", "isolate": "true"}, "ipam_options": {"driver": "host-local"}
        });
        file.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        file
    };
    write(&sandbox, "pod.json", &podman(json!({})));
    let cni = |change: Value| {
        let mut bridge = json!({
            "type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.99.0.0/16"}],
                "ranges": [[{"subnet": "10.77.0.0/16", "gateway": "10.77.0.1"}]]}
        });
        bridge.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"cniVersion": "0.4.0", "name": "cni", "plugins": [bridge,
            {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall"}]})
    };
    write(&sandbox, "cni.conflist", &cni(json!({})));
    sandbox.sh("netns-add -n --id web | bridge-attach pod | bridge-attach cni > web.json").ok();
    let shown = "jq -c '.networks[] | [.name, .bridge.name, .bridge.internal, .cni.ips[0].address, .cni.interfaces[2].mtu, (.cni.routes | length)]' web.json";
    assert_eq!(
        sandbox.sh(shown).ok(),
        "[\"pod\",\"podman7\",true,\"10.88.7.0/16\",1300,0]\n[\"cni\",\"cni7\",null,\"10.77.0.2/16\",1500,2]\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    // If the bridges exist, they have their own addresses, and nothing else is requested.
    let without = json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}]]}});
    write(&sandbox, "cni.conflist", &cni(without));
    sandbox
        .sh("for bridge in 'podman7 10.88.0.254/16' 'cni7 10.77.0.254/16'; do set -- $bridge
                 ip link add $1 type bridge; ip addr add $2 dev $1; ip link set $1 up
             done; netns-add -n --id web | bridge-attach pod | bridge-attach cni > web.json")
        .ok();
    let gateways = sandbox.sh("jq -r '.networks[].bridge.gateway' web.json; unwind web > /dev/null").ok();
    assert_eq!(gateways, "10.88.0.254\n10.77.0.254\n");
    for (file, content, told) in [
        ("pod.json", podman(json!({"driver": "ptp"})), "driver \"ptp\" is not carried out"),
        (
            "pod.json",
            podman(json!({"network_dns_servers": ["10.0.0.1"]})),
            "network_dns_servers is not carried out",
        ),
        ("pod.json", podman(json!({"options": {"vlan": "7"}})), "options.vlan \"7\" is not carried out"),
        ("pod.json", podman(json!({"name": "x"})), "it is called \"x\""),
        ("cni.conflist", cni(json!({"vlan": 7})), "setting \"vlan\" of plugin \"bridge\" is not carried out"),
        (
            "cni.conflist",
            cni(json!({"type": "ptp"})),
            "a first plugin that is not one of [\"bridge\", \"macvlan\", \"ipvlan\"] is not carried out",
        ),
        ("cni.conflist", cni(json!({"ipam": {"type": "dhcp"}})), "ipam \"dhcp\" is not carried out"),
        ("cni.conflist", json!("x"), "invalid type: string \"x\""),
        (
            "pod.json",
            podman(json!({"subnets": [{"subnet": "10.88.0.0/16"}, {"subnet": "10.66.0.0/16"}]})),
            "subnet 10.66.0.0/16, the second one of its version of IP, is not carried out",
        ),
        (
            "cni.conflist",
            cni(
                json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd01::/64"}], [{"subnet": "fd02::/64"}]]}}),
            ),
            "subnet fd02::/64, the second one of its version of IP, is not carried out",
        ),
    ] {
        write(&sandbox, file, &content);
        let name = file.split('.').next().unwrap();
        let refused =
            sandbox.sh(&format!("netns-add -n --id web | bridge-attach {name} > /dev/null")).exits(1);
        let line = refused.stderr.lines().next().unwrap();
        assert!(line.starts_with("bridge-attach: read network \"") && line.contains(told), "{told}: {line}");
        let hint = "hint: make another network of ";
        assert_eq!(refused.stderr.contains(hint), told.contains("second"), "{}", refused.stderr);
        sandbox.sh("unwind web > /dev/null").ok();
    }
}
