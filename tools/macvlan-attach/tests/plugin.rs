//! macvlan-attach as the CNI plugin `stave-macvlan`.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::Sandbox;

/// What the plugin exits with and prints.
fn plugin(sandbox: &Sandbox, command: &str, configuration: &Value) -> (i32, Value) {
    let environment = "CNI_CONTAINERID=one CNI_NETNS=/run/netns/one CNI_IFNAME=eth0 CNI_PATH=cni";
    let script = format!("CNI_COMMAND={command} {environment} cni/stave-macvlan");
    let outcome = sandbox.sh_with(&script, configuration.to_string().as_bytes());
    (outcome.status, serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null))
}

#[test]
fn a_cni_plugin() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir cni && ln -s $(command -v macvlan-attach) cni/stave-macvlan && ip netns add one").ok();
    let before = sandbox.snapshot();
    let network = |more: Value| {
        let mut network = json!({"cniVersion": "1.1.0", "name": "wire", "type": "stave-macvlan", "master": "out0",
            "ipam": {"type": "host-local", "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.159",
                "gateway": "192.0.2.2", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "priority": 7}]}});
        network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        network
    };
    let (status, result) = plugin(&sandbox, "ADD", &network(json!({"mode": "private", "mtu": 1400})));
    let ip = json!({"address": "192.0.2.128/24", "gateway": "192.0.2.2", "interface": 0});
    assert_eq!((status, &result["ips"]), (0, &json!([ip])), "{result}");
    assert_eq!(result["interfaces"][0]["sandbox"], "/run/netns/one");
    let shown = sandbox.within("one", "ip -d link show eth0; ip route").ok();
    for part in ["macvlan mode private", "mtu 1400", "default via 192.0.2.2", "10.9.0.0/16 via 192.0.2.2"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    sandbox.serve("one", "TCP4-LISTEN:80", "one");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.128:80"), "one 192.0.2.2");
    let whole = network(json!({"mode": "private", "mtu": 1400, "prevResult": result}));
    assert_eq!(plugin(&sandbox, "CHECK", &whole).0, 0);
    sandbox.within("one", "ip link set eth0 down").ok();
    assert_eq!(plugin(&sandbox, "CHECK", &whole).0, 1);
    for _ in 0..2 {
        assert_eq!(plugin(&sandbox, "DEL", &whole), (0, Value::Null));
    }
    // Without one in `routes`, there is no default route, as with the plugin `macvlan`.
    let ipam =
        json!({"type": "static", "addresses": [{"address": "192.0.2.77/24"}, {"address": "192.0.2.78/24"}]});
    let (status, result) = plugin(&sandbox, "ADD", &network(json!({"ipam": ipam})));
    assert_eq!((status, result["ips"].as_array().map(Vec::len)), (0, Some(2)), "{result}");
    assert_eq!(sandbox.within("one", "ip route show default").ok(), "");
    assert_eq!(plugin(&sandbox, "GC", &network(json!({"cni.dev/valid-attachments": []}))).0, 0);
    // Of each version of IP, only `routes` says so. The usual gateway is the first address.
    let ranges = json!([[{"subnet": "192.0.2.0/24", "gateway": "192.0.2.2"}], [{"subnet": "fd01:2::/64"}]]);
    for (routes, gateways) in [
        (json!([{"dst": "::/0"}]), ["", "fd01:2::1"]),
        (json!([{"dst": "0.0.0.0/0"}]), ["192.0.2.2", ""]),
        (json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd01:2::9"}]), ["192.0.2.2", "fd01:2::9"]),
    ] {
        let both = network(json!({"ipam": {"type": "host-local", "ranges": ranges, "routes": routes}}));
        let (status, result) = plugin(&sandbox, "ADD", &both);
        assert_eq!(status, 0, "{result}");
        for (version, gateway) in ["-4", "-6"].into_iter().zip(gateways) {
            let shown = sandbox.within("one", &format!("ip {version} route show default")).ok();
            assert_eq!(shown.split(' ').nth(2).unwrap_or_default(), gateway, "{version} {routes}: {shown}");
        }
        assert_eq!(plugin(&sandbox, "DEL", &both), (0, Value::Null));
    }
    for (more, told) in [
        (json!({"linkInContainer": true}), "\"linkInContainer\" with value true is not supported"),
        (json!({"ipam": {"type": "dhcp"}}), "\"ipam.type\" with value \"dhcp\" is not supported"),
        (json!({"mode": "source"}), "invalid value 'source' for '--mode <MODE>'"),
        (json!({"master": "nowhere"}), "no interface \"nowhere\""),
    ] {
        let (status, error) = plugin(&sandbox, "ADD", &network(more));
        assert!(status == 1 && error["msg"].as_str().unwrap().contains(told), "{error}");
    }
    sandbox.sh("pkill -P 1 socat || true").ok();
    sandbox.assert_as(&before);
}

/// Without `ipam`, the container gets no address.
#[test]
fn a_cni_plugin_without_addresses() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir cni && ln -s $(command -v macvlan-attach) cni/stave-macvlan && ip netns add one").ok();
    for ipam in [json!({}), Value::Null] {
        let bare = json!({"cniVersion": "1.1.0", "name": "wire", "type": "stave-macvlan", "master": "out0", "ipam": ipam});
        let (status, result) = plugin(&sandbox, "ADD", &bare);
        assert_eq!(
            (status, &result["ips"], &result["interfaces"][0]["name"]),
            (0, &Value::Null, &json!("eth0"))
        );
        assert_eq!(sandbox.within("one", "ip -o addr show eth0; ip route").ok(), "");
        assert_eq!(plugin(&sandbox, "DEL", &bare), (0, Value::Null));
    }
}
