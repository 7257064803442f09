//! `stave-netavark create`, which completes podman's networks.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::Sandbox;

fn with(one: &Value, more: &Value) -> Value {
    let mut whole = one.clone();
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    whole
}

/// Asks for a network. `network` and `options` add to what podman always says.
fn create(sandbox: &Sandbox, network: &Value, options: &Value) -> (i32, Value) {
    let usual = json!({"name": "web", "id": "abc", "driver": "bridge", "dns_enabled": false, "internal": false, "ipv6_enabled": false});
    let pools = json!({"subnet_pools": [{"base": "10.89.0.0/16", "size": 24}, {"base": "fd10::/8", "size": 64}],
        "default_interface_name": "podman", "check_used_subnets": true});
    let asked = json!({"network": with(&usual, network), "options": with(&pools, options),
        "used": {"interfaces": ["podman0"], "names": {"taken": "1"}, "subnets": ["10.89.0.0/24"]}});
    let outcome = sandbox.sh_with("stave-netavark create", asked.to_string().as_bytes());
    (outcome.status, serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null))
}

#[test]
fn what_is_missing_is_chosen() {
    let sandbox = Sandbox::new();
    // An interface of the host has the next subnet, and the next name.
    sandbox.sh("ip link add podman1 type bridge; ip addr add 10.89.1.7/24 dev podman1").ok();
    let before = sandbox.snapshot();
    let made = |network: &Value, options: &Value| {
        let (status, made) = create(&sandbox, network, options);
        assert_eq!(status, 0, "{made}");
        assert!(made["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{made}");
        made
    };
    let plain = made(&json!({"labels": {"a": "b"}}), &json!({}));
    let subnets = json!([{"subnet": "10.89.2.0/24", "gateway": "10.89.2.1"}]);
    assert_eq!((&plain["subnets"], &plain["network_interface"]), (&subnets, &json!("podman2")));
    assert_eq!(
        (&plain["ipam_options"], &plain["labels"]),
        (&json!({"driver": "host-local"}), &json!({"a": "b"}))
    );
    let gateway = |network: &Value| made(network, &json!({}))["subnets"][0]["gateway"].clone();
    assert_eq!(gateway(&json!({"internal": true})), Value::Null);
    assert_eq!(gateway(&json!({"internal": true, "dns_enabled": true})), "10.89.2.1");
    assert_eq!(gateway(&json!({"subnets": [{"subnet": "10.9.0.7/24", "gateway": "10.9.0.9"}]})), "10.9.0.9");
    let both = made(&json!({"ipv6_enabled": true}), &json!({}));
    assert_eq!(both["subnets"][1], json!({"subnet": "fd00::/64", "gateway": "fd00::1"}));
    let both =
        made(&json!({"ipv6_enabled": true}), &json!({"subnet_pools": [{"base": "10.5.0.0/16", "size": 24}]}));
    assert!(both["subnets"][1]["subnet"].as_str().is_some_and(|net| net.starts_with("fd")), "{both}");
    let alone = made(&json!({"subnets": [{"subnet": "fd01::/64"}]}), &json!({}));
    assert_eq!((&alone["ipv6_enabled"], alone["subnets"].as_array().unwrap().len()), (&json!(true), 1));
    let added = made(&json!({"ipv6_enabled": true, "subnets": [{"subnet": "fd01::/64"}]}), &json!({}));
    assert_eq!(added["subnets"][1]["subnet"], "10.89.2.0/24", "ipv6_enabled means both versions");
    let bare = json!({"driver": "macvlan", "network_interface": "out0", "dns_enabled": true, "ipam_options": {"driver": "none"}});
    let bare = made(&bare, &json!({}));
    assert_eq!((&bare["subnets"], &bare["ipam_options"]["driver"]), (&json!([]), &json!("none")));
    assert_eq!(bare["dns_enabled"], false);
    let wire = json!({"driver": "macvlan", "network_interface": "out0", "dns_enabled": true, "subnets": [{"subnet": "192.0.2.0/24"}]});
    // The subnet of the wire is that of the host's link.
    let wire = made(&wire, &json!({"check_used_subnets": false}));
    assert_eq!((&wire["dns_enabled"], &wire["network_interface"]), (&json!(false), &json!("out0")));
    let route = json!({"routes": [{"destination": "10.7.0.9/24", "gateway": "10.89.2.9"}], "options": {"mtu": "1400", "isolate": "strict"}});
    let route = made(&route, &json!({}));
    assert_eq!(route["routes"], json!([{"destination": "10.7.0.0/24", "gateway": "10.89.2.9"}]));
    let refusing = json!([{"destination": "10.7.0.0/24", "route_type": "prohibit", "metric": 7}]);
    assert_eq!(made(&json!({"routes": refusing}), &json!({}))["routes"], refusing);
    // The names of options in Docker.
    let docker = json!({"options": {"com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.name": "br7"}});
    let docker = made(&docker, &json!({}));
    assert_eq!((&docker["options"], &docker["network_interface"]), (&json!({"mtu": "1400"}), &json!("br7")));
    // A bridge of another program has a network of its own, which others of podman's may have too.
    let shared = json!({"options": {"mode": "unmanaged", "metric": "7", "no_default_route": "false"}, "network_interface": "podman0",
        "subnets": [{"subnet": "10.89.0.0/24"}]});
    assert_eq!(made(&shared, &json!({}))["network_interface"], "podman0");
    // podman stores it. Nothing is made before a container is there.
    assert_eq!(sandbox.difference(&before), "");
}

#[test]
fn what_setup_cannot_do_is_refused() {
    let sandbox = Sandbox::new();
    for (network, told) in [
        (json!({"name": ""}), "the network has no name"),
        (
            json!({"name": "bad!"}),
            "network name \"bad!\": a name has letters, digits, `_`, `.` and `-`, and begins with a letter or digit",
        ),
        (json!({"name": "taken"}), "network \"taken\" exists already"),
        (json!({"id": ""}), "network \"web\" has no id"),
        (json!({"driver": "ptp"}), "driver \"ptp\" is not supported, only bridge, macvlan and ipvlan"),
        (json!({"network_interface": "podman0"}), "bridge \"podman0\" is in use"),
        (json!({"driver": "ipvlan", "network_interface": "none0"}), "parent \"none0\" does not exist"),
        (
            json!({"driver": "macvlan"}),
            "network \"web\": ipam driver \"dhcp\" is not supported, only host-local and none",
        ),
        (
            json!({"ipam_options": {"driver": "none"}}),
            "network \"web\": ipam driver \"none\" is not supported on a bridge",
        ),
        (
            json!({"driver": "macvlan", "subnets": [{"subnet": "10.5.0.0/24"}], "ipam_options": {"driver": "none"}}),
            "ipam driver \"none\" has no subnets",
        ),
        (json!({"options": {"vlan": "7"}}), "option \"vlan\" with value \"7\" is not supported"),
        (json!({"options": {"mode": "other"}}), "option \"mode\" with value \"other\" is not supported"),
        (
            json!({"options": {"no_default_route": "x"}}),
            "option \"no_default_route\" with value \"x\" is not supported",
        ),
        (
            json!({"routes": [{"destination": "10.7.0.0/24", "gateway": "10.89.2.9", "route_type": "blackhole"}]}),
            "the route to 10.7.0.0/24 has a gateway, and its type is \"blackhole\"",
        ),
        (json!({"options": {"mtu": "x"}}), "option \"mtu\" with value \"x\" is not 68 to 65535 bytes"),
        (
            json!({"subnets": [{"subnet": "10.5.0.0/31"}]}),
            "subnet 10.5.0.0/31 has no room for a gateway and a container",
        ),
        (
            json!({"subnets": [{"subnet": "10.89.0.64/30"}]}),
            "subnet 10.89.0.64/30 overlaps 10.89.0.0/24, which is in use",
        ),
        (
            json!({"subnets": [{"subnet": "10.5.0.0/16"}, {"subnet": "10.5.6.0/24"}]}),
            "subnets 10.5.0.0/16 and 10.5.6.0/24 overlap",
        ),
        (
            json!({"subnets": [{"subnet": "10.5.0.0/16", "gateway": "10.6.0.1"}]}),
            "gateway 10.6.0.1 is not in subnet 10.5.0.0/16",
        ),
        (
            json!({"subnets": [{"subnet": "10.5.0.0/16", "lease_range": {"end_ip": "10.6.0.1"}}]}),
            "end_ip 10.6.0.1 is not in subnet 10.5.0.0/16",
        ),
        (
            json!({"subnets": [{"subnet": "10.5.0.0/16", "lease_range": {"start_ip": "10.5.0.9", "end_ip": "10.5.0.8"}}]}),
            "the range of subnet 10.5.0.0/16 ends before it begins",
        ),
        (
            json!({"network_dns_servers": ["192.0.2.1"]}),
            "network_dns_servers: DNS is not enabled on the network",
        ),
        (json!({"routes": [{"destination": "10.7.0.0/24"}]}), "the route to 10.7.0.0/24 has no gateway"),
    ] {
        let (status, refused) = create(&sandbox, &network, &json!({}));
        assert_eq!((status, &refused["error"]), (1, &json!(told)), "{network}");
    }
    let (status, refused) =
        create(&sandbox, &json!({}), &json!({"subnet_pools": [{"base": "10.89.0.0/24", "size": 24}]}));
    assert_eq!((status, &refused["error"]), (1, &json!("no free IPv4 subnet in the pools")));
}
