//! Hosts that reach each other by WireGuard, on a kernel that has it.
#![allow(clippy::unwrap_used)]

use testkit::Machine;

/// Two hosts in network namespaces, on one wire, with an etcd on the first.
const SCRIPT: &str = r#"
mount -t tmpfs run /run; mkdir -p /tmp /run/netns; cd /tmp
# The shell has one of its own.
ip() { /tools/ip "$@"; }
for module in bridge veth vxlan wireguard cls_bpf sch_ingress; do modprobe $module; done
for module in $(find /lib/modules -name 'nft_*.ko' | sed 's,.*/,,; s,.ko$,,'); do modprobe $module; done
for host in a b; do
    ip netns add h$host; ip -n h$host link set lo up
    head -c 32 /dev/urandom | base64 > $host.key
done
ip link add wire netns ha type veth peer name wire netns hb
ip -n ha address add 10.99.0.1/24 dev wire; ip -n ha link set wire up
ip -n hb address add 10.99.0.2/24 dev wire; ip -n hb link set wire up
on() { host=$1; shift; STAVE_ROOT=/tmp/root-$host STAVE_RUN=/run/stave-$host nsenter --net=/run/netns/h$host "$@"; }
url=http://10.99.0.1:2379
on a etcd --data-dir /tmp/etcd --listen-client-urls $url --advertise-client-urls $url \
    --listen-peer-urls http://127.0.0.1:2380 > etcd.log 2>&1 &
for try in $(seq 40); do on a wget -q -O - $url/health > /dev/null 2>&1 && break; sleep 1; done
join() { host=$1; shift; on $host net-peers front --etcd $url --host $host "$@"; }
wait_for() { for try in $(seq 40); do [ -e $1 ] && return; sleep 1; done; echo "none: $1"; cat *.log; }
join a --address 10.99.0.1 --subnet 10.7.0.0/16 --wireguard-key a.key > a.log 2>&1 &
wait_for root-a/networks/front.json
join b 2>&1 | sed 's/^/without: /'
join b --wireguard-key b.key > b.log 2>&1 &
wait_for root-b/networks/front.json
for host in a b; do
    on $host sh -c "netns-add -n --id on-$host | bridge-attach front > $host.json"
done
address() { sed 's/.*"ips":\[{"address":"\([0-9.]*\).*/\1/' $1.json; }
for try in $(seq 30); do
    nsenter --net=/run/netns/on-a ping -c 1 -W 2 -s 1300 $(address b) > /dev/null 2>&1 && echo "reached: by a" && break
done
nsenter --net=/run/netns/on-b ping -c 1 -W 5 $(address a) > /dev/null && echo "reached: by b"
ip -n ha -s link show type wireguard | awk '/RX:/ { getline; print "tunnel:", ($1 > 1300 ? "used" : "unused") }'
ip -n ha -d link show type vxlan | grep -o ' dev g[0-9a-f]*' | sed 's/ dev g.*/vxlan: by the tunnel/'
for host in a b; do on $host unwind on-$host > /dev/null; done
cat a.log b.log | sed 's/^/log: /'
"#;

#[test]
#[ignore = "boots a kernel in an emulator: half a minute (scripts/test --all)"]
fn two_hosts_by_wireguard() {
    let machine = Machine::new().with_network();
    let tools = ["netns-add", "bridge-attach", "net-peers", "unwind", "/usr/bin/etcd", "/usr/bin/ip"];
    let said = machine.boot(&tools, SCRIPT);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(": ")).collect();
    for expected in [
        "without: net-peers: the hosts of network \"front\" use WireGuard",
        "without: hint: add --wireguard-key",
        "reached: by a",
        "reached: by b",
        "tunnel: used",
        "vxlan: by the tunnel",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{said}");
    }
}
