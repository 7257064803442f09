//! The list under attack and with faults: processes are killed, servers lie.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use testkit::{HOST, Has, NameServer, Sandbox};

/// Neither a flush of the host's rules nor the end of the resolver opens anything.
#[test]
fn it_fails_closed_and_is_repaired() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    start(&sandbox, "git.example 198.51.100.4");
    let works = |when: &str| {
        assert_eq!(sandbox.resolve("web", "git.example", "A").rcode, "NOERROR", "{when}");
        assert_reaches(&sandbox, "198.51.100.1:443", true, when);
        assert_reaches(&sandbox, "198.51.100.3:443", false, when);
    };
    works("at the start");
    sandbox.sh("nft flush ruleset; net-repair --all").ok();
    works("after a flush");
    sandbox.sh("nft delete table netdev stave_egress_web").exits(1);
    let kill = "kill -9 $(cat /proc/[0-9]*/comm /dev/null | grep -q egress-allow; for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = egress-allow ] && echo ${p#/proc/}; done)";
    sandbox.sh(kill).ok();
    assert_reaches(&sandbox, "198.51.100.3:443", false, "without the resolver");
    assert_reaches(&sandbox, "198.51.100.4:443", true, "without the resolver");
    // A query fails at once.
    assert_eq!(sandbox.resolve("web", "git.example", "A").rcode, "");
    let missing = sandbox.sh("egress-allow --check < web.json > checked.json").exits(1);
    assert_eq!(
        missing.stderr,
        "egress-allow: missing: resolver of \"web\"\negress-allow: 1 of the things that the document lists is not as listed\n"
    );
    sandbox.sh("egress-allow --repair < web.json > repaired.json").ok();
    works("after --repair");
    // Without the resolver, nobody owns the table. If it is removed then, it is restored.
    sandbox.sh(&format!("{kill}; while grep -qsx egress-allow /proc/[0-9]*/comm; do sleep 0.01; done; nft flush ruleset; net-repair --all")).ok();
    works("after the flush of what is nobody's");
    // The next network tool restores it, too, before it gives the container its way out again.
    sandbox.sh(&format!("{kill}; while grep -qsx egress-allow /proc/[0-9]*/comm; do sleep 0.01; done; nft flush ruleset; netns-bridge -n --id other > other.json 2> /dev/null")).ok();
    assert_reaches(&sandbox, "198.51.100.3:443", false, "after the next tool");
    assert_reaches(&sandbox, "198.51.100.4:443", true, "after the next tool");
    sandbox.sh("netns-bridge --undo < other.json > /dev/null; net-repair --all > /dev/null 2>&1").ok();
    works("after the next tool");
    let link = sandbox.sh("jq -r '.network.cni.interfaces[1].name' web.json").ok();
    sandbox.sh(&format!("ip link del {}; net-repair --all", link.trim())).ok();
    works("after its link was removed");
    sandbox.sh("net-repair --all 2>&1 | grep -q 'nothing is missing'").ok();
    sandbox.sh("unwind web > /dev/null; ! nft list ruleset | grep .").ok();
}

/// A container may have CAP_NET_ADMIN in its own namespace. Nothing that it does there lifts the restriction.
#[test]
fn a_container_lifts_nothing_in_its_own_namespace() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    start(&sandbox, "198.51.100.4");
    let free = |when: &str| {
        assert_eq!(sandbox.ask("web", "TCP4:198.51.100.3:80"), "", "{when}");
        assert_eq!(sandbox.ask("web", "TCP4:172.17.0.2:80"), "", "{when}");
    };
    sandbox.serve("db", "TCP4-LISTEN:80", "db");
    for (escape, back) in [
        (
            "ip -n web addr flush dev eth0; ip -n web addr add 172.17.0.77/16 dev eth0; ip -n web route add default via 172.17.0.1",
            "ip -n web addr flush dev eth0; ip -n web addr add 172.17.0.3/16 dev eth0; ip -n web route add default via 172.17.0.1",
        ),
        (
            "ip -n web link set eth0 address 02:00:00:00:00:77",
            "ip -n web link set eth0 address $(jq -r '.network.cni.interfaces[2].mac' web.json)",
        ),
        (
            "ip -n web neigh replace 172.17.0.2 lladdr $(jq -r '.network.cni.interfaces[2].mac' db.json) dev eth0",
            "ip -n web neigh flush all",
        ),
        (
            "ip netns exec web sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6'; ip -n db link show > /dev/null",
            "true",
        ),
        ("ip netns exec web nft flush ruleset", "true"),
    ] {
        sandbox.sh(escape).ok();
        free(escape);
        sandbox.sh(back).ok();
        assert_reaches(&sandbox, "198.51.100.4:80", true, escape);
    }
    // Fragmented packets pass only after a first fragment that passes.
    let large =
        |to: &str| sandbox.within("web", &format!("busybox ping -c 1 -W 1 -s 4000 {to} > /dev/null")).status;
    assert_eq!((large("198.51.100.4"), large("198.51.100.3")), (0, 1));
}

/// Names, each with a fault or a lie.
fn faulty_zone() -> Vec<(&'static str, Has)> {
    let address = |host: u8| [198, 51, 100, host].into();
    let within = |first: u8, second: u8, last: u8| [first, second, 1, last].into();
    vec![
        ("silent.example", Has::Silence),
        ("failing.example", Has::Failure),
        ("many.example", Has::Many(150)),
        ("text.example", Has::Text),
        ("forged.example", Has::Forged(address(3), address(1))),
        ("ring.example", Has::Ring),
        ("cut.example", Has::Cut),
        ("foreign.example", Has::Foreign(address(3))),
        ("circle.example", Has::Alias("circle2.example")),
        ("circle2.example", Has::Addresses(vec![], 1)),
        ("loopback.example", Has::Addresses(vec![within(127, 0, 1), address(2)], 60)),
        (
            "metadata.example",
            Has::Addresses(vec!["169.254.169.254".parse().unwrap(), "100.100.100.200".parse().unwrap()], 60),
        ),
        (
            "neighbour.example",
            Has::Addresses(vec!["172.17.0.1".parse().unwrap(), "172.17.0.2".parse().unwrap()], 60),
        ),
        ("host.example", Has::Addresses(vec![HOST.parse().unwrap()], 60)),
        ("brief.example", Has::Addresses(vec![address(1)], 0)),
        ("long.example", Has::Addresses(vec![address(1)], 0x7fff_ffff)),
    ]
}

/// A name server that fails, or gives misleading answers.
#[test]
fn servers_that_fail_and_answers_that_lie() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &faulty_zone());
    start(&sandbox, "'*.example' 198.51.100.4");
    sandbox.sh("socat TCP4-LISTEN:8000,fork,reuseaddr SYSTEM:'read q; echo host' >/dev/null 2>&1 </dev/null & until ss -Hlnt | grep -q ':8000 '; do sleep 0.01; done").ok();
    let ask = |name: &str, how: &str| {
        let answer = sandbox.resolve("web", name, how);
        let addresses: Vec<_> = answer.addresses.iter().map(|(address, _)| address.to_string()).collect();
        (answer.rcode.clone(), addresses.join(" "), answer)
    };
    for (name, rcode, addresses) in [
        ("failing.example", "SERVFAIL", ""),
        ("forged.example", "NOERROR", "198.51.100.1"),
        ("ring.example", "SERVFAIL", ""),
        ("cut.example", "SERVFAIL", ""),
        ("foreign.example", "NOERROR", ""),
        ("circle.example", "NOERROR", ""),
        ("loopback.example", "NOERROR", "198.51.100.2"),
        ("metadata.example", "NOERROR", ""),
        ("neighbour.example", "NOERROR", ""),
        ("brief.example", "NOERROR", "198.51.100.1"),
    ] {
        let (found, has, _) = ask(name, "A");
        assert_eq!((found.as_str(), has.as_str()), (rcode, addresses), "{name}");
    }
    assert_reaches(&sandbox, "198.51.100.3:80", false, "after answers that lie");
    // An answer with an address of the host opens nothing.
    assert_eq!(ask("host.example", "A").1, HOST);
    assert_reaches(&sandbox, "192.0.2.1:8000", false, "by a name");
    let (_, _, many) = ask("many.example", "A");
    assert_eq!((many.truncated, many.records), (true, 0));
    let (_, _, many) = ask("many.example", "tcp A");
    assert_eq!((many.truncated, many.records), (false, 150));
    assert_eq!(ask("text.example", "tcp TXT").2.records, 1);
    // A lifetime of a year is reduced to a day.
    assert_eq!(ask("long.example", "A").2.addresses[0].1, 86_400);
    assert_eq!(ask("silent.example", "A").0, "SERVFAIL");
}

/// Killed at any moment, it leaves a record from which everything can be undone.
#[test]
fn nothing_is_left_of_one_that_was_killed() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id keeper | veth-pair > keeper.json").ok();
    let before = sandbox.snapshot();
    for step in 0..16 {
        let kill = format!("timeout -s KILL 0.{:04} egress-allow a.example 10.0.0.0/8", 5 + step * 5);
        sandbox
            .sh(&format!("netns-bridge -n --id web | veth-pair | {kill} > web.json; unwind web > /dev/null"))
            .ok();
        let undo =
            format!("timeout -s KILL 0.{:04} egress-allow --undo < web.json > undone.json", 5 + step * 5);
        sandbox
            .sh(&format!("netns-bridge -n --id web | veth-pair | egress-allow a.example > web.json; {undo}; unwind web > /dev/null"))
            .ok();
        sandbox.assert_as(&before);
    }
}

/// Newer kernels bind a chain to its link by name: under another one, the link is not restricted.
#[test]
fn a_link_with_another_name_is_told() {
    let sandbox = sandbox();
    start(&sandbox, "198.51.100.4");
    let link = sandbox.sh("jq -r '.network.cni.interfaces[1].name' web.json").ok();
    let link = link.trim();
    sandbox.sh(&format!("ip link set {link} down; ip link set {link} name other; ip link set other up")).ok();
    let told = sandbox.sh("egress-allow --check < web.json > /dev/null").exits(1).stderr;
    assert!(told.contains(&format!("link \"{link}\" of table netdev stave_egress_web")), "{told}");
    sandbox.sh(&format!("ip link set other down; ip link set other name {link}; ip link set {link} up")).ok();
    sandbox.sh("unwind web > /dev/null").ok();
}
