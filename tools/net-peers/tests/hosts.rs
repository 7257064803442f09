//! Three hosts with an etcd, in namespaces of their own.
#![allow(clippy::unwrap_used)]

use std::{process::Command, time::Duration};

use serde_json::{Value, json};
use testkit::{Sandbox, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A link with an etcd, and the hosts on it.
struct Hosts {
    wire: Sandbox,
    hosts: Vec<Sandbox>,
}

/// Runs `ip` in the network namespace of a sandbox.
#[track_caller]
fn ip(sandbox: &Sandbox, arguments: &str) {
    let net = format!("--net=/proc/{}/ns/net", sandbox.pid());
    let done = Command::new("nsenter").args([&net, "ip"]).args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

impl Hosts {
    fn new() -> Self {
        let wire = Sandbox::new();
        let hosts: Vec<Sandbox> = NAMES.iter().map(|_| Sandbox::new()).collect();
        ip(&wire, "link add wire type bridge");
        ip(&wire, "address add 10.99.0.9/24 dev wire");
        ip(&wire, "link set wire up");
        for (at, host) in hosts.iter().enumerate() {
            let name = NAMES[at];
            ip(&wire, &format!("link add p{name} master wire type veth peer name wire netns {}", host.pid()));
            ip(&wire, &format!("link set p{name} up"));
            ip(host, &format!("address add 10.99.0.{}/24 dev wire", at + 1));
            ip(host, "link set wire up");
        }
        let hosts = Self { wire, hosts };
        hosts.start_etcd();
        hosts
    }

    fn start_etcd(&self) {
        let urls = "--listen-client-urls http://10.99.0.9:2379 --advertise-client-urls http://10.99.0.9:2379";
        let peers = "--listen-peer-urls http://127.0.0.1:2380";
        self.wire
            .sh(&format!("etcd --data-dir etcd {urls} {peers} > etcd.log 2>&1 & echo $! > etcd.pid"))
            .ok();
        let is_there = || self.etcdctl("endpoint health").status == 0;
        wait_for("etcd", LIMIT, is_there);
    }

    fn end_etcd(&self) {
        self.wire
            .sh("kill -9 $(cat etcd.pid); while kill -0 $(cat etcd.pid) 2> /dev/null; do sleep 0.05; done")
            .ok();
    }

    fn etcdctl(&self, command: &str) -> testkit::Outcome {
        self.wire.sh(&format!("ETCDCTL_API=3 etcdctl --endpoints http://10.99.0.9:2379 {command}"))
    }

    /// The keys of the network in etcd.
    fn keys(&self) -> Vec<String> {
        let keys = self.etcdctl("get --prefix --keys-only /stave/front/").ok();
        keys.lines().filter_map(|key| key.strip_prefix("/stave/front/")).map(str::to_owned).collect()
    }

    fn host(&self, name: &str) -> &Sandbox {
        &self.hosts[NAMES.iter().position(|host| *host == name).unwrap()]
    }

    /// Starts the process that keeps the host's peers.
    fn join(&self, name: &str, flags: &str) {
        let host = self.host(name);
        let command = format!("net-peers front --etcd http://10.99.0.9:2379 --host {name} --ttl 3 {flags}");
        host.sh(&format!("{command} > peers.log 2>&1 & echo $! > peers.pid")).ok();
        let told = || host.sh("cat peers.log").stdout;
        let is_there =
            || self.etcdctl(&format!("get --keys-only /stave/front/hosts/{name}")).stdout.contains(name);
        let end = std::time::Instant::now() + LIMIT;
        while !is_there() {
            assert!(std::time::Instant::now() < end, "host {name} did not join: {}", told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&self, name: &str) {
        self.host(name).sh("kill -9 $(cat peers.pid)").ok();
    }

    /// Attaches a container. Returns its address.
    fn attach(&self, name: &str, id: &str, flags: &str) -> String {
        let pipe =
            format!("netns-add -n --id {id} | bridge-attach front {flags} | name-serve | tee {id}.json");
        let attached = self.host(name).sh(&pipe);
        assert_eq!(attached.stderr, "");
        let document = attached.json();
        let address = document["networks"][0]["cni"]["ips"][0]["address"].as_str().unwrap().to_owned();
        address.split_once('/').unwrap().0.to_owned()
    }

    fn reaches(&self, name: &str, id: &str, address: &str) -> bool {
        let ping =
            format!("nsenter --net=/run/netns/{id} busybox ping -c 1 -W 1 -s 1300 {address} > /dev/null");
        self.host(name).sh(&ping).status == 0
    }

    /// The addresses that a container gets for a name.
    fn resolved(&self, name: &str, id: &str, asked: &str) -> Vec<String> {
        let answer = self.host(name).resolve(id, asked, "A");
        answer.addresses.iter().map(|(address, _)| address.to_string()).collect()
    }

    /// Waits until a container reaches another one by its name.
    #[track_caller]
    fn wait_for(&self, (name, id): (&str, &str), asked: &str, address: &str) {
        let is_there = || self.resolved(name, id, asked) == [address] && self.reaches(name, id, address);
        let deadline = std::time::Instant::now() + LIMIT;
        while !is_there() {
            let told =
                self.host(name).sh("cat peers.log; cat /run/stave/peers/front.json; bridge fdb").stdout;
            assert!(std::time::Instant::now() < deadline, "{id} does not reach {asked}: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The hardware addresses that a host sends to other hosts.
    fn forwarded(&self, name: &str) -> Vec<String> {
        let entries = self
            .host(name)
            .sh("bridge -j fdb show dev $(ip -j link show type vxlan | jq -r '.[0].ifname')")
            .json();
        let far = entries.as_array().unwrap().iter().filter(|entry| entry["dst"].is_string());
        let mut macs: Vec<_> = far.map(|entry| entry["mac"].as_str().unwrap().to_owned()).collect();
        macs.sort();
        macs
    }
}

/// The hardware address that our containers derive from this address.
fn mac_of(address: &str) -> String {
    let octets = address.split('.').map(|octet| format!("{:02x}", octet.parse::<u8>().unwrap()));
    std::iter::once("02:42".to_owned()).chain(octets).collect::<Vec<_>>().join(":")
}

#[test]
fn containers_of_three_hosts_reach_each_other() {
    let hosts = Hosts::new();
    let before: Vec<_> = hosts.hosts.iter().map(Sandbox::snapshot).collect();
    hosts.join("a", "--subnet 10.7.0.0/16");
    hosts.join("b", "");
    // A later host may repeat the same properties.
    hosts.join("c", "--subnet 10.7.0.0/16 --part 24");
    let [one, two, three] = ["a", "b", "c"].map(|name| hosts.attach(name, &format!("on-{name}"), ""));
    let parts: std::collections::HashSet<_> =
        [&one, &two, &three].map(|one| one.rsplit_once('.').unwrap().0).into();
    assert_eq!(parts.len(), 3, "{parts:?}");
    for ((name, id), asked, address) in [
        (("a", "on-a"), "on-b", &two),
        (("a", "on-a"), "on-c", &three),
        (("b", "on-b"), "on-c.front", &three),
        (("c", "on-c"), "on-a", &one),
    ] {
        hosts.wait_for((name, id), asked, address);
    }
    // The hosts' bridges too, each with its own hardware address.
    hosts.host("a").sh(&format!("busybox ping -c 1 -W 2 {three}")).ok();
    let macs = NAMES.map(|name| hosts.host(name).sh("cat /sys/class/net/front/address").ok());
    assert!(macs[0] != macs[1] && macs[1] != macs[2] && macs[0] != macs[2], "{macs:?}");
    // A packet to an unused address is not sent to the other hosts.
    let sent = "cat /sys/class/net/x*/statistics/tx_packets";
    let already = hosts.host("a").sh(sent).ok();
    assert!(!hosts.reaches("a", "on-a", "10.7.77.77"));
    assert_eq!(hosts.host("a").sh(sent).ok(), already);
    // The largest packet that is not fragmented between the hosts.
    assert_eq!(hosts.host("a").sh("jq '.networks[0].cni.interfaces[2].mtu' on-a.json").ok(), "1450\n");
    // Another host's address is not leased.
    let told =
        hosts.host("a").sh(&format!("netns-add -n --id x | bridge-attach front --ip {two} > /dev/null"));
    assert!(
        told.stderr.contains(&format!("address {two} is for another host: this one has 10.7.")),
        "{}",
        told.stderr
    );
    hosts.host("a").sh("unwind x > /dev/null").ok();
    // The others forget a container that is removed.
    hosts.host("b").sh("unwind on-b > /dev/null").ok();
    wait_for("the end of on-b", LIMIT, || !hosts.forwarded("a").contains(&mac_of(&two)));
    assert_eq!(hosts.resolved("a", "on-a", "on-b"), [""; 0]);
    assert!(hosts.forwarded("a").contains(&mac_of(&three)));
    for (name, id) in [("a", "on-a"), ("c", "on-c")] {
        hosts.host(name).sh(&format!("unwind {id} > /dev/null")).ok();
    }
    for name in NAMES {
        hosts
            .host(name)
            .sh("kill $(cat peers.pid); while kill -0 $(cat peers.pid) 2> /dev/null; do sleep 0.05; done")
            .ok();
        let leave =
            format!("net-peers front --etcd http://10.99.0.9:2379 --host {name} --leave && network-rm front");
        hosts.host(name).sh(&leave).ok();
    }
    assert_eq!(hosts.keys(), ["network"]);
    hosts.hosts.iter().zip(&before).for_each(|(host, before)| host.assert_as(before));
}

#[test]
fn a_host_is_cut_off_and_returns_and_etcd_restarts() {
    let hosts = Hosts::new();
    hosts.join("a", "--subnet 10.7.0.0/16 --subnet6 fd07::/48");
    let [one, two, three] = ["a", "b", "c"].map(|name| {
        if name != "a" {
            hosts.join(name, "");
        }
        hosts.attach(name, &format!("on-{name}"), "")
    });
    hosts.wait_for(("a", "on-a"), "on-c", &three);
    hosts.wait_for(("c", "on-c"), "on-b", &two);
    // The same with IPv6.
    let six = hosts.host("b").sh("jq -r '.networks[0].cni.ips[1].address | split(\"/\")[0]' on-b.json").ok();
    hosts.host("a").sh(&format!("nsenter --net=/run/netns/on-a busybox ping -6 -c 1 -W 2 {six}")).ok();
    // The link goes down.
    let kept = hosts.forwarded("c");
    ip(&hosts.wire, "link set pc down");
    wait_for("the end of host c", LIMIT, || !hosts.keys().contains(&"hosts/c".to_owned()));
    wait_for("what a knows of it", LIMIT, || !hosts.forwarded("a").contains(&mac_of(&three)));
    assert_eq!(hosts.resolved("a", "on-a", "on-c"), [""; 0]);
    assert!(hosts.reaches("a", "on-a", &two));
    // The host keeps its peers, because it cannot know that they are gone.
    assert_eq!(hosts.forwarded("c"), kept);
    ip(&hosts.wire, "link set pc up");
    hosts.wait_for(("a", "on-a"), "on-c", &three);
    hosts.wait_for(("c", "on-c"), "on-a", &one);
    // While etcd is down, everything keeps working. Changes are published when it is back.
    hosts.end_etcd();
    assert!(hosts.reaches("a", "on-a", &two) && hosts.reaches("b", "on-b", &three));
    let later = hosts.attach("b", "later", "");
    hosts.start_etcd();
    hosts.wait_for(("a", "on-a"), "later", &later);
    hosts.wait_for(("a", "on-a"), "on-b", &two);
    // The process is killed, and a new one finds everything as it is.
    hosts.kill("b");
    hosts.host("b").sh("unwind later > /dev/null").ok();
    assert!(hosts.reaches("b", "on-b", &one));
    hosts.join("b", "");
    wait_for("the end of later", LIMIT, || !hosts.forwarded("a").contains(&mac_of(&later)));
    hosts.wait_for(("a", "on-a"), "on-b", &two);
    // Removed entries are added again. Without net-peers, which would do so by itself at the next change in etcd.
    hosts.kill("a");
    let link = "$(ip -j link show type vxlan | jq -r '.[0].ifname')";
    let forget = format!(
        "bridge fdb del {} dev {link}; ip neighbour flush dev {link}; ip neighbour del {two} dev {link}",
        mac_of(&two)
    );
    hosts.host("a").sh(&forget);
    assert!(!hosts.forwarded("a").contains(&mac_of(&two)));
    hosts.host("a").sh("net-repair --all").ok();
    assert!(hosts.forwarded("a").contains(&mac_of(&two)));
    hosts.join("a", "");
    hosts.wait_for(("a", "on-a"), "on-b", &two);
}

#[test]
fn what_does_not_fit_is_told() {
    let hosts = Hosts::new();
    let a = hosts.host("a");
    let join = "net-peers front --etcd http://10.99.0.9:2379 --host a";
    let told = |command: &str, status: i32| a.sh(command).exits(status).stderr;
    assert_eq!(
        told(join, 1),
        "net-peers: no host has made network \"front\"\nhint: give --subnet on the first host\n"
    );
    assert_eq!(
        told("net-peers front --etcd 10.99.0.9:2379", 1),
        "net-peers: --etcd 10.99.0.9:2379: no address of a web server\nhint: try http://10.99.0.9:2379\n"
    );
    let none = told("net-peers front --etcd http://10.99.0.9:1 --host a --address 10.99.0.1", 1);
    assert!(none.starts_with("net-peers: ask http://10.99.0.9:1/v3/kv/range: "), "{none}");
    assert_eq!(
        told(&format!("{join} --subnet 10.7.0.0/24"), 1),
        "net-peers: 10.7.0.0/24 has no 256 parts with room for containers\nhint: choose a larger --subnet, or another --part\n"
    );
    hosts.join("a", "--subnet 10.7.0.0/16");
    // A second host with the same name is refused.
    let again = hosts.host("b").sh(join).exits(1).stderr;
    assert!(
        again.starts_with("net-peers: host \"a\" is at 10.99.0.1, and this one is 10.99.0.2\nhint: "),
        "{again}"
    );
    let other = hosts
        .host("b")
        .sh("net-peers front --etcd http://10.99.0.9:2379 --host b --subnet 10.8.0.0/16")
        .exits(1)
        .stderr;
    assert!(
        other.starts_with("net-peers: network \"front\" is another: {\"subnet\":\"10.7.0.0/16\""),
        "{other}"
    );
    hosts.attach("a", "web", "");
    assert_eq!(
        told(&format!("{join} --leave"), 1),
        "net-peers: container \"web\" is on network \"front\"\nhint: unwind web\n"
    );
    // Addresses that a host publishes outside of its own part are ignored.
    let web = json!({"mac": "02:42:0a:07:00:63", "addresses": ["10.7.255.99"], "names": ["thief"]});
    hosts.join("b", "");
    hosts.etcdctl(&format!("put /stave/front/containers/b/thief '{web}'")).ok();
    let is_told = || {
        a.sh("cat peers.log").stdout.contains("container \"thief\" of \"b\": 10.7.255.99 is not in its part")
    };
    wait_for("a word about it", LIMIT, is_told);
    let list: Value = a.sh("cat /run/stave/peers/front.json").json();
    assert_eq!(list["hosts"][0]["stations"], json!([]));
}

#[test]
fn a_lease_is_renewed_while_records_change_all_the_time() {
    let hosts = Hosts::new();
    hosts.join("a", "--subnet 10.7.0.0/16");
    let a = hosts.host("a");
    let change = "touch /run/stave/.other && mv /run/stave/.other /run/stave/.one && sleep 0.05";
    a.sh(&format!("while [ ! -e end ]; do {change}; done > /dev/null 2>&1 & echo $! > storm.pid")).ok();
    // A longer lease expires meanwhile.
    let granted = hosts.etcdctl("lease grant 6").ok();
    let lease = granted.split(' ').nth(1).unwrap();
    hosts.etcdctl(&format!("put --lease {lease} /stave/front/clock x")).ok();
    wait_for("the end of a longer lease", LIMIT, || !hosts.keys().contains(&"clock".to_owned()));
    wait_for("host a", Duration::from_secs(10), || hosts.keys().contains(&"hosts/a".to_owned()));
    assert_eq!(a.sh("kill -0 $(cat storm.pid)").status, 0);
    a.sh("touch end").ok();
}

/// Each would remove what the other has published.
#[test]
fn a_second_one_on_the_network_is_refused_whatever_its_run_directory() {
    let hosts = Hosts::new();
    hosts.join("a", "--subnet 10.7.0.0/16");
    let a = hosts.host("a");
    let join = "net-peers front --etcd http://10.99.0.9:2379 --host a --ttl 3";
    let told = "net-peers: another net-peers is on network \"front\" here\nhint: stop it first, even if it has another --run-dir\n";
    for command in [join, &format!("STAVE_RUN=/run/other {join}"), &format!("{join} --leave")] {
        assert_eq!(a.sh(&format!("timeout 20 env {command}")).exits(1).stderr, told, "{command}");
    }
    assert!(hosts.keys().contains(&"hosts/a".to_owned()));
    hosts.kill("a");
    a.sh("while kill -0 $(cat peers.pid) 2> /dev/null; do sleep 0.05; done").ok();
    a.sh(&format!("{join} --leave")).ok();
    assert_eq!(hosts.keys(), ["network"]);
}

/// The tunnel's name does not depend on the bridge's. Any link with our mark stands for it: the kernel may have no WireGuard.
#[test]
fn to_leave_is_to_remove_the_tunnel_whatever_the_bridge_is_called() {
    let hosts = Hosts::new();
    let a = hosts.host("a");
    a.sh("network-create front --bridge other --subnet 10.7.0.0/16").ok();
    let tunnel = a.sh("printf g; printf wireguard/front | sha256sum | cut -c 1-10").stdout;
    let tunnel = tunnel.trim();
    a.sh(&format!("ip link add {tunnel} type bridge && ip link set {tunnel} alias stave")).ok();
    a.sh("net-peers front --etcd http://10.99.0.9:2379 --host a --leave").ok();
    assert_eq!(a.sh(&format!("ip link show {tunnel}")).status, 1);
}

impl Hosts {
    /// Joins the hosts a and b without etcd. Each has a container, and a peer list with the other one.
    /// Returns the containers' addresses. `wire` is the hosts' network.
    fn without_etcd(&self, wire: &str) -> Vec<String> {
        let mut addresses = Vec::new();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let (part, local) = (at + 1, format!("{wire}{}", at + 1));
            let own = format!("--ip-range 10.7.{part}.0/24 --gateway 10.7.{part}.1");
            let vxlan = format!("--vxlan 7 --vxlan-local {local} --vxlan-port 4790");
            self.host(name).sh(&format!("network-create front --subnet 10.7.0.0/16 {own} {vxlan}")).ok();
            addresses.push(self.attach(name, &format!("on-{name}"), ""));
        }
        assert!(!self.reaches("a", "on-a", &addresses[1]));
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let (there, far) = (1 - at, &addresses[1 - at]);
            let station =
                json!({"mac": mac_of(far), "addresses": [far], "names": [format!("on-{}", NAMES[there])]});
            let address = format!("{wire}{}", there + 1);
            let host = json!({"name": NAMES[there], "address": address, "stations": [station]});
            let list = json!({"network": "front", "hosts": [host]});
            let write = format!("mkdir -p /run/stave/peers && echo '{list}' > /run/stave/peers/front.json");
            self.host(name).sh(&format!("{write} && net-repair --all")).ok();
        }
        self.wait_for(("a", "on-a"), "on-b", &addresses[1]);
        self.wait_for(("b", "on-b"), "on-a", &addresses[0]);
        addresses
    }

    /// How many pings a container has received.
    fn pings(&self, name: &str, id: &str) -> u32 {
        let count = "awk '/^Icmp:/ {for (i = 2; i <= NF; i++) if ($i ~ /[a-z]/) n[i] = $i; else if (n[i] == \"InEchos\") print $i}'";
        self.host(name)
            .sh(&format!("nsenter --net=/run/netns/{id} {count} /proc/self/net/snmp"))
            .ok()
            .trim()
            .parse()
            .unwrap()
    }

    /// Sends a ping as a VXLAN packet to the host `outer`, for the container at `inner`. `inside` starts the
    /// commands in the sender's namespace.
    fn forge(&self, name: &str, inside: &str, outer: &str, inner: &str) {
        let link = format!("ip link add vx type vxlan id 7 dstport 4790 {outer}");
        let host = self.host(name);
        let run = |command: &str| host.sh(&format!("{inside} {command}"));
        run(&link).ok();
        run("ip address add 10.7.200.1/32 dev vx").ok();
        run("ip link set vx up").ok();
        run(&format!("ip route add {inner} dev vx src 10.7.200.1")).ok();
        run(&format!("ip neighbour add {inner} lladdr {} dev vx", mac_of(inner))).ok();
        run(&format!("busybox ping -c 2 -i 0.2 -W 1 -I vx {inner}")).exits(1);
        let sent: u32 = run("cat /sys/class/net/vx/statistics/tx_packets").stdout.trim().parse().unwrap_or(1);
        assert!(sent > 0, "nothing was sent");
        run("ip link del vx").ok();
    }
}

/// Without a rule, the kernel takes a packet of a VXLAN from anybody.
#[test]
fn only_the_hosts_of_a_network_may_send_to_it() {
    for wire in ["10.99.0.", "fd99::"] {
        let hosts = Hosts::new();
        for (at, name) in NAMES.iter().enumerate() {
            ip(hosts.host(name), &format!("address add fd99::{}/64 dev wire nodad", at + 1));
        }
        let addresses = hosts.without_etcd(wire);
        let a = hosts.host("a");
        a.sh("netns-add -n --id alien | bridge-attach other --ipv6 > alien.json").ok();
        let alien = "nsenter --net=/run/netns/alien";
        let far = |number: u8| format!("remote {wire}{number}");
        let received = || (hosts.pings("a", "on-a"), hosts.pings("b", "on-b"));
        let before = received();
        // A container on another network: to its own host, and to another one, where its packets have its
        // host's address.
        hosts.forge("a", alien, &far(1), &addresses[0]);
        hosts.forge("a", alien, &far(2), &addresses[1]);
        // With the address of a host of the network.
        let prefix = if wire.contains(':') { 128 } else { 32 };
        a.sh(&format!("{alien} ip address add {wire}2/{prefix} dev eth0")).ok();
        hosts.forge("a", alien, &format!("{} local {wire}2", far(1)), &addresses[0]);
        // A container on the same network, and a host that is not on the list.
        hosts.forge("a", "nsenter --net=/run/netns/on-a", &far(2), &addresses[1]);
        hosts.forge("c", "", &far(1), &addresses[0]);
        hosts.forge("c", "", &far(2), &addresses[1]);
        assert_eq!(received(), before, "{wire}");
        assert!(hosts.reaches("a", "on-a", &addresses[1]) && hosts.reaches("b", "on-b", &addresses[0]));
        // Another VXLAN with the same port is none of our business.
        for (name, own, other) in [("a", 1, 3), ("c", 3, 1)] {
            let host = hosts.host(name);
            host.sh(&format!(
                "ip link add vx type vxlan id 8 dstport 4790 remote {wire}{other} local {wire}{own}"
            ))
            .ok();
            host.sh(&format!("ip address add 10.77.0.{own}/24 dev vx && ip link set vx up")).ok();
        }
        hosts.host("c").sh("busybox ping -c 1 -W 2 10.77.0.1").ok();
        // The rules come back, and are removed with the last container.
        let table = "nft list tables | grep -c stave_x";
        a.sh("nft flush ruleset && net-repair --all").ok();
        assert_eq!(a.sh(table).ok(), "1\n");
        hosts.forge("a", alien, &far(1), &addresses[0]);
        assert_eq!(received().0, before.0 + 1, "{wire}");
        let emptied = a
            .sh("nft flush chain inet $(nft list tables | grep -o 'stave_x.*') prerouting; net-repair --all")
            .ok();
        assert!(emptied.contains("rules of table inet stave_x"), "{emptied}");
        a.sh("unwind on-a alien > /dev/null").ok();
        assert_eq!(a.sh(table).status, 1);
    }
}

/// Any program may write the peer list, and no etcd is needed.
#[test]
fn two_hosts_without_etcd() {
    let hosts = Hosts::new();
    hosts.without_etcd("10.99.0.");
    let told = hosts
        .host("a")
        .sh("netns-add -n --id x | bridge-attach front --subnet 10.8.0.0/16 > /dev/null")
        .exits(1);
    assert!(told.stderr.contains("--subnet"), "{}", told.stderr);
    let other = "netns-add -n --id y | STAVE_ROOT=/run/other bridge-attach front > /dev/null";
    let told = hosts.host("a").sh(other).exits(1).stderr;
    assert!(told.starts_with("bridge-attach: bridge \"front\" leads to other hosts\nhint: "), "{told}");
}
