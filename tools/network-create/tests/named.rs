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
            "network-create other --subnet 10.6.0.0/24 --ip-range 10.6.0.0/25 --ip-range 10.6.0.128/25",
            "network-create: --ip-range 10.6.0.0/25 and 10.6.0.128/25: a network has one for each IP version",
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
            podman(json!({"subnets": [{"subnet": "10.88.0.0/16"}, {"subnet": "10.88.7.0/24"}]})),
            "subnet 10.88.7.0/24 collides with 10.88.0.0/16 of the same network",
        ),
        (
            "cni.conflist",
            cni(
                json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd01::/64"}, {"subnet": "fd02::/64"}]]}}),
            ),
            "a set of ranges with fd01::/64 and fd02::/64 is not carried out",
        ),
    ] {
        write(&sandbox, file, &content);
        let name = file.split('.').next().unwrap();
        let refused =
            sandbox.sh(&format!("netns-add -n --id web | bridge-attach {name} > /dev/null")).exits(1);
        let line = refused.stderr.lines().next().unwrap();
        assert!(line.starts_with("bridge-attach: ") && line.contains(told), "{told}: {line}");
        assert_eq!(line.starts_with("bridge-attach: read network \""), !told.contains("collides"), "{line}");
        sandbox.sh("unwind web > /dev/null").ok();
    }
}

/// A network with several subnets of one IP version: containers have an address of each.
#[test]
fn several_subnets_of_one_version() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let subnets = "--subnet 10.5.0.0/24 --subnet 10.6.0.0/24 --subnet fd05::/64 --subnet fd06::/64";
    let parts = "--gateway 10.6.0.9 --gateway fd05::9 --ip-range 10.6.0.128/25";
    sandbox
        .sh(&format!("network-create front {subnets} {parts} > /dev/null; network-create back > /dev/null"))
        .ok();
    sandbox.sh("netns-add -n --id web | bridge-attach front --ip 10.5.0.7 > web.json").ok();
    sandbox.sh("netns-add -n --id db | bridge-attach front --ip 10.6.0.200 > db.json").ok();
    // By the bridge's name, a container gets the subnets that the bridge has.
    sandbox.sh("mv $STAVE_ROOT/networks/front.json kept.json; netns-add -n --id bare | bridge-attach front | portmap -p 8080:80 > bare.json").ok();
    let shown = "jq -r '[.networks[0].cni | (.ips[] | [.address, .gateway]), (.routes[] | .gw)] | flatten | join(\" \")'";
    let v6 = sandbox
        .sh("jq -r '[.networks[0].cni.ips[] | .address | select(contains(\":\"))] | join(\" \")' web.json")
        .ok();
    let (one, other) = v6.trim().split_once(' ').unwrap();
    assert_eq!(
        sandbox.sh(&format!("{shown} web.json")).ok(),
        format!(
            "10.5.0.7/24 10.5.0.1 {one} fd05::9 10.6.0.128/24 10.6.0.9 {other} fd06::1 10.5.0.1 fd05::9\n"
        )
    );
    let of = |id: &str| sandbox.sh(&format!("jq -r '.networks[0].cni.ips[].address' {id}.json")).ok();
    assert!(of("db").contains("10.6.0.200/24") && of("bare").contains("10.6.0."), "{}", of("bare"));
    for id in ["web", "bare"] {
        sandbox.serve(id, "TCP6-LISTEN:80", id);
    }
    let other = other.trim_end_matches("/64");
    for (from, to, answers) in [
        ("db", "TCP4:10.6.0.128:80", true),
        ("host", "TCP4:10.6.0.128:80", true),
        ("db", &*format!("TCP6:[{other}]:80"), true),
        ("outside", "TCP4:192.0.2.1:8080", true),
        ("outside", "TCP4:10.6.0.128:80", false),
    ] {
        sandbox.outside("ip route replace 10.6.0.0/24 via 192.0.2.1").ok();
        assert_eq!(!sandbox.ask(from, to).is_empty(), answers, "{from} asks {to}");
    }
    // Packets of the second subnet leave with the host's address, too.
    sandbox.sh("nft list set inet stave subnets | grep -q 10.6.0.0/24").ok();
    sandbox.sh("nft flush ruleset; ip address del 10.6.0.9/24 dev front; net-repair --all > /dev/null; bridge-attach --check < web.json > /dev/null").ok();
    assert!(!sandbox.ask("host", "TCP4:10.6.0.128:80").is_empty());
    let again = sandbox.sh("net-repair --all").exits(0).stderr;
    assert_eq!(again, "net-repair: nothing is missing\n", "neither of IPv4 nor of IPv6");
    sandbox.sh("unwind web db bare > /dev/null; network-rm back > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("ip route del 10.6.0.0/24").ok();
    sandbox.assert_as(&before);
}

#[test]
fn second_subnets_that_cannot_be() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-add -n --id one | bridge-attach front --subnet 10.6.0.0/24 > one.json").ok();
    sandbox.sh("network-create back > /dev/null").ok();
    for (make, told) in [
        (
            "--subnet 10.7.0.0/24 --subnet 10.7.0.0/25",
            "subnet 10.7.0.0/25 collides with 10.7.0.0/24 of the same network",
        ),
        (
            "--subnet 10.7.0.0/24 --subnet 10.6.0.0/25",
            "subnet 10.6.0.0/25 collides with 10.6.0.1/24 on interface \"front\"",
        ),
        (
            "--subnet 10.7.0.0/24 --subnet 10.8.0.0/24 --vxlan 7 --vxlan-local 192.0.2.1",
            "subnet 10.8.0.0/24, the second one of its version of IP, beside options.vxlan is not carried out",
        ),
    ] {
        let refused = sandbox.sh(&format!("network-create other {make}")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(&*format!("network-create: {told}")), "{make}");
    }
    for (attach, told) in [
        ("back --further-subnet 10.9.0.0/24", "--further-subnet is not for it"),
        // The container that is on the bridge does not know of it.
        ("front --further-subnet 10.9.0.0/24", "bridge \"front\" has no address in subnet 10.9.0.0/24"),
        ("new --further-subnet fd09::/64", "bridge \"new\" has no IPv6"),
        ("new --further-subnet 10.9.0.0/24 --ip 10.10.0.1", "address 10.10.0.1 is not in subnet 172."),
    ] {
        let refused =
            sandbox.sh(&format!("netns-add -n --id no | bridge-attach {attach} > /dev/null")).exits(1);
        assert!(refused.stderr.contains(told), "{attach}: {}", refused.stderr);
        sandbox.sh("unwind no > /dev/null").ok();
    }
}

/// Options of Docker and podman have their flags' effect, or are refused by name.
#[test]
fn options_of_docker_and_podman() {
    let sandbox = Sandbox::new();
    let bridge = "com.docker.network.bridge";
    let options = format!(
        "-o {bridge}.name=br7 -o {bridge}.enable_icc=false -o {bridge}.gateway_mode_ipv4=routed -o com.docker.network.driver.mtu=1400 \
         -o metric=7 -o isolate=strict"
    );
    let made = sandbox.sh(&format!("network-create front {options}")).json();
    let told =
        json!({"mtu": "1400", "icc": "false", "gateway_mode": "routed", "metric": "7", "isolate": "strict"});
    assert_eq!((&made["network_interface"], &made["options"]), (&json!("br7"), &told));
    for (option, told) in [
        ("isolate=false", "options.isolate \"false\" is not carried out".to_owned()),
        ("metric=x", "options.metric cannot be \"x\"".to_owned()),
        ("vlan=7", "-o vlan is not for the driver bridge".to_owned()),
        (&format!("{bridge}.enable_icc=no"), format!("-o {bridge}.enable_icc cannot be \"no\"")),
        // Each counts for its own version of IP.
        (
            &format!("{bridge}.gateway_mode_ipv6=routed --ipv6"),
            format!(
                "-o {bridge}.gateway_mode_ipv4 and -o {bridge}.gateway_mode_ipv6 differ: a network has one gateway mode"
            ),
        ),
    ] {
        let refused = sandbox.sh(&format!("network-create other -o {option}")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(&*format!("network-create: {told}")), "{option}");
    }
}

/// A container on the wire without an address: it may get one by itself.
#[test]
fn a_network_without_addresses() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox.sh("network-create bare --driver macvlan -o parent=out0 --ipam-driver none > made.json").ok();
    assert_eq!(
        sandbox.sh("jq -c '[.subnets, .ipam_options]' made.json").ok(),
        "[[],{\"driver\":\"none\"}]\n"
    );
    let start = |id: &str, flags: &str| {
        sandbox.sh(&format!("netns-add -n --id {id} | macvlan-attach {flags} > {id}.json")).ok()
    };
    start("a", "bare");
    start("b", "other --parent out0 --no-addresses");
    let shown =
        "jq -c '.networks[0] | [.parent.subnet, (.cni | (.ips | length), (.routes | length))]' a.json b.json";
    assert_eq!(sandbox.sh(shown).ok(), "[null,0,0]\n[null,0,0]\n");
    let mac = |id: &str| sandbox.within(id, "cat /sys/class/net/eth0/address").ok();
    assert_ne!(mac("a"), mac("b"));
    // It takes part in the wire, with an address that it has given itself.
    sandbox.within("a", "ip address add 192.0.2.99/24 dev eth0").ok();
    sandbox.outside("busybox ping -c 1 -W 1 192.0.2.99 > /dev/null").ok();
    sandbox.sh("macvlan-attach --check < a.json > /dev/null").ok();
    for (command, told) in [
        ("macvlan-attach bare --ip 192.0.2.7", "macvlan-attach: the network's containers get no address"),
        (
            "macvlan-attach bare --route 10.9.0.0/16",
            "macvlan-attach: the network's containers get no address",
        ),
        (
            "macvlan-attach bare | portmap -p 80:80",
            "portmap: no port of the container can be published: it is on no bridge of this host",
        ),
        ("macvlan-attach bare | link-hosts --link a", "link-hosts: container \"a\" has no address"),
    ] {
        let refused = sandbox.sh(&format!("netns-add -n --id c | {command} > /dev/null")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(told), "{command}");
        sandbox.sh("unwind c > /dev/null").ok();
    }
    for (flags, told) in [
        (
            "--driver macvlan -o parent=out0 --subnet 192.0.2.0/24",
            "--subnet is not for a network without addresses",
        ),
        ("--driver bridge", "--ipam-driver none is not for the driver bridge"),
    ] {
        let refused = sandbox.sh(&format!("network-create x {flags} --ipam-driver none")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(&*format!("network-create: {told}")), "{flags}");
    }
    sandbox.sh("unwind a b > /dev/null; network-rm bare > /dev/null").ok();
    sandbox.assert_as(&before);
}
