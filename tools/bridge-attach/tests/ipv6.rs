//! IPv6 networks, with real traffic.
#![allow(clippy::unwrap_used)]

mod common;

use common::{DUAL, HOST6, address, long, sandbox, stands, start, traffic};
use serde_json::Value;
use testkit::Sandbox;

#[test]
fn both_versions_of_ip() {
    let (sandbox, before) = sandbox();
    let a = address(&start(&sandbox, "a", &format!("{DUAL} | portmap -p 8080:80")));
    let b = address(&start(&sandbox, "b", DUAL));
    let is_of =
        |address: &str| address.parse::<std::net::Ipv6Addr>().unwrap().octets().starts_with(&[0xfd, 1, 0, 5]);
    assert!(is_of(&a) && is_of(&b) && a != b, "{a} {b}");
    // While the bridge's own address is tentative, it resolves no neighbour of forwarded packets.
    let unsure = "for name in front eth0; do ip -6 -o address show dev $name tentative; ip -n fresh -6 -o address show tentative; done 2>/dev/null";
    start(&sandbox, "fresh", "bridge-attach new --subnet 10.6.0.0/24 --subnet6 fd01:6::/64");
    assert_eq!(sandbox.sh(&unsure.replace("front eth0", "front new")).ok(), "");
    sandbox.sh("unwind fresh > /dev/null").ok();
    let (host, wire) = (long("fd01:5::1"), long(HOST6));
    let (from_a, from_host, from_wire) =
        (format!("b {}", long(&a)), format!("a {host}"), format!("outside {wire}"));
    let outside = format!("a {}", long("2001:db8::2"));
    let (to_a, to_b) = (format!("[{a}]:80"), format!("[{b}]:80"));
    let table = [
        ("a", &*to_b, &*from_a),
        ("host", &to_a, &from_host),
        ("outside", "[2001:db8::1]:8080", &outside),
        ("outside", "192.0.2.1:8080", "a "),
        ("host", "[2001:db8::1]:8080", "a "),
        ("b", "[2001:db8::1]:8080", &from_host),
        ("a", "[fd01:5::1]:8080", &from_host),
        ("a", "[2001:db8::2]:99", &from_wire),
        // Closed to the outside, as with IPv4. The host does not route for them either.
        ("outside", &to_a, ""),
        ("outside", &to_b, ""),
    ];
    stands(&sandbox, &table);
    let listed = sandbox.sh("container-ls --format '{ports}' -- a").ok();
    assert_eq!(listed, "0.0.0.0:8080->80/tcp [::]:8080->80/tcp\n");
    // The same container gets the same address again.
    sandbox.sh("unwind a > /dev/null").ok();
    assert_eq!(address(&start(&sandbox, "a", DUAL)), a);
    sandbox.sh("unwind a b > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

/// On a routed bridge others reach the containers' own addresses, and packets of the containers
/// keep them.
#[test]
fn routed_addresses() {
    let (sandbox, before) = sandbox();
    let routed = format!("{DUAL} --gateway-mode routed");
    let a = address(&start(&sandbox, "a", &format!("{routed} | portmap -p 80 -p '[::1]:8080:80'")));
    let b = address(&start(&sandbox, "b", &routed));
    sandbox.serve("a", "TCP6-LISTEN:81", "a");
    let (to_a, to_b, closed) = (format!("[{a}]:80"), format!("[{b}]:80"), format!("[{a}]:81"));
    let (outside, from_b) = (format!("a {}", long("2001:db8::2")), format!("a {}", long(&b)));
    let as_itself = format!("outside {}", long(&a));
    let table = [
        ("outside", &*to_a, &*outside),
        ("outside", &closed, ""),
        ("outside", &to_b, ""),
        ("b", &to_a, &from_b),
        ("a", "[2001:db8::2]:99", &as_itself),
        ("outside", "[2001:db8::1]:8080", ""),
    ];
    traffic(&sandbox, "at the start", &table);
    for to in [&a, &b] {
        sandbox.outside(&format!("busybox ping -6 -c 1 -W 2 {to} > /dev/null")).ok();
    }
    sandbox.sh("nft flush ruleset; net-repair --all > /dev/null").ok();
    traffic(&sandbox, "after a flush", &table);
    sandbox.sh("unwind a b > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

/// On another program's bridge, an unknown station may have an address.
#[test]
fn an_address_that_somebody_has_is_left() {
    let (sandbox, _) = sandbox();
    sandbox
        .sh("ip link add br0 type bridge; ip addr add 10.5.0.1/24 dev br0; ip addr add fd01:5::1/64 dev br0 nodad; ip link set br0 up
             ip netns add other; ip link add o0 type veth peer name eth0 netns other; ip link set o0 master br0 up
             ip -n other addr add fd01:5::7/64 dev eth0 nodad; ip -n other link set eth0 up
             until ip netns exec other busybox ping -6 -c 1 -W 1 fd01:5::1 > /dev/null; do sleep 0.05; done")
        .ok();
    let attach = |address: &str| {
        sandbox.sh(&format!("netns-add -n --id a | bridge-attach br0 --ipv6 --ip6 {address} > a.json"))
    };
    let taken = attach("fd01:5::7").exits(1).stderr;
    assert!(
        taken.starts_with("bridge-attach: address fd01:5::7 is taken by a station on bridge \"br0\"\n"),
        "{taken}"
    );
    sandbox.sh("unwind a > /dev/null").ok();
    attach("fd01:5::8").ok();
    sandbox.sh("unwind a > /dev/null").ok();
}

/// A neighbour that remembers an earlier hardware address sends there for up to 46 s.
#[test]
fn neighbours_learn_who_has_an_address_now() {
    let (sandbox, before) = sandbox();
    let attach = |id: &str, more: &str| {
        let document = sandbox.sh(&format!("netns-add -n --id {id} | {DUAL} {more} | tee {id}.json")).json();
        document["networks"][0]["cni"]["interfaces"][2]["mac"].as_str().unwrap().to_owned()
    };
    let knows = |who: &str, address: &str, mac: &str| {
        testkit::wait_for("the new hardware address", std::time::Duration::from_secs(4), || {
            sandbox.within(who, &format!("ip neigh show {address}")).stdout.contains(mac)
        });
    };
    attach("k", "");
    // The address stays, and the hardware address follows from that of IPv4; the other one is given.
    for (address, first, second) in [
        ("fd01:5::7", "--ip6 fd01:5::7", "--ip6 fd01:5::7"),
        (
            "10.5.0.77",
            "--ip 10.5.0.77 --mac-address 02:00:00:00:00:05",
            "--ip 10.5.0.77 --mac-address 02:00:00:00:00:06",
        ),
    ] {
        let old = attach("a", first);
        for who in ["k", "host"] {
            sandbox.within(who, &format!("busybox ping -c 1 -W 5 {address} > /dev/null")).ok();
            knows(who, address, &old);
        }
        sandbox.sh("unwind a > /dev/null").ok();
        let new = attach("a", second);
        assert_ne!(old, new);
        for who in ["k", "host"] {
            knows(who, address, &new);
        }
        sandbox.sh("bridge-attach --check < a.json > /dev/null; unwind a > /dev/null").ok();
    }
    sandbox.sh("unwind k > /dev/null").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

/// Switching forwarding on or off for all links writes to each link.
#[test]
fn links_that_forward_by_themselves_go_on() {
    let (sandbox, _) = sandbox();
    let conf = "/proc/sys/net/ipv6/conf";
    sandbox
        .sh(&format!(
            "ip link add alone type veth peer name other; echo 0 > {conf}/all/forwarding
             echo 1 > {conf}/alone/forwarding; echo 1 > {conf}/out0/accept_ra"
        ))
        .ok();
    let told = || {
        let of = "all/forwarding alone/forwarding other/forwarding out0/forwarding out0/accept_ra default/forwarding";
        sandbox.sh(&format!("cd {conf}; cat {of} | tr '\\n' ' '")).ok()
    };
    let before = told();
    assert_eq!(before, "0 1 0 0 1 0 ");
    start(&sandbox, "a", DUAL);
    start(&sandbox, "b", DUAL);
    assert_eq!(told(), "1 1 1 1 2 1 ");
    sandbox.sh("unwind a > /dev/null").ok();
    assert_eq!(told(), "1 1 1 1 2 1 ");
    sandbox.sh("unwind b > /dev/null").ok();
    assert_eq!(told(), before);
}

/// With IPv4, one more variable is written. What somebody else switches off in the meantime stays
/// off.
#[test]
fn what_others_set_for_forwarding_is_put_back_or_left() {
    let (sandbox, _) = sandbox();
    let told = |of: &str| sandbox.sh(&format!("cd /proc/sys/net; cat {of} | tr '\\n' ' '")).ok();
    let v4 = "ipv4/ip_forward ipv4/conf/alone/forwarding ipv4/conf/other/forwarding ipv4/conf/default/forwarding ipv4/conf/all/accept_redirects";
    let v6 = "ipv6/conf/all/forwarding ipv6/conf/alone/forwarding ipv6/conf/third/forwarding";
    sandbox
        .sh("ip link add alone type veth peer name other; ip link add third type veth peer name fourth
             cd /proc/sys/net; echo 0 > ipv4/ip_forward; echo 0 > ipv6/conf/all/forwarding
             echo 1 > ipv4/conf/alone/forwarding; echo 0 > ipv4/conf/all/accept_redirects
             echo 1 > ipv6/conf/alone/forwarding; echo 1 > ipv6/conf/third/forwarding")
        .ok();
    let before = told(v4);
    assert_eq!((&*before, &*told(v6)), ("0 1 0 0 0 ", "0 1 1 "));
    start(&sandbox, "a", DUAL);
    assert_eq!((&*told(v4), &*told(v6)), ("1 1 1 1 0 ", "1 1 1 "));
    sandbox.sh("echo 0 > /proc/sys/net/ipv6/conf/alone/forwarding; unwind a > /dev/null").ok();
    assert_eq!((&*told(v4), &*told(v6)), (&*before, "0 0 1 "));
    start(&sandbox, "a", DUAL);
    sandbox.sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding; unwind a > /dev/null").ok();
    assert_eq!((&*told(v4), &*told(v6)), (&*before, "0 0 0 "));
}

/// On another program's bridge, some containers have IPv6 and others do not.
#[test]
fn ipv6_goes_with_the_last_that_has_it() {
    let (sandbox, _) = sandbox();
    sandbox.sh("ip link add br0 type bridge; ip addr add 10.5.0.1/24 dev br0; ip link set br0 up").ok();
    let dual = "bridge-attach br0 --subnet6 fd01:5::/64";
    let second = "--run-dir /run/second";
    // Another network, so that the table stays.
    start(&sandbox, "other", "bridge-attach back --subnet 10.6.0.0/24");
    start(&sandbox, "plain", "bridge-attach br0");
    start(&sandbox, "a", dual);
    start(&sandbox, "b", dual);
    sandbox.sh(&format!("netns-add -n --id c {second} | {dual} {second} > c.json")).ok();
    let left = || {
        let address =
            sandbox.sh("ip -6 -o addr show dev br0 scope global | grep -c fd01:5::1/64 || true").ok();
        let table = sandbox.sh("nft list table inet stave | grep -c 'fd01:5::/64' || true").ok();
        (address.trim() != "0", table.trim() != "0")
    };
    for unwind in ["a", "b"] {
        assert_eq!(left(), (true, true), "before {unwind}");
        sandbox.sh(&format!("unwind {unwind} > /dev/null")).ok();
    }
    assert_eq!(left(), (true, true), "c has it");
    sandbox.sh(&format!("unwind {second} c > /dev/null")).ok();
    assert_eq!(left(), (false, false));
    sandbox.sh("bridge-attach --check < plain.json > /dev/null").ok();
    start(&sandbox, "a", dual);
    assert_eq!(left(), (true, true));
    sandbox.sh("unwind plain > /dev/null; bridge-attach --check < a.json > /dev/null; unwind a other > /dev/null").ok();
    sandbox.sh("pkill -P 1 socat || true; ! ip -6 -o addr show dev br0 scope global | grep fd01 && ! nft list tables | grep stave").ok();
}

#[test]
fn a_host_answers_for_containers_on_its_own_wire() {
    let (sandbox, before) = sandbox();
    let part = "bridge-attach front --subnet 10.5.0.0/24 --subnet6 2001:db8::5:0:0/112 --gateway-mode routed";
    let refused = sandbox.sh(&format!("netns-add -n --id a | {part} > /dev/null")).exits(1);
    let told = "bridge-attach: subnet 2001:db8::5:0:0/112 collides with 2001:db8::/64";
    assert_eq!(refused.stderr.lines().next(), Some(told));
    sandbox.sh("unwind a > /dev/null").ok();
    let a = start(&sandbox, "a", &format!("{part} --ndp-proxy out0 --ip6 2001:db8::5:0:7"));
    assert_eq!(address(&a), "2001:db8::5:0:7");
    // Stations on the outside link see it as a neighbour.
    sandbox
        .outside(
            "busybox ping -6 -c 1 -W 5 2001:db8::5:0:7 && ip -6 neighbour show 2001:db8::5:0:7 | grep lladdr",
        )
        .ok();
    sandbox.sh("bridge-attach --check < a.json > /dev/null").ok();
    sandbox.sh("ip -6 neighbour del proxy 2001:db8::5:0:7 dev out0; ip -6 neighbour add proxy 2001:db8::9 dev out0").ok();
    let missing = sandbox.sh("bridge-attach --check < a.json > /dev/null").exits(1);
    assert!(
        missing.stderr.contains("missing: the proxy for 2001:db8::5:0:7 on link \"out0\""),
        "{}",
        missing.stderr
    );
    sandbox
        .sh("bridge-attach --repair < a.json > /dev/null; bridge-attach --check < a.json > /dev/null")
        .ok();
    let nat =
        sandbox.sh("netns-add -n --id b | bridge-attach other --ipv6 --ndp-proxy out0 > /dev/null").exits(1);
    let told = "bridge-attach: only a routed network with IPv6 has addresses to answer for (--ndp-proxy)";
    assert_eq!(nat.stderr.lines().next(), Some(told));
    sandbox.sh("unwind a b > /dev/null").ok();
    // Another program's entry stays.
    assert_eq!(sandbox.sh("ip -6 neighbour show proxy dev out0").ok().trim(), "2001:db8::9 proxy");
    sandbox.sh("ip -6 neighbour del proxy 2001:db8::9 dev out0; pkill -P 1 socat || true").ok();
    assert_eq!(sandbox.sh("cat /proc/sys/net/ipv6/conf/out0/proxy_ndp").ok(), "0\n");
    sandbox.assert_as(&before);
}

#[test]
fn a_prefix_is_drawn_once() {
    let (sandbox, before) = sandbox();
    let random = "bridge-attach back --subnet 10.6.0.0/24 --ipv6";
    let a = start(&sandbox, "a", random);
    let subnet = a["networks"][0]["bridge"]["ipv6"]["subnet"].as_str().unwrap().to_owned();
    assert!(subnet.starts_with("fd") && subnet.ends_with("/64"), "{subnet}");
    // All containers of a bridge have it.
    let b = start(
        &sandbox,
        "b",
        "bridge-attach back --ip6 ADDRESS".replace("ADDRESS", &subnet.replace("/64", "7")).as_str(),
    );
    assert_eq!(b["networks"][0]["bridge"]["ipv6"]["subnet"], *subnet);
    assert_eq!(address(&b), subnet.replace("/64", "7"));
    start(&sandbox, "c", "bridge-attach plain --subnet 10.7.0.0/24");
    for (command, told) in [
        ("bridge-attach plain --ipv6", "bridge-attach: bridge \"plain\" has no IPv6"),
        ("bridge-attach plain --ip6 fd00::7", "bridge-attach: bridge \"plain\" has no IPv6"),
    ] {
        let refused = sandbox.sh(&format!("netns-add -n --id d | {command} > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(told));
        sandbox.sh("unwind d > /dev/null").ok();
    }
    for (subnet, special) in [
        ("--subnet6 fe80::/64", "fe80::/10"),
        ("--subnet6 ff05::/64", "ff00::/8"),
        ("--subnet6 ::/96", "::/127"),
        ("--subnet6 ::ffff:10.0.0.0/112", "::ffff:0.0.0.0/96"),
        ("--subnet 127.9.0.0/24", "127.0.0.0/8"),
        ("--subnet 224.5.0.0/24", "224.0.0.0/4"),
    ] {
        let attach = format!("netns-add -n --id d | bridge-attach special0 {subnet} > /dev/null");
        let refused = sandbox.sh(&attach).exits(1);
        let subnet: ipnet::IpNet = subnet.rsplit(' ').next().unwrap().parse().unwrap();
        let told = format!("bridge-attach: subnet {subnet} overlaps {special}, which is reserved");
        assert_eq!(refused.stderr.lines().next(), Some(&*told));
        sandbox.sh("unwind d > /dev/null").ok();
    }
    sandbox.sh("unwind a b c > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

/// The host's own services on ::1 keep working, and only for the host: not for a container, nor for a
/// neighbour that routes ::1 to it.
fn assert_loopback_is_the_hosts(sandbox: &Sandbox) {
    let server = "socat TCP6-LISTEN:99,bind=[::1],fork,reuseaddr SYSTEM:'read q; echo own' >/dev/null 2>&1 </dev/null &";
    sandbox.sh(&format!("{server} until ss -6Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    for (from, wire) in [("b", "back"), ("outside", "out0")] {
        let mac = sandbox.sh(&format!("cat /sys/class/net/{wire}/address")).ok();
        let to_the_host = format!(
            "ip -6 route del local ::1 dev lo table local; ip -6 route add ::1 dev eth0; \
             ip -6 neigh replace ::1 lladdr {} dev eth0",
            mac.trim()
        );
        sandbox.within(from, &to_the_host).ok();
    }
    traffic(
        sandbox,
        "on ::1",
        &[("host", "[::1]:99", "own"), ("b", "[::1]:99", ""), ("outside", "[::1]:99", "")],
    );
}

/// Whether a program of the host may listen there. If not, the address is in use.
fn may_listen(sandbox: &Sandbox, address: &str) -> bool {
    let told = sandbox
        .sh(&format!(
            "rm -f bind.log; socat -d -d -u {address} /dev/null < /dev/null > bind.log 2>&1 & pid=$!
             until grep -qs -e 'listening on' -e ' E ' bind.log; do sleep 0.01; done
             kill $pid 2> /dev/null; wait; cat bind.log"
        ))
        .ok();
    let (listens, is_in_use) = (told.contains("listening on"), told.contains("Address already in use"));
    assert_ne!(listens, is_in_use, "{address}: {told}");
    listens
}

#[test]
fn ports_have_a_version() {
    let (sandbox, before) = sandbox();
    start(&sandbox, "a", "bridge-attach back --subnet 10.6.0.0/24 --ipv6");
    start(&sandbox, "b", "bridge-attach back");
    start(&sandbox, "c", "bridge-attach plain --subnet 10.7.0.0/24 | portmap -p 8000:80");
    for (spec, told) in [
        ("[::]:81:80", "portmap: publish on ::: the container has no IPv6 address"),
        ("[fd00::9]:81:80", "portmap: publish on fd00::9: the container has no IPv6 address"),
    ] {
        let refused = sandbox.sh(&format!("portmap -p {spec} < c.json > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(told));
    }
    // Where br_netfilter is loaded, the kernel drops answers to ::1.
    sandbox.sh("test ! -e /proc/sys/net/bridge || sysctl -qw net.bridge.bridge-nf-call-ip6tables=0").ok();
    let ports =
        "portmap -p '[::]:8001:80' -p 0.0.0.0:8002:80 -p '[2001:db8::1]:8003:80' -p 80 -p '[::1]:8004:80'";
    let ports = sandbox
        .sh(&format!("{ports} < a.json | tee ports.json | jq -c '[.ports[] | [.hostIP, .containerPort]]'"))
        .ok();
    assert_eq!(ports, "[[\"::\",80],[null,80],[\"2001:db8::1\",80],[null,80],[\"::\",80],[\"::1\",80]]\n");
    traffic(
        &sandbox,
        "by version",
        &[
            ("outside", "[2001:db8::1]:8001", "a "),
            ("outside", "192.0.2.1:8001", ""),
            ("outside", "[2001:db8::1]:8002", ""),
            ("outside", "192.0.2.1:8002", "a "),
            ("outside", "[2001:db8::1]:8003", "a "),
            ("host", "[::1]:8001", "a "),
            ("host", "[::1]:8004", "a "),
            ("host", "[2001:db8::1]:8004", ""),
            ("outside", "[2001:db8::1]:8004", ""),
            ("b", "[2001:db8::1]:8004", ""),
        ],
    );
    assert_loopback_is_the_hosts(&sandbox);
    for (address, may) in [
        ("TCP6-LISTEN:8001,bind=[::1]", false),
        ("TCP6-LISTEN:8001,ipv6only", false),
        ("TCP4-LISTEN:8001", true),
        ("TCP6-LISTEN:8003,bind=[2001:db8::1]", false),
        ("TCP6-LISTEN:8003,bind=[::1]", true),
        ("TCP6-LISTEN:8004,bind=[::1],reuseaddr", false),
    ] {
        assert_eq!(may_listen(&sandbox, address), may, "{address}");
    }
    sandbox.sh("portmap --check < ports.json > /dev/null").ok();
    sandbox.sh("portmap -p '[::]:8001:80' < b.json > /dev/null").exits(1);
    sandbox.sh("portmap -p 8001:80 < c.json > c2.json && portmap --undo < c2.json > c.json").ok();
    sandbox.sh("unwind a b c > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

/// The only address of a container.
fn only(document: &Value) -> String {
    let ips = document["networks"][0]["cni"]["ips"].as_array().unwrap();
    assert_eq!(ips.len(), 1, "{ips:?}");
    ips[0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

/// A network without IPv4: nothing of IPv4 is switched on for it.
#[test]
fn a_network_of_ipv6_only() {
    let (sandbox, before) = sandbox();
    let alone = "bridge-attach front --ipv4=false --subnet6 fd01:5::/64";
    let a = start(&sandbox, "a", &format!("{alone} | portmap -p 8080:80 | name-serve"));
    let b = start(&sandbox, "b", &format!("{alone} --ip6 fd01:5::9 | name-serve"));
    let (a, b) = (only(&a), only(&b));
    assert_eq!(b, "fd01:5::9");
    let switched = "cat /proc/sys/net/ipv4/ip_forward; ip -4 -br addr show dev front; ip -n a -4 route";
    assert_eq!(sandbox.sh(switched).ok(), "0\n");
    let (from_b, from_host, outside) =
        (format!("a {}", long(&b)), format!("a {}", long("fd01:5::1")), format!("a {}", long("2001:db8::2")));
    let (to_a, to_b) = (format!("[{a}]:80"), format!("[{b}]:80"));
    let as_the_host = format!("outside {}", long(HOST6));
    let table = [
        ("b", &*to_a, &*from_b),
        ("host", &to_a, &from_host),
        ("outside", "[2001:db8::1]:8080", &outside),
        ("b", "[2001:db8::1]:8080", &from_host),
        ("a", "[2001:db8::2]:99", &as_the_host),
        ("outside", &to_a, ""),
        ("outside", &to_b, ""),
    ];
    stands(&sandbox, &table);
    let answer = sandbox.resolve("a", "b", "AAAA");
    assert_eq!(answer.addresses.first().map(|(address, _)| address.to_string()), Some(b.clone()));
    let ports = sandbox.sh("container-ls --format '{ports}' -- a").ok();
    assert_eq!(ports, "[::]:8080->80/tcp\n");
    start(&sandbox, "four", "bridge-attach back --subnet 10.6.0.0/24");
    for (attach, told) in [
        ("front", "bridge \"front\" has containers without IPv4"),
        ("front --subnet 10.5.0.0/24", "bridge \"front\" has containers without IPv4"),
        ("back --ipv4=false", "bridge \"back\" has IPv4"),
        ("new --ipv4=false --subnet 10.7.0.0/24", "--subnet is not for a network without IPv4"),
        ("front --ipv4=false --ip 10.5.0.9", "the network has no IPv4"),
        ("front --ipv4=false --route '10.9.0.0/16 via 10.5.0.9'", "the network has no IPv4"),
    ] {
        let refused =
            sandbox.sh(&format!("netns-add -n --id d | bridge-attach {attach} > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(&*format!("bridge-attach: {told}")), "{attach}");
        sandbox.sh("unwind d > /dev/null").ok();
    }
    let refused = sandbox.sh("portmap -p 127.0.0.1:81:80 < b.json > /dev/null").exits(1);
    let told = "portmap: publish on 127.0.0.1: the container has no IPv4 address";
    assert_eq!(refused.stderr.lines().next(), Some(told));
    // The network of IPv4 goes first. What it switched on goes with the last network of all.
    sandbox.sh("unwind four > /dev/null").ok();
    traffic(&sandbox, "after the other network has gone", &table[..3]);
    sandbox.sh("unwind a b > /dev/null; pkill -P 1 socat || true").ok();
    // A named network, and another program's bridge.
    let made = sandbox
        .sh("network-create --json alone --ipv4=false && netns-add -n --id a | bridge-attach alone")
        .ok();
    let subnets = "jq -c '[.subnets[].subnet]' $STAVE_ROOT/networks/alone.json";
    let subnets = sandbox.sh(subnets).ok();
    assert!(subnets.starts_with("[\"fd") && !subnets.contains(','), "{subnets} {made}");
    sandbox.sh("unwind a > /dev/null; network-rm alone > /dev/null").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn another_programs_bridge_of_ipv6_only() {
    let (sandbox, _) = sandbox();
    let other = "ip link add br0 type bridge; ip addr add fd01:5::1/64 dev br0 nodad; ip link set br0 up";
    sandbox.sh(other).ok();
    let a = only(&start(&sandbox, "a", "bridge-attach br0 --ipv4=false"));
    let b = only(&start(&sandbox, "b", "bridge-attach br0 --ipv4=false"));
    let (to_a, from_b) = (format!("[{a}]:80"), format!("a {}", long(&b)));
    let table = [("b", &*to_a, &*from_b), ("outside", &to_a, "")];
    traffic(&sandbox, "on another program's bridge", &table);
    sandbox.sh("unwind a > /dev/null; bridge-attach --check < b.json > /dev/null").ok();
    sandbox.sh("unwind b > /dev/null; pkill -P 1 socat || true; ! nft list tables | grep stave").ok();
}
