//! A container that reaches only what is listed, with real traffic and a real name server.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use testkit::{HOST, Has, NameServer, wait_for};

#[test]
fn what_is_listed_is_reached_and_nothing_else() {
    let sandbox = sandbox();
    let server = NameServer::start(&sandbox, &zone());
    let before = sandbox.snapshot();
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    start(&sandbox, "git.example:443 '*.debian.example' 198.51.100.4:80");
    sandbox.serve("web", "TCP4-LISTEN:80", "web");
    sandbox.serve("db", "TCP4-LISTEN:80", "db");
    sandbox.sh("socat TCP4-LISTEN:8000,fork,reuseaddr SYSTEM:'read q; echo host' >/dev/null 2>&1 </dev/null & until ss -Hlnt | grep -q ':8000 '; do sleep 0.01; done").ok();

    assert_reaches(&sandbox, "198.51.100.1:443", false, "before it has asked for the name");
    let git = sandbox.resolve("web", "Git.Example", "A");
    assert_eq!((git.rcode.as_str(), git.addresses), ("NOERROR", vec![([198, 51, 100, 1].into(), 60)]));
    assert_reaches(&sandbox, "198.51.100.1:443", true, "then");
    assert_reaches(&sandbox, "198.51.100.1:80", false, "on another port");
    assert_eq!(sandbox.resolve("web", "deb.debian.example", "edns A").records, 2);
    for (to, reaches) in [
        ("198.51.100.2:80", true),
        ("198.51.100.2:443", true),
        // DNS over TLS, whose port is not listed.
        ("198.51.100.2:853", false),
        ("198.51.100.4:80", true),
        ("198.51.100.4:443", false),
        ("198.51.100.3:443", false),
        // The neighbour, the host, and the host's published ports.
        ("172.17.0.2:80", false),
        ("172.17.0.1:8000", false),
        ("192.0.2.1:8000", false),
        ("192.0.2.2:53", false),
    ] {
        assert_reaches(&sandbox, to, reaches, "by the list");
    }
    for (name, kind, rcode) in [
        ("debian.example", "A", "NXDOMAIN"),
        ("other.example", "A", "NXDOMAIN"),
        ("other.example", "edns A", "NXDOMAIN"),
        ("other.example", "tcp A", "NXDOMAIN"),
        ("2.100.51.198.in-addr.arpa", "PTR", "NXDOMAIN"),
        ("git.example", "AAAA", "NOERROR"),
        ("git.example", "HTTPS", "NOERROR"),
        ("none.debian.example", "A", "NXDOMAIN"),
    ] {
        let answer = sandbox.resolve("web", name, kind);
        assert_eq!((answer.rcode.as_str(), answer.records), (rcode, 0), "{name} {kind}");
    }
    // No query for a name that is not listed reached the server.
    assert_eq!(server.asked(), ["A git.example", "A deb.debian.example", "A none.debian.example"]);
    // Incoming connections are answered, also from neighbours, whose packets are not forwarded ones.
    assert_eq!(sandbox.ask("outside", &format!("TCP4:{HOST}:8080")), "web 192.0.2.2");
    assert_eq!(sandbox.ask("db", "TCP4:172.17.0.3:80"), "web 172.17.0.2");
    assert_eq!(sandbox.ask("host", "TCP4:172.17.0.3:80"), "web 172.17.0.1");
    sandbox.sh("busybox ping -c 1 -W 1 172.17.0.3 > /dev/null").ok();
    for (to, status) in [("198.51.100.2", 0), ("198.51.100.1", 1), ("172.17.0.2", 1)] {
        sandbox.within("web", &format!("busybox ping -c 1 -W 1 {to} > /dev/null")).exits(status);
    }
    sandbox.sh("jq -e '.egress.allow == [{name: \"git.example\", port: 443, protocol: \"tcp\"}, {name: \"*.debian.example\"}, {address: \"198.51.100.4/32\", port: 80, protocol: \"tcp\"}]' web.json").ok();
    sandbox.sh("egress-allow --check < web.json > checked.json; cmp web.json checked.json").ok();
    sandbox.sh("unwind web db > /dev/null; pkill -f 'LISTEN:(8000|80),' || true").ok();
    assert_as(&sandbox, &before);
}

/// What is not listed is rejected, with any protocol, and logged once.
#[test]
fn what_is_rejected_is_logged() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    start(&sandbox, "git.example");
    sandbox.resolve("web", "other.example", "A");
    sandbox.resolve("web", "git.example", "A");
    assert_reaches(&sandbox, "198.51.100.3:443", false, "as an address");
    assert_reaches(&sandbox, "198.51.100.3:443", false, "again");
    for (port, text) in [(443, "QUIC"), (53, "DNS")] {
        assert_eq!(hears(&sandbox, text, &format!("UDP4:198.51.100.1:{port}")), "");
    }
    let line = |text: &str| {
        wait_for(text, Duration::from_secs(60), || {
            sandbox.sh(&format!("grep -c '{text}' /run/stave/egress/web.log")).stdout == "1\n"
        });
    };
    line(r#""verdict":"rejected","name":"other.example"}"#);
    line(r#""verdict":"allowed","name":"git.example","addresses":\["198.51.100.1"\]}"#);
    line(r#""verdict":"rejected","address":"198.51.100.3","port":443,"protocol":"tcp"}"#);
    line(r#""verdict":"rejected","address":"198.51.100.1","port":443,"protocol":"udp"}"#);
    line(r#""verdict":"rejected","address":"198.51.100.1","port":53,"protocol":"udp"}"#);
    let words = sandbox.sh("egress-log --arguments web").ok();
    assert_eq!(words, "198.51.100.3:443\ngit.example:443/udp\ngit.example:53/udp\nother.example\n");
}

/// A list applies to all networks of a container.
#[test]
fn every_network_of_a_container_is_restricted() {
    let sandbox = sandbox();
    sandbox
        .sh("netns-add -n --id db | bridge-attach back0 --subnet 10.5.0.0/24 > db.json
             netns-add -n --id web | bridge-attach | bridge-attach back0 | egress-allow 198.51.100.4 10.5.0.2:80 > web.json")
        .ok();
    for port in [80, 81] {
        sandbox.serve("db", &format!("TCP4-LISTEN:{port}"), "db");
    }
    for (to, reaches) in
        [("198.51.100.4:80", true), ("198.51.100.1:80", false), ("10.5.0.2:80", true), ("10.5.0.2:81", false)]
    {
        assert_reaches(&sandbox, to, reaches, "with two networks");
    }
    sandbox.sh("egress-allow --check < web.json > /dev/null; unwind web db > /dev/null; ! nft list tables | grep netdev").ok();
}

#[test]
fn ipv6_is_restricted_as_well() {
    let sandbox = sandbox();
    let address = |text: &str| Has::Addresses(vec![text.parse().unwrap()], 60);
    let zone = [
        ("six.example", address("2001:db8::2")),
        ("local.example", address("fe80::1")),
        ("mapped.example", address("::ffff:127.0.0.1")),
        ("near.example", address("fd00::7")),
        ("metadata.example", address("fd00:ec2::254")),
    ];
    NameServer::start(&sandbox, &zone);
    sandbox
        .sh("netns-bridge -n --id web | veth-pair | jq '.networks[0].cni.ips += [{address: \"fd00::2/64\", interface: 2}]' |
                 egress-allow '*.example:80' '[fd00::1]:80' > web.json
             sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.stave0.disable_ipv6=0
             ip addr add fd00::1/64 dev stave0 nodad
             ip netns exec web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0
             ip -n web addr add fd00::2/64 dev eth0 nodad; ip -n web route add default via fd00::1")
        .ok();
    for port in [80, 81] {
        sandbox
            .sh(&format!(
                "socat TCP6-LISTEN:{port},ipv6only,fork,reuseaddr SYSTEM:'read q; echo six' >/dev/null 2>&1 </dev/null &
                 until ss -6Hlnt | grep -q ':{port} '; do sleep 0.01; done"
            ))
            .ok();
    }
    let asks = |to: &str| !hears(&sandbox, "?", &format!("TCP6:{to}")).is_empty();
    assert!(!asks("[2001:db8::2]:80"));
    let six = sandbox.resolve("web", "six.example", "AAAA");
    assert_eq!(six.addresses, [("2001:db8::2".parse().unwrap(), 60)]);
    sandbox
        .sh("nft list set netdev stave_egress_web hostports6 | grep -q '2001:db8::2 . tcp . 80 timeout 2m'")
        .ok();
    for (to, reaches) in [("[fd00::1]:80", true), ("[fd00::1]:81", false), ("[2001:db8::4]:80", false)] {
        assert_eq!(asks(to), reaches, "{to}");
    }
    for name in ["local.example", "mapped.example", "near.example", "metadata.example"] {
        let answer = sandbox.resolve("web", name, "AAAA");
        assert_eq!((answer.rcode.as_str(), answer.records), ("NOERROR", 0), "{name}");
    }
    // An address that is not the container's.
    sandbox.sh("ip -n web addr add fd00::77/64 dev eth0 nodad; ip -n web addr del fd00::2/64 dev eth0").ok();
    assert!(sandbox.ask("web", "TCP6:[fd00::1]:80").is_empty());
}

/// With --log everything passes, and the list made from it is enough for the same traffic.
#[test]
fn a_list_is_made_of_what_a_container_does() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    start(&sandbox, "--log");
    let does = || {
        sandbox.resolve("web", "git.example", "A");
        sandbox.resolve("web", "deb.debian.example", "A");
        for to in ["198.51.100.1:443", "198.51.100.2:80", "198.51.100.4:853"] {
            assert_reaches(&sandbox, to, true, "as it likes");
        }
    };
    does();
    let list = "198.51.100.4:853\ndeb.debian.example:80\ngit.example:443\n";
    wait_for("the list", Duration::from_secs(60), || sandbox.sh("egress-log --arguments web").stdout == list);
    sandbox.sh("egress-log --arguments web > list; unwind web > /dev/null").ok();
    start(&sandbox, "$(cat list)");
    does();
    assert_reaches(&sandbox, "198.51.100.1:80", false, "then");
}

#[test]
fn connections_go_on_when_their_name_counts_no_more() {
    let sandbox = sandbox();
    NameServer::start(&sandbox, &zone());
    start(&sandbox, "git.example");
    sandbox.resolve("web", "git.example", "A");
    sandbox.outside("socat TCP4-LISTEN:7,fork,reuseaddr EXEC:cat >/dev/null 2>&1 </dev/null & until ss -Hlnt | grep -q ':7 '; do sleep 0.01; done").ok();
    sandbox
        .sh("mkfifo in; (ip netns exec web socat -t5 - TCP4:198.51.100.1:7 < in > out 2>&1) & exec 3> in; echo one >&3
             until grep -q one out; do sleep 0.01; done
             kill -9 $(for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = egress-allow ] && echo ${p#/proc/}; done)
             until nft flush set netdev stave_egress_web hosts4; do sleep 0.01; done
             echo two >&3; until grep -q two out; do sleep 0.01; done; exec 3>&-; wait")
        .ok();
    assert_reaches(&sandbox, "198.51.100.1:443", false, "anew");
}

/// The commands of --explain make the same table.
#[test]
fn the_explanation_makes_the_same_table() {
    let sandbox = sandbox();
    let list = "git.example:443 10.0.0.0/8 10.1.0.0/16 10.1.0.0/16:443 10.1.2.3:443 0.0.0.0/0:123/udp 198.51.100.4:80 \
                '[2001:db8::]/32' '[2001:db8::]/32:53/udp' '[::]/0:7' '[fd00::9]'";
    // With an address of each IP version.
    let make = "netns-bridge -n --id web | veth-pair | jq '.networks[0].cni.ips += [{address: \"fd00::2/64\", interface: 2}]' > pair.json";
    sandbox.sh(make).ok();
    let explained = sandbox.sh(&format!("egress-allow --explain {list} < pair.json")).ok();
    sandbox.sh(&format!("egress-allow {list} < pair.json > web.json")).ok();
    let listed = || sandbox.sh("nft -s list table netdev stave_egress_web").ok();
    let ours = listed();
    sandbox.sh(&format!("unwind web > /dev/null; {make}")).ok();
    let lines: String =
        explained.lines().filter(|line| line.starts_with("nft ")).flat_map(|line| [line, "\n"]).collect();
    sandbox.sh(&lines).ok();
    let settled = |text: String| {
        let kept: Vec<_> = text
            .lines()
            .map(str::to_owned)
            .filter(|line| !line.contains("flags owner") && !["", "flags"].contains(&line.trim()))
            .collect();
        kept.join("\n").replace(" # progname egress-allow", "")
    };
    assert_eq!(settled(ours), settled(listed()));
}

#[test]
fn what_cannot_be_is_said() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    sandbox
        .sh("netns-bridge -n --id half > bridge.json; netns-bridge -n --id web | veth-pair > pair.json")
        .ok();
    for (command, line) in [
        (
            "egress-allow a.example < bridge.json",
            "egress-allow: no `networks`: run bridge-attach, macvlan-attach, ipvlan-attach or veth-pair first\n",
        ),
        (
            "echo '{}' | egress-allow a.example",
            "egress-allow: no `network`: run netns-add or netns-bridge first\n",
        ),
    ] {
        let said = sandbox.sh(&format!("{command} > out.json")).exits(1);
        assert_eq!(
            said.stderr.lines().next().map(|first| format!("{first}\n")).as_deref(),
            Some(line),
            "{command}"
        );
    }
    sandbox
        .sh("egress-allow a.example < pair.json > web.json; egress-allow b.example < web.json > again.json")
        .exits(1);
    // Another network would bypass the list.
    let later = sandbox.sh("bridge-attach other0 < web.json > out.json").exits(1);
    assert_eq!(
        later.stderr,
        "bridge-attach: the container is restricted to a list, which applies to the networks that it has\n\
         hint: put egress-allow after all network tools\n"
    );
    let usage = sandbox.sh("egress-allow 10.0.0.1/8 < pair.json > out.json").exits(2);
    assert!(usage.stderr.contains("10.0.0.1 is an address in 10.0.0.0/8"), "{}", usage.stderr);
    sandbox.sh("jq -e '.error.tool == \"egress-allow\" and .error.step == \"arguments\"' out.json").ok();
    // The resolver's address is already in use: nothing is left of the attempt.
    sandbox.sh("egress-allow --undo < web.json > pair.json").ok();
    sandbox.sh("ip netns exec web socat UDP4-LISTEN:53,bind=127.0.0.11 /dev/null > /dev/null 2>&1 < /dev/null & until ip netns exec web ss -Hlnu | grep -q 127.0.0.11; do sleep 0.01; done").ok();
    let taken = sandbox.sh("egress-allow a.example < pair.json > out.json").exits(1);
    assert!(
        taken
            .stderr
            .starts_with("egress-allow: listen on 127.0.0.11:53 in /run/netns/web: Address already in use\n"),
        "{}",
        taken.stderr
    );
    sandbox.sh("! nft list tables | grep netdev; ! test -e /run/stave/egress").ok();
    sandbox.sh("kill $(pgrep -f '[b]ind=127.0.0.11'); unwind web half > /dev/null").ok();
    sandbox.assert_as(&before);
}
