//! Further addresses, routes that reject packets, metrics, and bridges of which this host is no gateway.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::Sandbox;

/// Attaches the container `id`. Returns the document.
#[track_caller]
fn start(sandbox: &Sandbox, id: &str, attach: &str) -> Value {
    sandbox.sh(&format!("netns-add -n --id {id} | {attach} | tee {id}.json")).json()
}

#[track_caller]
fn refused(sandbox: &Sandbox, attach: &str, told: &str) {
    let outcome = sandbox.sh(&format!("netns-add -n --id no | {attach} > /dev/null")).exits(1);
    assert_eq!(outcome.stderr.lines().next(), Some(&*format!("bridge-attach: {told}")), "{attach}");
    sandbox.sh("unwind no > /dev/null").ok();
}

const DUAL: &str = "bridge-attach front --subnet 10.5.0.0/24 --subnet6 fd05::/64";

#[test]
fn several_addresses_and_routes_of_all_kinds() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let addresses = "--ip 10.5.0.7 --ip 10.5.0.9 --ip6 fd05::7 --ip6 fd05::9 --metric 200";
    let routes = "--route '10.8.0.0/16 via 10.5.0.3 metric 7' --route '10.9.0.0/16 blackhole' --route '10.10.0.0/16 prohibit metric 9' --route 'fd09::/48 unreachable'";
    let a = start(&sandbox, "a", &format!("{DUAL} {addresses} {routes}"));
    let ips = a["networks"][0]["cni"]["ips"].as_array().unwrap();
    let told: Vec<&str> = ips.iter().map(|ip| ip["address"].as_str().unwrap()).collect();
    assert_eq!(told, ["10.5.0.7/24", "fd05::7/64", "10.5.0.9/24", "fd05::9/64"]);
    let shown = || sandbox.within("a", "ip route; ip -6 route; ip -br address show eth0").ok();
    let all = shown();
    for part in [
        "default via 10.5.0.1 dev eth0 proto 83 metric 200",
        "default via fd05::1 dev eth0 proto 83 metric 200",
        "10.8.0.0/16 via 10.5.0.3 dev eth0 proto 83 metric 7",
        "blackhole 10.9.0.0/16 proto 83",
        "prohibit 10.10.0.0/16 proto 83 metric 9",
        "unreachable fd09::/48 dev lo proto 83",
        "10.5.0.7/24",
        "10.5.0.9/24",
        "fd05::9/64",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    sandbox.serve("a", "TCP4-LISTEN:80", "a");
    assert_eq!(sandbox.ask("host", "TCP4:10.5.0.9:80"), "a 10.5.0.1", "the second address");
    sandbox.sh("pkill -P 1 socat || true").ok();
    sandbox.sh("bridge-attach --check < a.json").ok();
    sandbox.within("a", "ip route del blackhole 10.9.0.0/16; ip -6 route del unreachable fd09::/48").ok();
    let problem = sandbox.sh("bridge-attach --check < a.json").exits(1).stderr;
    assert!(problem.contains("route blackhole 10.9.0.0/16 in /run/netns/a"), "{problem}");
    sandbox.sh("bridge-attach --repair < a.json > /dev/null").ok();
    assert_eq!(shown().lines().count(), all.lines().count(), "{}", shown());
    refused(&sandbox, &format!("{DUAL} --ip 10.5.0.9"), "address 10.5.0.9 is taken by container \"a\"");
    refused(&sandbox, &format!("{DUAL} --ip 10.5.0.8 --ip 10.5.0.8"), "address 10.5.0.8 is wanted twice");
    refused(
        &sandbox,
        &format!("{DUAL} --mtu 1279"),
        "the MTU 1279 is too small for IPv6, which needs 1280 bytes",
    );
    // A route of another program stays, and all of ours go.
    sandbox.within("a", "ip route add blackhole 10.11.0.0/16").ok();
    sandbox.sh("bridge-attach --undo < a.json > /dev/null").ok();
    assert_eq!(sandbox.within("a", "ip route; ip -6 route").ok().trim(), "blackhole 10.11.0.0/16");
    sandbox.sh("unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Without a metric in the request, the kernel takes any IPv6 route of ours to the destination for the one to remove.
#[test]
fn a_route_that_rejects_is_undone_beside_another() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let shown = || sandbox.within("a", "ip -6 route show fd09::/48").ok();
    for kind in ["unreachable", "blackhole", "prohibit"] {
        start(
            &sandbox,
            "a",
            &format!("{DUAL} --route 'fd09::/48 via fd05::3 metric 7' --route 'fd09::/48 {kind}'"),
        );
        assert_eq!(shown().lines().count(), 2, "{}", shown());
        sandbox.sh("bridge-attach --undo < a.json > /dev/null").ok();
        assert_eq!(sandbox.within("a", "ip -6 route").ok(), "", "{kind}");
        sandbox.sh("unwind a > /dev/null").ok();
    }
    // The route of another attachment stays.
    start(&sandbox, "a", &format!("{DUAL} --route 'fd09::/48 unreachable'"));
    let back = "bridge-attach back --subnet 10.6.0.0/24 --subnet6 fd06::/64 --route 'fd09::/48 via fd06::3 metric 7'";
    sandbox.sh(&format!("{back} < a.json > b.json; bridge-attach --undo front < b.json > /dev/null")).ok();
    let left = shown();
    assert!(left.starts_with("fd09::/48 via fd06::3 dev eth1") && left.lines().count() == 1, "{left}");
    sandbox.sh("unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// The next hop of a route may be on another network of the container.
#[test]
fn a_route_by_another_interface() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    start(&sandbox, "a", DUAL);
    let routes = "--route '10.8.0.0/16 via 10.5.0.3' --route 'fd08::/48 via fd05::3 metric 7'";
    let back = format!("bridge-attach back --subnet 10.6.0.0/24 --subnet6 fd06::/64 {routes}");
    sandbox.sh(&format!("{back} < a.json > b.json; bridge-attach --check < b.json > /dev/null")).ok();
    let shown = || sandbox.within("a", "ip route show 10.8.0.0/16; ip -6 route show fd08::/48").ok();
    let told = shown();
    assert!(told.starts_with("10.8.0.0/16 via 10.5.0.3 dev eth0 proto 83"), "{told}");
    assert!(told.contains("\nfd08::/48 via fd05::3 dev eth0 proto 83 metric 7"), "{told}");
    sandbox.sh("bridge-attach --undo < b.json > a.json").ok();
    assert_eq!(shown(), "");
    let far = back.replace("via 10.5.0.3", "via 10.7.0.3");
    let refused = sandbox.sh(&format!("{far} < a.json > /dev/null")).exits(1).stderr;
    let told = "bridge-attach: next hop 10.7.0.3 of route 10.8.0.0/16 is not in subnet 10.6.0.0/24\n";
    assert!(refused.starts_with(told), "{refused}");
    sandbox.sh("unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn no_default_route_where_none_is_wanted() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let a = start(&sandbox, "a", &format!("{DUAL} --no-default-route --route '10.9.0.0/16 via 10.5.0.1'"));
    assert_eq!(a["networks"][0]["cni"]["routes"], json!([{"dst": "10.9.0.0/16", "gw": "10.5.0.1"}]));
    assert_eq!(sandbox.within("a", "ip route show default; ip -6 route show default").ok(), "");
    // A published port answers this host only, and portmap says so, except where nobody else could ask.
    let told = |publish: &str| {
        sandbox.sh(&format!("portmap {publish} < a.json > ports.json; status=$?; portmap --undo < ports.json > /dev/null; exit $status")).exits(0).stderr
    };
    for (version, local) in [("IPv4", "127.0.0.1"), ("IPv6", "[::1]")] {
        let told = told("-p 8080:80");
        let part = format!(
            "the ports answer this host, but no other machine by {version}: network \"front\" gives the container no \
             default route of {version}; attach it without --no-default-route, or publish on {local}"
        );
        assert!(told.contains(&part), "{told}");
    }
    assert_eq!(told("-p 127.0.0.1:8080:80"), "");
    // Another network has the way out.
    sandbox.sh("bridge-attach back --subnet 10.6.0.0/24 < a.json | portmap -p 8080:80 > b.json").ok();
    sandbox.serve("a", "TCP4-LISTEN:80", "a");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.1:8080"), "a 192.0.2.2");
    sandbox.sh("pkill -P 1 socat || true; unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_bridge_whose_gateway_is_somebody_else() {
    let sandbox = Sandbox::new();
    // A router on the bridge's wire, with something behind it.
    sandbox
        .sh("echo 1 > /proc/sys/net/ipv4/ip_forward; ip link add br9 type bridge; ip link set br9 up; ip netns add router
             ip link add r0 type veth peer eth0 netns router; ip link set r0 master br9 up
             ip -n router address add 10.5.0.1/24 dev eth0; ip -n router link set eth0 up
             ip -n router link set lo up; ip -n router address add 198.51.100.9/32 dev lo")
        .ok();
    let before = sandbox.snapshot();
    sandbox.serve("router", "TCP4-LISTEN:99", "router");
    let unmanaged = "bridge-attach br9 --unmanaged --subnet 10.5.0.0/24";
    let a = start(&sandbox, "a", &format!("{unmanaged} --ip 10.5.0.7"));
    let one = &a["networks"][0];
    assert_eq!(
        (&one["bridge"].get("gateway"), &one["cni"]["ips"][0]["gateway"]),
        (&None, &json!("10.5.0.1"))
    );
    assert_eq!(sandbox.ask("a", "TCP4:198.51.100.9:99"), "router 10.5.0.7");
    assert_eq!(sandbox.sh("ip -br -4 address show br9").ok(), "", "the host has no address");
    let rules = sandbox.sh("nft list set inet stave same_bridge").ok();
    assert!(!rules.contains("br9"), "{rules}");
    // The router's address is nobody else's, and a station that has one keeps it.
    let taken = |ip: &str, by: &str| {
        let told = format!("address {ip} is taken by {by}");
        refused(&sandbox, &format!("{unmanaged} --ip {ip}"), &told);
    };
    taken("10.5.0.1", "bridge \"br9\"");
    sandbox.sh("ip -n router address add 10.5.0.8/24 dev eth0").ok();
    taken("10.5.0.8", "a station on bridge \"br9\"");
    sandbox.sh("ip -n router address del 10.5.0.8/24 dev eth0").ok();
    let ports = sandbox.sh("portmap -p 8080:80 < a.json > /dev/null").exits(1).stderr;
    assert_eq!(
        ports.lines().next().unwrap(),
        "portmap: no port of the container can be published: its networks have no gateway"
    );
    // Beside a network of this host, the answers must leave by that one.
    sandbox.sh("bridge-attach front --subnet 10.6.0.0/24 --gateway-priority -1 < a.json > b.json").ok();
    let ports = sandbox.sh("portmap -p 8080:80 < b.json > /dev/null").exits(1).stderr;
    let told =
        "portmap: the default route of the container is by network \"br9\", whose gateway is not this host";
    assert_eq!(ports.lines().next().unwrap(), told);
    refused(&sandbox, "bridge-attach nowhere --unmanaged --subnet 10.5.0.0/24", "no interface \"nowhere\"");
    refused(
        &sandbox,
        "bridge-attach front --unmanaged --subnet 10.6.0.0/24",
        "bridge \"front\" is Stave's own: this host is its gateway",
    );
    sandbox.sh("bridge-attach --check < b.json").ok();
    sandbox.sh("pkill -P 1 socat || true; unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_hosts_own_namespace_is_nobodys() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for path in ["/proc/self/ns/net", "/proc/1/ns/net"] {
        let document = json!({"stave": 1, "id": "a", "network": {"mode": "none", "namespace": path}});
        let outcome = sandbox.sh_with("bridge-attach front > /dev/null", document.to_string().as_bytes());
        let told = format!("bridge-attach: network namespace {path:?} is this host's own");
        assert_eq!(outcome.exits(1).stderr.lines().next(), Some(&*told));
    }
    sandbox.sh("unwind a > /dev/null || true; rm -f /run/stave/a.json").ok();
    assert_eq!(sandbox.difference(&before), "");
}

/// The metric of a network's file is that of the first such network. A priority that is given replaces it.
#[test]
fn of_two_networks_with_one_metric_the_first_has_the_way_out() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (name, subnet) in [("front", "10.5.0.0/24"), ("back", "10.6.0.0/24")] {
        sandbox
            .sh(&format!(
                "network-create {name} --subnet {subnet} > /dev/null; file=$STAVE_ROOT/networks/{name}.json; \
                 jq '.options.metric = \"200\"' $file > new && mv new $file"
            ))
            .ok();
    }
    let metrics = |attach: &str| {
        let document = start(&sandbox, "a", attach);
        sandbox.sh("unwind a > /dev/null").ok();
        let networks = document["networks"].as_array().unwrap().clone();
        let metric = |one: &Value| one["cni"]["routes"][0]["priority"].as_u64().unwrap();
        networks.iter().map(metric).collect::<Vec<_>>()
    };
    assert_eq!(metrics("bridge-attach front | bridge-attach back"), [200, 201], "by the file");
    let given = metrics("bridge-attach front --gateway-priority 1 | bridge-attach back --gateway-priority 1");
    assert_eq!(given[1], given[0] + 1);
    sandbox.sh("network-rm front back > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Containers of another run directory need the same as those of ours.
#[test]
fn forwarding_and_answers_stay_for_another_run_directory() {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding").ok();
    let values = "cat /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv6/conf/out0/proxy_ndp";
    assert_eq!(sandbox.sh(values).ok(), "0\n0\n");
    let part = "--subnet 10.5.0.0/24 --subnet6 2001:db8::5:0:0/112 --gateway-mode routed --ndp-proxy out0";
    let attach = |run: &str, id: &str| {
        let pipe = format!("netns-add -n --id {id} | bridge-attach front {part} > /dev/null");
        sandbox.sh(&format!("export STAVE_RUN=/run/{run}; {pipe}")).ok();
    };
    attach("r1", "a");
    attach("r2", "b");
    sandbox.sh("STAVE_RUN=/run/r2 unwind b > /dev/null").ok();
    assert_eq!(sandbox.sh(values).ok(), "1\n1\n");
    sandbox.sh("STAVE_RUN=/run/r1 unwind a > /dev/null").ok();
    assert_eq!(sandbox.sh(values).ok(), "0\n0\n");
    attach("r1", "a");
    attach("r2", "b");
    sandbox.sh("STAVE_RUN=/run/r1 unwind a > /dev/null").ok();
    assert_eq!(sandbox.sh(values).ok(), "1\n1\n");
    sandbox.sh("STAVE_RUN=/run/r2 unwind b > /dev/null").ok();
}

/// A container with a network for each IP version: its ports lead to the address that has the default route.
#[test]
fn ports_over_a_network_of_each_version() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip address add 2001:db8::1/64 dev out0 nodad").ok();
    sandbox.outside("ip address add 2001:db8::2/64 dev eth0 nodad").ok();
    let before = sandbox.snapshot();
    let (four, six) =
        ("bridge-attach four --subnet 10.5.0.0/24", "bridge-attach six --ipv4=false --subnet6 fd01:5::/64");
    start(&sandbox, "a", &format!("{four} | {six} | portmap -p 8080:80"));
    sandbox.serve("a", "TCP6-LISTEN:80", "a");
    let ports = sandbox.sh("jq -c '[.ports[] | [.hostIP, .containerPort]]' a.json").ok();
    assert_eq!(ports, "[[null,80],[\"::\",80]]\n");
    for to in ["TCP4:192.0.2.1:8080", "TCP6:[2001:db8::1]:8080"] {
        assert!(sandbox.ask("outside", to).starts_with("a "), "{to}");
    }
    sandbox.sh("unwind a > /dev/null; pkill -P 1 socat || true").ok();
    // In one mode: that of the network with the way out.
    start(&sandbox, "a", &format!("{four} | {six} --gateway-mode routed | portmap -p 8080:80"));
    assert_eq!(sandbox.sh("jq -c '[.ports[] | [.hostIP, .hostPort]]' a.json").ok(), "[[null,8080]]\n");
    sandbox.sh("unwind a > /dev/null").ok();
    sandbox.assert_as(&before);
}
