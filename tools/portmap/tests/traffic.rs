//! Published ports with real traffic: who reaches whom, and who must not. The container is only a namespace
//! with a server. Needs root, socat, nft and the tools netns-bridge, veth-pair and portmap.
#![allow(clippy::unwrap_used)]

use testkit::{HOST, Outcome, Sandbox};

/// A host without forwarding, like a new machine.
fn sandbox() -> Sandbox {
    testkit::require_root();
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward; mkdir -p /run/stave").ok();
    sandbox
}

fn start(sandbox: &Sandbox, id: &str, ports: &str) {
    let portmap = if ports.is_empty() { "cat".to_owned() } else { format!("portmap {ports}") };
    sandbox.sh(&format!("netns-bridge -n --id {id} | veth-pair | {portmap} > {id}.json")).ok();
}

fn stop(sandbox: &Sandbox, id: &str) {
    sandbox.sh(&format!("portmap --undo < {id}.json | veth-pair --undo | netns-bridge --undo")).ok();
}

fn serve(sandbox: &Sandbox, id: &str, listen: &str, text: &str) {
    sandbox.serve(id, listen, text);
}

fn ask(sandbox: &Sandbox, from: &str, to: &str) -> String {
    sandbox.ask(from, to)
}

fn within(sandbox: &Sandbox, from: &str, script: &str) -> Outcome {
    sandbox.within(from, script)
}

/// A server on the host's 127.0.0.1:7777 that answers `private`.
fn serve_private(sandbox: &Sandbox) {
    sandbox
        .sh("socat TCP4-LISTEN:7777,bind=127.0.0.1,fork,reuseaddr SYSTEM:'read q; echo private' >/dev/null 2>&1 </dev/null &
             until ss -Hlnt | grep -q ':7777 '; do sleep 0.01; done")
        .ok();
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", "-p 10080:80");
    start(&sandbox, "other", "");
    serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
    for (from, to, answer) in [
        ("host", "127.0.0.1", "web 172.17.0.1"),
        ("host", "127.9.9.9", "web 172.17.0.1"),
        ("host", HOST, "web 192.0.2.1"),
        ("host", "172.17.0.1", "web 172.17.0.1"),
        ("outside", HOST, "web 192.0.2.2"),
        ("web", HOST, "web 172.17.0.1"),
        ("web", "172.17.0.1", "web 172.17.0.1"),
        ("other", HOST, "web 172.17.0.1"),
        ("other", "172.17.0.1", "web 172.17.0.1"),
    ] {
        assert_eq!(ask(&sandbox, from, &format!("TCP4:{to}:10080")), answer, "{from} asks {to}");
    }
    assert_eq!(ask(&sandbox, "other", "TCP4:172.17.0.2:80"), "web 172.17.0.3", "directly, as it is");
    // A container's packets to the outside have the host's address.
    let server = "socat TCP4-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    assert_eq!(ask(&sandbox, "web", "TCP4:192.0.2.2:99"), "outside 192.0.2.1");
    stop(&sandbox, "web");
    assert_eq!(ask(&sandbox, "other", "TCP4:192.0.2.2:99"), "outside 192.0.2.1", "the other one goes on");
    assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:10080")), "");
    sandbox.sh("veth-pair --undo < other.json | netns-bridge --undo").ok();
    sandbox.sh("pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_port_on_one_address_is_reached_by_that_one_alone() {
    let sandbox = sandbox();
    start(&sandbox, "web", &format!("-p 127.0.0.1:10080:80 -p {HOST}:10081:80"));
    start(&sandbox, "other", "");
    serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
    for (from, to, answer) in [
        ("host", "127.0.0.1:10080", "web 172.17.0.1"),
        ("host", "192.0.2.1:10080", ""),
        ("outside", "192.0.2.1:10080", ""),
        ("other", "172.17.0.1:10080", ""),
        ("host", "127.0.0.1:10081", ""),
        ("host", "192.0.2.1:10081", "web 192.0.2.1"),
        ("outside", "192.0.2.1:10081", "web 192.0.2.2"),
        ("other", "192.0.2.1:10081", "web 172.17.0.1"),
    ] {
        assert_eq!(ask(&sandbox, from, &format!("TCP4:{to}")), answer, "{from} asks {to}");
    }
}

/// CVE-2020-8558, and the same through a port published on 127.0.0.1: a neighbour, on the bridge or outside,
/// sends a packet for 127.0.0.1 to our hardware address.
#[test]
fn the_hosts_loopback_is_closed_to_neighbours() {
    let sandbox = sandbox();
    start(&sandbox, "web", "-p 127.0.0.1:10080:80");
    start(&sandbox, "other", "");
    serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
    serve_private(&sandbox);
    assert_eq!(ask(&sandbox, "host", "TCP4:127.0.0.1:7777"), "private");
    assert_eq!(ask(&sandbox, "host", "TCP4:127.0.0.1:10080"), "web 172.17.0.1");
    // The neighbour routes 127.0.0.1 through the gateway, from its own address.
    let neighbour = |own: &str, gateway: &str, link: &str| {
        format!(
            "ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; \
             ip route add 127.0.0.1/32 via {gateway} dev {link} src {own}; ip route flush cache"
        )
    };
    sandbox
        .sh(&format!("ip netns exec other sh -ec '{}'", neighbour("172.17.0.3", "172.17.0.1", "eth0")))
        .ok();
    sandbox.outside(&neighbour("192.0.2.2", HOST, "eth0")).ok();
    for from in ["other", "outside"] {
        for port in [7777, 10080] {
            assert_eq!(ask(&sandbox, from, &format!("TCP4:127.0.0.1:{port}")), "", "{from} asks port {port}");
        }
    }
    // Without the rule the packet from outside arrives, so the test is valid. On the bridge there is a second guard.
    sandbox.sh("nft flush chain inet stave martians").ok();
    assert_eq!(ask(&sandbox, "outside", "TCP4:127.0.0.1:10080"), "web 192.0.2.2");
    assert_eq!(ask(&sandbox, "other", "TCP4:127.0.0.1:7777"), "");
    sandbox.sh("for port in $(ls /sys/class/net/stave0/brif); do tc filter del dev $port ingress; done").ok();
    assert_eq!(ask(&sandbox, "other", "TCP4:127.0.0.1:7777"), "private");
    let check = sandbox.sh("veth-pair --check < other.json > /dev/null");
    assert!(check.stderr.contains("that guards 127.0.0.0/8"), "{}", check.stderr);
    sandbox
        .sh("netns-bridge --repair < web.json > /dev/null; veth-pair --repair < other.json > /dev/null")
        .ok();
    for from in ["other", "outside"] {
        assert_eq!(ask(&sandbox, from, "TCP4:127.0.0.1:7777"), "", "{from}");
    }
    assert_eq!(ask(&sandbox, "outside", "TCP4:127.0.0.1:10080"), "");
}

/// `nft flush ruleset`, which some firewalls run when they restart, removes the table of all containers.
#[test]
fn a_flush_opens_nothing_and_the_next_tool_puts_all_back() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", "-p 10080:80");
    start(&sandbox, "db", "-p 10053:80");
    for id in ["web", "db"] {
        serve(&sandbox, id, "TCP4-LISTEN:80", id);
    }
    serve_private(&sandbox);
    let rules = "nft list ruleset | sed 's/^[[:space:]]*//' | tr -d ',' | sort";
    let whole = sandbox.sh(rules).ok();
    sandbox
        .sh("ip netns exec db sh -ec 'ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip route add 127.0.0.1/32 via 172.17.0.1 dev eth0 src 172.17.0.3'")
        .ok();
    sandbox.sh("nft flush ruleset").ok();
    assert_eq!(ask(&sandbox, "db", "TCP4:127.0.0.1:7777"), "");
    // A dry run changes nothing.
    sandbox.sh("netns-bridge -n --id other --dry-run > /dev/null 2>&1").ok();
    assert_eq!(sandbox.sh("nft list ruleset").ok(), "");
    let next = sandbox.sh("netns-bridge -n --id other > other.json");
    assert_eq!(next.stderr, "netns-bridge: table inet stave was gone: it is made again for all containers\n");
    for (id, port) in [("web", 10080), ("db", 10053)] {
        assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:{port}")), format!("{id} 192.0.2.2"));
    }
    sandbox.sh("netns-bridge --undo < other.json").ok();
    assert_eq!(sandbox.sh(rules).ok(), whole);
    // The other tools do the same, and so does `--repair`.
    for tool in ["veth-pair", "portmap"] {
        sandbox.sh(&format!("nft flush ruleset; {tool} --repair < web.json > /dev/null")).ok();
        assert_eq!(sandbox.sh(rules).ok(), whole, "{tool}");
    }
    stop(&sandbox, "web");
    stop(&sandbox, "db");
    sandbox.sh("pkill -P 1 socat || true").ok();
    sandbox.assert_as(&before);
}

/// A neighbour on the host's network that routes packets to the containers' subnet.
#[test]
fn a_stranger_reaches_published_ports_and_nothing_else() {
    let sandbox = sandbox();
    start(&sandbox, "web", "-p 127.0.0.1:10080:80 -p 10081:81");
    start(&sandbox, "other", "");
    for (id, port) in [("web", 80), ("web", 81), ("other", 80)] {
        serve(&sandbox, id, &format!("TCP4-LISTEN:{port}"), id);
    }
    sandbox.outside(&format!("ip route add 172.17.0.0/16 via {HOST}")).ok();
    let ping = |to: &str| sandbox.outside(&format!("busybox ping -c 1 -W 1 {to} > /dev/null")).status == 0;
    for to in ["172.17.0.2:80", "172.17.0.2:81", "172.17.0.3:80"] {
        assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{to}")), "", "{to}");
    }
    assert!(!ping("172.17.0.2"));
    assert!(ping(HOST));
    assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:10081")), "web 192.0.2.2");
    for (from, to) in [("host", "172.17.0.2:80"), ("other", "172.17.0.2:80")] {
        assert!(ask(&sandbox, from, &format!("TCP4:{to}")).starts_with("web"), "{from} asks {to}");
    }
    // Without the rule the packet arrives, so the test is valid.
    sandbox.sh("nft flush chain inet stave forward").ok();
    assert_eq!(ask(&sandbox, "outside", "TCP4:172.17.0.3:80"), "other 192.0.2.2");
    assert!(ping("172.17.0.2"));
}

/// A host with another network behind it, which forwards only for us, or was already forwarding.
#[test]
fn a_host_that_forwarded_nothing_forwards_for_nobody_else() {
    for (before, answer) in [("0", ""), ("1", "inner 192.0.2.2")] {
        let sandbox = sandbox();
        sandbox
            .sh(&format!(
                "echo {before} > /proc/sys/net/ipv4/ip_forward
                 ip netns add inner; ip link add in0 type veth peer name eth0 netns inner
                 ip addr add 10.50.0.1/24 dev in0; ip link set in0 up
                 ip -n inner addr add 10.50.0.2/24 dev eth0; ip -n inner link set eth0 up
                 ip -n inner route add default via 10.50.0.1"
            ))
            .ok();
        serve(&sandbox, "inner", "TCP4-LISTEN:80", "inner");
        sandbox.outside(&format!("ip route add 10.50.0.0/24 via {HOST}")).ok();
        let inner = || ask(&sandbox, "outside", "TCP4:10.50.0.2:80");
        assert_eq!(inner(), answer, "before");
        start(&sandbox, "web", "-p 10080:80");
        serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
        assert_eq!(inner(), answer, "with one container");
        // A second container, and one of another run directory, which finds forwarding on.
        start(&sandbox, "other", "");
        sandbox.sh("netns-bridge -n --id third --run-dir /run/second > third.json").ok();
        assert_eq!(inner(), answer, "with three");
        // Containers themselves reach every destination.
        assert_eq!(ask(&sandbox, "web", "TCP4:10.50.0.2:80"), "inner 10.50.0.1");
        assert_eq!(ask(&sandbox, "inner", &format!("TCP4:{HOST}:10080")), "web 10.50.0.2");
        stop(&sandbox, "web");
        assert_eq!(inner(), answer, "after the first is gone");
        sandbox.sh("netns-bridge --undo --run-dir /run/second < third.json > /dev/null").ok();
        sandbox.sh("veth-pair --undo < other.json | netns-bridge --undo > /dev/null").ok();
        assert_eq!(inner(), answer, "after the last is gone");
    }
}

#[test]
fn udp_at_once_even_to_a_client_that_never_stops() {
    let sandbox = sandbox();
    // The client keeps its source port, and so its connection in the kernel's tracking.
    let client = format!("UDP4:{HOST}:10053,sourceport=4444");
    start(&sandbox, "first", "");
    assert_eq!(ask(&sandbox, "outside", &client), "", "nobody listens yet");
    start(&sandbox, "web", "-p 10053:53/udp");
    serve(&sandbox, "web", "UDP4-LISTEN:53", "web");
    assert_eq!(ask(&sandbox, "outside", &client), "web 192.0.2.2");
    stop(&sandbox, "web");
    start(&sandbox, "new", "-p 10053:5353/udp");
    serve(&sandbox, "new", "UDP4-LISTEN:5353", "new");
    assert_eq!(ask(&sandbox, "outside", &client), "new 192.0.2.2");
    for (from, to) in [("host", "127.0.0.1"), ("new", HOST), ("first", "172.17.0.1")] {
        assert_eq!(ask(&sandbox, from, &format!("UDP4:{to}:10053")), "new 172.17.0.1", "{from} asks {to}");
    }
}

#[test]
fn ports_that_are_not_told_are_chosen() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    sandbox.sh("echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range").ok();
    // Two of the four ports are taken: by a process, and by a given port.
    sandbox.sh("socat TCP4-LISTEN:40001,fork /dev/null > /dev/null 2>&1 < /dev/null & until ss -Hlnt | grep -q :40001; do sleep 0.01; done").ok();
    start(&sandbox, "web", "-p 127.0.0.1::80 -p 81 -p 40002:82 -p 40000-40009:83");
    let ports = sandbox.sh("cat web.json").json()["ports"].clone();
    let port = |at: usize| ports[at]["hostPort"].as_u64().unwrap();
    let containers: Vec<_> = (0..4).map(|at| ports[at]["containerPort"].as_u64().unwrap()).collect();
    assert_eq!(containers, [80, 81, 82, 83], "in the order in which they are asked for");
    let mut chosen = [port(0), port(1)];
    chosen.sort_unstable();
    assert_eq!(chosen, [40_000, 40_003]);
    assert_eq!((ports[0]["hostIP"].as_str(), port(2), port(3)), (Some("127.0.0.1"), 40_002, 40_004));
    serve(&sandbox, "web", "TCP4-LISTEN:81", "web");
    assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:{}", port(1))), "web 192.0.2.2");
    // For the next container, none is left.
    let none = "netns-bridge -n --id late | veth-pair | portmap -p 80 > late.json";
    let errors = sandbox.sh(none).exits(1).stderr;
    assert_eq!(
        errors,
        "portmap: all 4 host ports to choose from are taken\nhint: choose another host port\n"
    );
    sandbox.sh("veth-pair --undo < late.json | netns-bridge --undo").ok();
    stop(&sandbox, "web");
    sandbox.sh("pkill socat || true; echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range").ok();
    sandbox.assert_as(&before);
}

/// A range of any length is one interval in the kernel, and one element in the document.
#[test]
fn a_range_of_ten_thousand_ports() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "other", "");
    start(&sandbox, "web", "-p 20000-29999:20000-29999");
    let ports = sandbox.sh("jq -c .ports web.json").ok();
    assert_eq!(
        ports,
        "[{\"hostPort\":20000,\"containerPort\":20000,\"protocol\":\"tcp\",\"range\":10000}]\n"
    );
    for port in [20_000, 25_432, 29_999] {
        serve(&sandbox, "web", &format!("TCP4-LISTEN:{port}"), &port.to_string());
        assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:{port}")), format!("{port} 192.0.2.2"));
    }
    assert_eq!(ask(&sandbox, "host", "TCP4:127.0.0.1:25432"), "25432 172.17.0.1");
    assert_eq!(ask(&sandbox, "other", &format!("TCP4:{HOST}:29999")), "29999 172.17.0.1");
    let listens = "socat TCP4-LISTEN:30500 /dev/null > /dev/null 2>&1 < /dev/null & until ss -Hlnt | grep -q ':30500 '; do sleep 0.01; done";
    sandbox.sh(listens).ok();
    for (spec, by) in [
        ("25000:80", "25000/tcp is taken by container \"web\""),
        ("127.0.0.1:25000:80", "127.0.0.1:25000/tcp is taken by container \"web\""),
        ("29000-30000:29000-30000", "29000/tcp is taken by container \"web\""),
        ("30000-30999:30000-30999", "30500/tcp is taken by a process of the host"),
    ] {
        let refused = sandbox.sh(&format!("portmap -p {spec} < other.json > /dev/null")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(&*format!("portmap: host port {by}")), "{spec}");
    }
    sandbox
        .sh("nft flush ruleset; net-repair --all > /dev/null; portmap --check < web.json > /dev/null")
        .ok();
    assert_eq!(ask(&sandbox, "outside", &format!("TCP4:{HOST}:25432")), "25432 192.0.2.2");
    sandbox.sh("pkill -P 1 socat || true").ok();
    stop(&sandbox, "web");
    sandbox.sh("veth-pair --undo < other.json | netns-bridge --undo > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_second_bridge_is_another_network() {
    let sandbox = sandbox();
    start(&sandbox, "web", "-p 10080:80");
    sandbox.sh("netns-bridge -n --id far --bridge br7 --subnet 10.7.0.0/24 | veth-pair > far.json").ok();
    serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
    assert_eq!(ask(&sandbox, "far", &format!("TCP4:{HOST}:10080")), "web 172.17.0.1");
    assert_eq!(ask(&sandbox, "far", "TCP4:10.7.0.1:10080"), "web 172.17.0.1");
    stop(&sandbox, "web");
    assert!(
        sandbox.sh("nft list ruleset").ok().contains("10.7.0.0/24"),
        "the other bridge has its rules still"
    );
    assert_eq!(sandbox.sh("cat /proc/sys/net/ipv4/ip_forward").ok().trim(), "1");
    sandbox.sh("veth-pair --undo < far.json | netns-bridge --undo").ok();
    assert_eq!(sandbox.sh("cat /proc/sys/net/ipv4/ip_forward").ok().trim(), "0");
    assert_eq!(sandbox.sh("nft list ruleset").ok(), "");
}

/// The address of the container's interface, without its prefix length.
fn address(sandbox: &Sandbox, id: &str) -> String {
    sandbox.sh(&format!("jq -r '.network.cni.ips[0].address' {id}.json | cut -d/ -f1 | tr -d '\n'")).ok()
}

/// If an address or a route of the host is in the way, another subnet is chosen. A requested subnet is
/// refused.
#[test]
fn a_subnet_that_nobody_uses_is_chosen() {
    let sandbox = sandbox();
    let subnet = |id: &str, arguments: &str| {
        let pipe =
            format!("netns-bridge -n --id {id} {arguments} | tee {id}.json | jq -r .network.bridge.subnet");
        sandbox.sh(&pipe).ok().trim().to_owned()
    };
    sandbox
        .sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
             ip link add vpn0 type veth peer name vpn1; ip link set vpn0 up; ip link set vpn1 up
             ip route add 172.18.0.0/15 dev vpn0; ip route add 172.20.5.0/24 via 192.0.2.2
             ip route add 0.0.0.0/1 via 192.0.2.2; ip route add 128.0.0.0/1 via 192.0.2.2")
        .ok();
    assert_eq!(subnet("a", ""), "172.21.0.0/16");
    assert_eq!(subnet("b", ""), "172.21.0.0/16", "that of the bridge, which stands");
    assert_eq!(subnet("c", "--bridge br2"), "172.22.0.0/16");
    assert_eq!(subnet("d", "--bridge br3 --subnet 10.9.0.0/24"), "10.9.0.0/24");
    let refused = sandbox.sh("netns-bridge -n --id e --bridge br4 --subnet 172.20.0.0/16 > /dev/null");
    assert!(
        refused
            .stderr
            .starts_with("netns-bridge: subnet 172.20.0.0/16 collides with the route to 172.20.5.0/24"),
        "{}",
        refused.stderr
    );
    // One that leads nowhere would win over the bridge's own.
    sandbox.sh("ip route add blackhole 172.23.0.0/16; ip route add unreachable 10.7.0.0/24").ok();
    assert_eq!(subnet("g", "--bridge br6"), "172.24.0.0/16");
    let refused = sandbox.sh("netns-bridge -n --id h --bridge br7 --subnet 10.7.0.0/24 > /dev/null");
    let told = "netns-bridge: subnet 10.7.0.0/24 collides with the route to 10.7.0.0/24, which leads nowhere";
    assert!(refused.stderr.starts_with(told), "{}", refused.stderr);
    // A wider route does not prevent a subnet within it.
    sandbox.sh("ip route add 10.0.0.0/8 via 192.0.2.2").ok();
    assert_eq!(subnet("f", "--bridge br5 --subnet 10.8.0.0/24"), "10.8.0.0/24");
}

/// On a bridge that Stave did not make, an address in use is not leased, whatever the leases say.
#[test]
fn an_address_that_somebody_has_on_a_bridge_of_others_is_left() {
    let sandbox = sandbox();
    sandbox
        .sh("ip link add br0 type bridge; ip addr add 172.30.0.1/24 dev br0; ip link set br0 up
             ip netns add other; ip link add o0 type veth peer name eth0 netns other; ip link set o0 master br0 up
             ip -n other addr add 172.30.0.2/24 dev eth0; ip -n other link set eth0 up")
        .ok();
    // Forwarding is already on. If it were off, it would stay on for br0.
    sandbox.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").ok();
    let before = sandbox.snapshot();
    sandbox.sh("netns-bridge -n --id web --bridge br0 | veth-pair > web.json").ok();
    assert_eq!(address(&sandbox, "web"), "172.30.0.3");
    // On Stave's own bridge, only leased addresses exist.
    sandbox.sh("netns-bridge -n --id own --bridge br1 --subnet 10.1.0.0/24 | veth-pair > own.json").ok();
    assert_eq!(address(&sandbox, "own"), "10.1.0.2");
    for id in ["own", "web"] {
        sandbox.sh(&format!("veth-pair --undo < {id}.json | netns-bridge --undo > /dev/null")).ok();
    }
    sandbox.assert_as(&before);
}

/// A new container with the address of a removed one has the same hardware address, which the neighbours
/// know.
#[test]
fn a_new_owner_of_an_address_is_reached_at_once() {
    let sandbox = sandbox();
    sandbox.sh("netns-bridge -n --id keeper --subnet 10.3.0.0/29 | veth-pair > keeper.json").ok();
    sandbox.sh("netns-bridge -n --id old | veth-pair > old.json").ok();
    let reused = address(&sandbox, "old");
    let look = format!("ip neigh show {reused} | grep -o 'lladdr [0-9a-f:]*' || true");
    let known = |from: &str| within(&sandbox, from, &look).ok();
    for from in ["host", "keeper"] {
        within(&sandbox, from, &format!("busybox ping -c 1 -W 1 {reused} > /dev/null")).ok();
    }
    let old = [known("host"), known("keeper")];
    assert!(old.iter().all(|mac| mac.starts_with("lladdr 02:")), "{old:?}");
    sandbox.sh("veth-pair --undo < old.json | netns-bridge --undo > /dev/null; echo 10.3.0.2 > /run/stave/leases/10.3.0.0_29/cursor").ok();
    sandbox.sh("netns-bridge -n --id new | veth-pair > new.json").ok();
    assert_eq!(address(&sandbox, "new"), reused);
    let new = format!("lladdr {}", sandbox.sh("ip -n new -j link show eth0 | jq -r '.[0].address'").ok());
    assert_eq!([known("host"), known("keeper")], [new.clone(), new.clone()]);
    assert_eq!(new, "lladdr 02:42:0a:03:00:03\n");
}

#[test]
fn the_mtu_is_that_of_the_way_out() {
    let sandbox = sandbox();
    let mtu = |id: &str, arguments: &str| {
        sandbox.sh(&format!("netns-bridge -n --id {id} | veth-pair {arguments} > {id}.json")).ok();
        sandbox.sh(&format!("ip -n {id} -j link show eth0 | jq '.[0].mtu' | tr -d '\n'")).ok()
    };
    sandbox.sh("ip route del default").ok();
    assert_eq!(mtu("a", ""), "1500", "without a way out");
    sandbox.sh("ip link set out0 mtu 1400; ip route add default via 192.0.2.2").ok();
    assert_eq!(mtu("b", ""), "1400");
    sandbox.sh("ip link add far0 mtu 1300 type veth peer name far1; ip addr add 10.7.0.1/24 dev far0; ip link set far0 up; ip link set far1 up
                ip route add default via 10.7.0.2 metric 500").ok();
    assert_eq!(mtu("c", ""), "1400", "the route that counts");
    assert_eq!(mtu("d", "--mtu 9000"), "9000");
    let wrong = sandbox.sh("veth-pair --mtu 60 < a.json");
    assert_eq!(wrong.status, 2, "{}", wrong.stderr);
}

/// The bridge was deleted while it had containers.
#[test]
fn a_bridge_that_somebody_deleted_is_repaired() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", "-p 10080:80");
    serve(&sandbox, "web", "TCP4-LISTEN:80", "web");
    sandbox.sh("ip link del stave0").ok();
    assert_eq!(ask(&sandbox, "host", "TCP4:127.0.0.1:10080"), "");
    for tool in ["netns-bridge", "veth-pair"] {
        assert_ne!(sandbox.sh(&format!("{tool} --check < web.json > /dev/null 2>&1")).status, 0, "{tool}");
    }
    for tool in ["netns-bridge", "veth-pair", "portmap"] {
        sandbox
            .sh(&format!("{tool} --repair < web.json > /dev/null; {tool} --check < web.json > /dev/null"))
            .ok();
    }
    for from in ["host", "outside", "web"] {
        let answer = ask(&sandbox, from, &format!("TCP4:{HOST}:10080"));
        assert!(answer.starts_with("web"), "{from}: {answer}");
    }
    stop(&sandbox, "web");
    sandbox.sh("pkill -P 1 socat || true").ok();
    sandbox.assert_as(&before);
}
