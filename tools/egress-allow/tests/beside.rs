//! The list together with other tools: name-serve, and runtimes that use CNI.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use testkit::NameServer;

/// After egress-allow, name-serve resolves the names of neighbours that are listed, and opens what the list
/// allows.
#[test]
fn names_of_neighbours_are_listed_as_well() {
    let sandbox = sandbox();
    let server = NameServer::start(&sandbox, &zone());
    let before = sandbox.snapshot();
    for id in ["db", "store"] {
        sandbox.sh(&format!("netns-bridge -n --id {id} | veth-pair > {id}.json")).ok();
        for port in [80, 81] {
            sandbox.serve(id, &format!("TCP4-LISTEN:{port}"), id);
        }
    }
    sandbox
        .sh("netns-bridge -n --id web | veth-pair | egress-allow db:80 git.example gone | name-serve --network-alias shop > web.json
             netns-bridge -n --id other | veth-pair | name-serve > other.json")
        .ok();
    assert_reaches(&sandbox, "172.17.0.2:80", false, "before it has asked for the name");
    for (name, rcode, records) in [
        ("db", "NOERROR", 1),
        ("DB.stave0", "NXDOMAIN", 0),
        ("store", "NXDOMAIN", 0),
        ("git.example", "NOERROR", 1),
        ("gone", "NXDOMAIN", 0),
    ] {
        let answer = sandbox.resolve("web", name, "A");
        assert_eq!((answer.rcode.as_str(), answer.records), (rcode, records), "{name}");
    }
    assert_eq!(sandbox.resolve("web", "db", "AAAA").rcode, "NOERROR");
    for (to, reaches) in [
        ("172.17.0.2:80", true),
        ("172.17.0.2:81", false),
        ("172.17.0.3:80", false),
        ("198.51.100.1:443", true),
    ] {
        assert_reaches(&sandbox, to, reaches, "by the list");
    }
    assert_eq!(server.asked(), ["A git.example", "A gone"]);
    // The others know the container by its alias.
    assert_eq!(sandbox.resolve("other", "shop", "A").addresses[0].0.to_string(), "172.17.0.4");
    sandbox.sh("name-serve --check < web.json | egress-allow --check > /dev/null").ok();
    sandbox.sh("unwind web other db store > /dev/null; pkill -f 'LISTEN:8[01],' || true").ok();
    assert_as(&sandbox, &before);
}

/// The CNI plugin `stave-egress`, after `stave-bridge`.
#[test]
fn a_plugin_of_cni() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    let plugins = "mkdir cni; ln -s $(command -v bridge-attach) cni/stave-bridge; ln -s $(command -v egress-allow) cni/stave-egress; ip netns add one; ip -n one link set lo up";
    sandbox.sh(plugins).ok();
    let before = sandbox.snapshot();
    let run = |plugin: &str, command: &str, configuration: &str| {
        let script = format!(
            "CNI_COMMAND={command} CNI_CONTAINERID=one CNI_NETNS=/run/netns/one CNI_IFNAME=eth0 CNI_PATH=cni cni/{plugin}"
        );
        sandbox.sh_with(&script, configuration.as_bytes())
    };
    let network = r#""cniVersion": "1.1.0", "name": "web""#;
    let bridge = format!(r#"{{{network}, "type": "stave-bridge", "bridge": "front"}}"#);
    let egress = |more: &str| format!(r#"{{{network}, "type": "stave-egress"{more}}}"#);
    let first = run("stave-bridge", "ADD", &bridge).ok();
    let list = format!(r#", "allow": ["git.example:443", "198.51.100.4"], "prevResult": {first}"#);
    let result = run("stave-egress", "ADD", &egress(&list)).json();
    assert_eq!(result["dns"]["nameservers"][0], "127.0.0.11");
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result}");
    assert_eq!(sandbox.resolve("one", "git.example", "A").rcode, "NOERROR");
    for (to, reaches) in [("198.51.100.1:443", true), ("198.51.100.4:80", true), ("198.51.100.3:443", false)]
    {
        assert_eq!(!sandbox.ask("one", &format!("TCP4:{to}")).is_empty(), reaches, "{to}");
    }
    let check = format!(r#", "allow": ["git.example:443", "198.51.100.4"], "prevResult": {result}"#);
    run("stave-egress", "CHECK", &egress(&check)).ok();
    for (more, told) in [
        ("", "a list that is not empty"),
        (r#", "allow": ["10.0.0.1/8"]"#, "10.0.0.1 is an address in 10.0.0.0/8"),
        (r#", "allow": ["a.example"], "deny": ["b"]"#, "deny"),
    ] {
        let refused = run("stave-egress", "ADD", &egress(more)).exits(1).stdout;
        assert!(refused.contains(told), "{refused}");
    }
    // The runtime has lost the container, and calls the first plugin first.
    let gone = r#", "cni.dev/valid-attachments": []"#;
    run(
        "stave-bridge",
        "GC",
        &bridge.replace("\"bridge\": \"front\"", &format!("\"bridge\": \"front\"{gone}")),
    )
    .ok();
    run("stave-egress", "GC", &egress(&format!(r#", "allow": ["a.example"]{gone}"#))).ok();
    run("stave-egress", "DEL", &egress("")).ok();
    sandbox.assert_as(&before);
}
