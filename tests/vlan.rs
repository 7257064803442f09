//! VLANs and ipvlans, on a kernel that has them.
#![allow(clippy::unwrap_used)]

use testkit::Machine;

/// A host and the outside world in network namespaces, on one wire with the VLAN 100. `links` shows what is left of the
/// host's links.
const SCRIPT: &str = r#"
mkdir -p /run /tmp; mount -t tmpfs run /run; mkdir /run/netns; cd /tmp
# The shell has one of its own.
ip() { /tools/ip "$@"; }
for module in bridge veth macvlan ipvlan 8021q; do modprobe $module; done
ip link set lo up
ip netns add out; ip -n out link set lo up
ip link add wire type veth peer name wire netns out
ip link set wire addrgenmode none; ip link set wire up; ip address add 10.99.0.1/24 dev wire
ip -n out link set wire up; ip -n out address add 10.99.0.9/24 dev wire
ip -n out link add link wire name tagged type vlan id 100
ip -n out link set tagged up; ip -n out address add 10.98.0.9/24 dev tagged
links() { echo "links $1: $(ip -o link | sed 's/^[0-9]*: //; s/[:@].*//' | sort | tr '\n' ' ')"; }
reach() { name=$1; shift; nsenter --net=/run/netns/$1 ping -c 1 -W 3 $2 > /dev/null 2>&1 && echo "$name: reached" || echo "$name: silent"; }
links first

# Two users of a VLAN: the first makes it, the last removes it.
for id in a b; do netns-add -n --id $id | macvlan-attach lan --parent wire.100 --subnet 10.98.0.0/24 > $id.json; done
links made
reach "a to the wire" a 10.98.0.9
reach "a to b" a 10.98.0.3
macvlan-attach --check < a.json > /dev/null && echo "check: good"
ip link del wire.100
macvlan-attach --check < b.json 2>&1 > /dev/null | sed 's/^/gone: /'
net-repair --all > /dev/null 2>&1
macvlan-attach --check < a.json > /dev/null && macvlan-attach --check < b.json > /dev/null && echo "repaired: good"
reach "a after repair" a 10.98.0.9
unwind a > /dev/null; links one
reach "b alone" b 10.98.0.9
# Another run directory shares the host's links.
netns-add -n --id c --run-dir /run/other | macvlan-attach --parent wire.100 --subnet 10.98.0.0/24 --ip 10.98.0.50 --run-dir /run/other > c.json
unwind b > /dev/null; links other
reach "c alone" c 10.98.0.9
unwind --run-dir /run/other c > /dev/null; links none
# One that the administrator has made stays.
ip link add link wire name wire.7 type vlan id 7; ip link set wire.7 up
netns-add -n --id a | macvlan-attach --parent wire.7 --subnet 10.97.0.0/24 > a.json; unwind a > /dev/null; links theirs
ip link del wire.7

# ipvlans have the hardware address of the wire.
for mode in l2 l3s; do
    netns-add -n --id $mode | ipvlan-attach --parent wire --mode $mode > $mode.json 2> err || cat err
    [ $mode = l2 ] && { reach "l2 to the wire" l2 10.99.0.9; ipvlan-attach --check < l2.json > /dev/null && echo "l2 check: good"; }
    ip -n $mode -d link show eth0 | grep -o 'ipvlan *mode [a-z0-9]*' | sed "s/  */ /g; s/^/$mode: /"
    own=$(cat /sys/class/net/wire/address); ip -n $mode link show eth0 | grep -q "$own" && echo "$mode mac: the wire's"
    unwind $mode > /dev/null
done
netns-add -n --id v | ipvlan-attach --parent wire.100 --subnet 10.98.0.0/24 > v.json; reach "v by vlan" v 10.98.0.9
netns-add -n --id w | macvlan-attach --parent wire.100 --subnet 10.98.0.0/24 2>&1 > /dev/null | sed 's/^/both: /'
unwind v w > /dev/null; links last
find /run/stave /run/netns -type f | grep -v -e locks -e netns/out | sed 's/^/left: /'
"#;

#[test]
#[ignore = "boots a kernel in an emulator: half a minute (scripts/test --all)"]
fn vlans_and_ipvlans() {
    let machine = Machine::new().with_network();
    let tools = ["netns-add", "macvlan-attach", "ipvlan-attach", "net-repair", "unwind", "/usr/bin/ip"];
    let said = machine.boot(&tools, SCRIPT);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(": ")).collect();
    for expected in [
        "links first: lo wire ",
        "links made: lo wire wire.100 ",
        "a to the wire: reached",
        "a to b: reached",
        "check: good",
        "gone: macvlan-attach: missing: link \"wire.100\"",
        "repaired: good",
        "a after repair: reached",
        "links one: lo wire wire.100 ",
        "b alone: reached",
        "links other: lo wire wire.100 ",
        "c alone: reached",
        "links none: lo wire ",
        "links theirs: lo wire wire.7 ",
        "l2 to the wire: reached",
        "l2 check: good",
        "l2: ipvlan mode l2",
        "l2 mac: the wire's",
        "l3s: ipvlan mode l3s",
        "l3s mac: the wire's",
        "v by vlan: reached",
        "both: macvlan-attach: create link \"eth0\" on link \"wire.100\": Device or resource busy",
        "links last: lo wire ",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{said}");
    }
    assert!(!said.contains("left: "), "{said}");
}
