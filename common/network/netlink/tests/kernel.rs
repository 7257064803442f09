//! Operations against the kernel. Needs root: each test works in its own network and mount namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::PathBuf, process::Command};

use netlink::{Connection, LinkOperation as Op, Mac, Mark, PROTOCOL, Peer, Sysctl, Variable, veth_name};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use operation::{Condition, Operation, Scope, undo_all};

fn scope() -> Scope {
    Scope { root: "/run/root".into(), run_dir: "/run/stave".into() }
}

/// Runs on a thread with its own network, an empty `/run`, and the `/proc/sys/net` of that network.
fn sandbox(work: impl FnOnce() + Send) {
    std::thread::scope(|threads| {
        let started = threads.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNET)
                .expect("this test needs root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            work();
        });
        if let Err(panic) = started.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn picture() -> String {
    // The indices, and whether an IPv6 address is still tentative, differ between runs.
    sh("ip -d -o link | cut -d: -f2-; ip -4 -o addr; ip route show table all | grep -v fe80 || true; \
        sysctl net.ipv4.ip_forward; find /run | sort")
}

fn netns(name: &str) -> netns::NetnsOperation {
    let mut netns = netns::NetnsOperation::new(format!("/run/netns/{name}"), name);
    netns.apply(&scope()).unwrap();
    netns
}

fn bridge() -> Op {
    Op::BridgeAdd {
        name: "stave0".into(),
        mac: Mac::derive("", "stave0"),
        mark: Some(Mark::new("web", Some("0123456789abcdef"))),
    }
}

/// The link operations of netns-bridge and veth-pair, for the container `id` with this address.
fn container(id: &str, address: &str) -> Vec<Op> {
    let (name, mac, inside) = (veth_name(id, "eth0"), Mac::derive(id, "host"), Mac::derive(id, "eth0"));
    let namespace = PathBuf::from(format!("/run/netns/{id}"));
    let peer = Peer { name: "eth0".into(), mac: inside, namespace: namespace.clone() };
    vec![
        bridge(),
        Op::Ipv6Off { link: "stave0".into(), mac: Mac::derive("", "stave0") },
        Op::LinkUp { namespace: None, link: "stave0".into(), mac: Mac::derive("", "stave0") },
        Op::AddressAdd {
            namespace: None,
            link: "stave0".into(),
            mac: Some(Mac::derive("", "stave0")),
            address: "172.17.0.1/16".parse().unwrap(),
            protocol: Some(PROTOCOL),
        },
        Op::VethAdd {
            name: name.clone(),
            mac,
            master: "stave0".into(),
            mtu: 1400,
            peer,
            mark: Some(Mark::new(id, Some("0123456789abcdef"))),
        },
        Op::Ipv6Off { link: name.clone(), mac },
        Op::Hairpin { link: name.clone(), mac },
        Op::GuardLoopback { link: name.clone(), mac, bridge: "stave0".into() },
        Op::LinkUp { namespace: None, link: name, mac },
        Op::LinkUp { namespace: Some(namespace.clone()), link: "eth0".into(), mac: inside },
        Op::AddressAdd {
            namespace: Some(namespace.clone()),
            link: "eth0".into(),
            mac: Some(inside),
            address: address.parse().unwrap(),
            protocol: Some(PROTOCOL),
        },
        Op::RouteAdd {
            namespace: Some(namespace),
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: [172, 17, 0, 1].into(),
            link: "eth0".into(),
            mac: inside,
            metric: None,
            protocol: Some(PROTOCOL),
        },
    ]
}

#[test]
fn applied_checked_and_undone_at_every_length() {
    sandbox(|| {
        let netns = netns("web");
        let before = picture();
        let all = container("web", "172.17.0.2/16");
        for length in 0..=all.len() {
            let mut list = all.clone();
            for operation in &mut list[..length] {
                operation.apply(&scope()).unwrap();
                assert_eq!(operation.check(&scope()).unwrap(), Condition::Present, "{operation:?}");
            }
            for operation in &list[length..] {
                // Things that end with the link are not checked separately.
                let with_link = matches!(operation, Op::Hairpin { .. });
                let found = operation.check(&scope()).unwrap();
                assert!(
                    with_link || matches!(found, Condition::Missing(_)),
                    "{length} {operation:?} {found:?}"
                );
            }
            assert!(undo_all(&list, &scope()).is_empty());
            assert!(undo_all(&list, &scope()).is_empty());
            assert_eq!(picture(), before, "after {length}");
        }
        netns.undo(&scope()).unwrap();
        assert!(undo_all(&all, &scope()).is_empty(), "the namespace is gone");
    });
}

#[test]
fn the_explanation_typed_by_a_person_does_the_same() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        let inside = "; ip -n web -d -o link show eth0; ip -n web -o -4 addr; ip -n web route; \
                      bridge -d link | grep -o 'hairpin on'";
        let see = || {
            // The bridge comes up some time after its port.
            sh("for n in $(seq 300); do ip link show stave0 | grep -q 'state UP' && break; sleep 0.01; done");
            let text = picture() + &sh(&inside[2..]);
            // Indices of interfaces count upwards.
            text.split_whitespace()
                .map(|word| word.split_once("@if").map_or(word, |(name, _)| name))
                .filter(|word| word.parse::<u64>().is_err() && !word.ends_with("sec"))
                .filter(|word| !word.trim_end_matches(':').chars().all(|c| c.is_ascii_digit()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        for operation in &mut list {
            operation.apply(&scope()).unwrap();
        }
        let ours = see();
        assert!(undo_all(&list, &scope()).is_empty());
        for operation in &list {
            for line in operation.explain() {
                sh(&line);
            }
        }
        assert_eq!(strip_timers(&see()), strip_timers(&ours));
        assert!(undo_all(&list, &scope()).is_empty(), "known by what was typed");
        netns.undo(&scope()).unwrap();
    });
}

fn strip_timers(text: &str) -> String {
    text.split(' ')
        .filter(|word| !word.contains('.') || word.starts_with("172"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn what_others_made_under_the_same_name_stays() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        let veth = veth_name("web", "eth0");
        sh(&format!("ip link add stave0 type bridge; ip link add {veth} type veth peer name other"));
        let before = picture();
        for (at, error) in [
            (0, r#"create link "stave0": File exists"#.to_owned()),
            (1, r#"switch off IPv6 on link "stave0": File exists"#.to_owned()),
            (2, r#"set up on link "stave0": File exists"#.to_owned()),
            (3, r#"add address 172.17.0.1/16 on link "stave0": File exists"#.to_owned()),
            (4, format!(r#"create link "{veth}": File exists"#)),
            (5, format!(r#"switch off IPv6 on link "{veth}": File exists"#)),
            (6, format!(r#"set hairpin on link "{veth}": File exists"#)),
            (7, format!(r#"guard 127.0.0.0/8 on link "{veth}": File exists"#)),
            (10, r#"add address 172.17.0.2/16 on link "eth0" in /run/netns/web: No such device"#.to_owned()),
        ] {
            assert_eq!(list[at].apply(&scope()).unwrap_err().to_string(), error);
        }
        assert!(undo_all(&list, &scope()).is_empty());
        assert!(matches!(list[0].check(&scope()).unwrap(), Condition::Different(_)));
        assert_eq!(picture(), before);
        sh("ip link del stave0");
        let error = list[4].apply(&scope()).unwrap_err().to_string();
        assert_eq!(error, format!(r#"create link "{veth}" on bridge "stave0": No such device"#));
        netns.undo(&scope()).unwrap();
        sh(&format!("ip link del {veth}"));
        list[0].apply(&scope()).unwrap();
        let error = list[4].apply(&scope()).unwrap_err().to_string();
        assert_eq!(error, "enter network namespace in /run/netns/web: No such file or directory");
    });
}

#[test]
fn a_bridge_with_somebody_elses_port_stays() {
    sandbox(|| {
        let (mut bridge, mac) = (bridge(), Mac::derive("", "stave0"));
        let mut up = Op::LinkUp { namespace: None, link: "stave0".into(), mac };
        for operation in [&mut bridge, &mut up] {
            operation.apply(&scope()).unwrap();
            operation.apply(&scope()).unwrap();
        }
        sh(
            "ip link set stave0 down; ip link add tap0 type veth peer name tap1; ip link set tap0 master stave0",
        );
        assert!(matches!(up.check(&scope()).unwrap(), Condition::Missing(_)));
        up.apply(&scope()).unwrap();
        assert_eq!(up.check(&scope()).unwrap(), Condition::Present);
        bridge.undo(&scope()).unwrap();
        assert_eq!(bridge.check(&scope()).unwrap(), Condition::Present);
        sh("ip link del tap0");
        bridge.undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_none());
    });
}

#[test]
fn on_a_users_bridge_only_the_marked_address_goes() {
    sandbox(|| {
        sh("ip link add br0 address 02:00:00:00:00:09 type bridge; ip addr add 10.9.0.1/24 dev br0");
        let add = |address: &str| Op::AddressAdd {
            namespace: None,
            link: "br0".into(),
            mac: None,
            address: address.parse().unwrap(),
            protocol: Some(83),
        };
        assert!(add("10.9.0.1/24").apply(&scope()).is_err());
        add("10.9.0.1/24").undo(&scope()).unwrap();
        let mut ours = add("10.8.0.1/24");
        assert_eq!(ours.explain(), ["ip address add 10.8.0.1/24 broadcast + dev br0"]);
        ours.apply(&scope()).unwrap();
        ours.apply(&scope()).unwrap();
        assert_eq!(ours.check(&scope()).unwrap(), Condition::Present);
        ours.undo(&scope()).unwrap();
        assert_eq!(sh("ip -o -4 addr show dev br0 | grep -c inet").trim(), "1");
    });
}

#[test]
fn a_sysctl_is_put_back_by_the_last_and_where_no_bridge_stands() {
    sandbox(|| {
        let forward = || Sysctl::plan(&scope(), Variable::IpForward { bridge: "own0".into() }).unwrap();
        let value = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned();
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = picture();
        let mut first = forward();
        assert_eq!(
            first.explain(),
            [
                "mkdir -p /run/stave/sysctl",
                "echo 0 > /run/stave/sysctl/net.ipv4.ip_forward",
                "sysctl -w net.ipv4.ip_forward=1"
            ]
        );
        first.apply(&scope()).unwrap();
        sh("mkdir -p /run/stave/shared/bridge-own0; touch /run/stave/shared/bridge-own0/web");
        let mut second = forward();
        assert_eq!(second.previous, "0", "what the first one kept");
        second.apply(&scope()).unwrap();
        assert_eq!(second.check(&scope()).unwrap(), Condition::Present);
        sh("ip link add br9 type bridge");
        second.undo(&scope()).unwrap();
        assert_eq!(value(), "1", "another bridge stands");
        sh("ip link del br9; test ! -e /run/stave/sysctl");
        second.undo(&scope()).unwrap();
        assert_eq!(value(), "1", "what was kept went with its last claim");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let mut third = forward();
        third.apply(&scope()).unwrap();
        third.undo(&scope()).unwrap();
        third.undo(&scope()).unwrap();
        assert_eq!(value(), "0");
        sh("rm -r /run/stave");
        assert_eq!(picture(), before);

        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut untouched = forward();
        assert_eq!(untouched.explain(), ["sysctl -w net.ipv4.ip_forward=1"]);
        untouched.apply(&scope()).unwrap();
        untouched.undo(&scope()).unwrap();
        assert_eq!(value(), "1", "it was so before");
    });
}

#[test]
fn a_sysctl_in_a_document_names_no_other_file() {
    for (json, error) in [
        (
            r#"{"op":"sysctl","variable":"route-localnet","link":"../../x","previous":"0","kept":"/run/stave/sysctl/x"}"#,
            "set net/ipv4/conf/../../x/route_localnet: Invalid argument",
        ),
        (
            r#"{"op":"sysctl","variable":"ip-forward","bridge":"own0","previous":"0\n1","kept":"/run/stave/sysctl/x"}"#,
            "set net.ipv4.ip_forward: Invalid argument",
        ),
    ] {
        let sysctl: Sysctl = serde_json::from_str(json).unwrap();
        assert_eq!(sysctl.undo(&scope()).unwrap_err().to_string(), error);
    }
    let sysctl: Sysctl = serde_json::from_str(
        r#"{"op":"sysctl","variable":"ip-forward","bridge":"own0","previous":"0","kept":"/etc/passwd"}"#,
    )
    .unwrap();
    assert!(sysctl.undo(&scope()).unwrap_err().to_string().contains("Invalid argument"));
}

#[test]
fn forwarding_stays_for_what_appeared_since_and_for_nothing_else() {
    sandbox(|| {
        let value = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned();
        // There before, and not in need of forwarding, which was off.
        sh("ip tuntap add dev tun8 mode tun; nft add table inet own; \
            nft add chain inet own forward '{ type filter hook forward priority 0; }'; \
            nft add rule inet own forward counter");
        for (appears, goes, stays) in [
            ("true", "true", "0"),
            ("ip tuntap add dev tun9 mode tun", "ip link del tun9", "1"),
            ("ip link del tun8; ip tuntap add dev tun8 mode tun", "true", "1"),
            ("nft add rule inet own forward accept", "true", "1"),
            (
                "nft add table ip mine; nft add chain ip mine f '{ type filter hook forward priority 0; }'; \
              nft add rule ip mine f accept",
                "true",
                "1",
            ),
            (
                "nft add table inet stave; nft add chain inet stave f '{ type filter hook forward priority 0; }'; \
              nft add rule inet stave f accept",
                "true",
                "0",
            ),
            ("true", "true", "0"),
        ] {
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            let mut forward = Sysctl::plan(&scope(), Variable::IpForward { bridge: "own0".into() }).unwrap();
            forward.apply(&scope()).unwrap();
            sh(appears);
            forward.undo(&scope()).unwrap();
            assert_eq!(value(), stays, "{appears}");
            assert!(!fs::exists("/run/stave/sysctl").unwrap(), "{appears}");
            sh(goes);
        }
    });
}

#[test]
fn a_value_is_not_kept_for_what_could_not_be_set_and_not_believed_without_a_claim() {
    sandbox(|| {
        let path = "/proc/sys/net/ipv4/ip_forward";
        let forward = || Sysctl::plan(&scope(), Variable::IpForward { bridge: "own0".into() }).unwrap();
        fs::write(path, "0").unwrap();
        sh("mount --bind /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_forward; \
            mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward");
        let error = forward().apply(&scope()).unwrap_err().to_string();
        assert_eq!(error, "set net.ipv4.ip_forward: Read-only file system");
        assert!(!fs::exists("/run/stave/sysctl").unwrap());
        sh(
            "umount /proc/sys/net/ipv4/ip_forward; mkdir -p /run/stave/sysctl; echo 0 > /run/stave/sysctl/net.ipv4.ip_forward",
        );
        fs::write(path, "1").unwrap();
        let mut next = forward();
        assert_eq!(next.previous, "1", "nobody claims what was kept");
        next.apply(&scope()).unwrap();
        next.undo(&scope()).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap().trim(), "1");
    });
}

/// Undo of whatever a document may say leaves what others made.
#[test]
fn a_document_that_names_a_foreign_link_address_or_route_changes_nothing() {
    sandbox(|| {
        let netns = netns("web");
        sh(
            "ip link add br0 address 02:11:22:33:44:01 type bridge; ip link add up0 address 02:11:22:33:44:02 type veth peer name up1; \
            ip link set up0 up alias 'stave0 uplink'; ip addr add 10.9.0.1/24 dev up0; \
            ip route add default via 10.9.0.2 dev up0; ip link add o1 address 02:11:22:33:44:03 type veth peer name o2",
        );
        let before = picture();
        let mac = |last| Mac([2, 0x11, 0x22, 0x33, 0x44, last]);
        let marks =
            [None, Some(Mark::new("web", None)), Some(Mark::new("uplink", None)), Some(Mark::new("", None))];
        let mut hostile = Vec::new();
        for mark in marks {
            for (name, mac) in [("br0", mac(1)), ("up0", mac(2)), ("o1", mac(3)), ("lo", Mac([0; 6]))] {
                hostile.push(Op::BridgeAdd { name: name.into(), mac, mark: mark.clone() });
                let peer = Peer { name: "eth0".into(), mac, namespace: "/run/netns/web".into() };
                let (name, master) = (name.into(), "br0".into());
                hostile.push(Op::VethAdd { name, mac, master, mtu: 1500, peer, mark: mark.clone() });
            }
        }
        for protocol in [None, Some(0), Some(3), Some(PROTOCOL)] {
            for address in ["10.9.0.1/24", "10.9.0.1/16"] {
                let (link, address) = ("up0".to_owned(), address.parse().unwrap());
                for mac in [None, Some(mac(2))] {
                    let (link, namespace) = (link.clone(), None);
                    hostile.push(Op::AddressAdd { namespace, link, mac, address, protocol });
                }
            }
            hostile.push(Op::RouteAdd {
                namespace: None,
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: [10, 9, 0, 2].into(),
                link: "up0".into(),
                mac: mac(2),
                metric: None,
                protocol,
            });
        }
        for operation in &hostile {
            operation.undo(&scope()).unwrap();
            assert_eq!(picture(), before, "{operation:?}");
        }
        netns.undo(&scope()).unwrap();
    });
}

#[test]
fn another_containers_link_of_the_same_name_stays() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        list[0].apply(&scope()).unwrap();
        list[4].apply(&scope()).unwrap();
        let Op::VethAdd { name, .. } = &list[4] else { panic!() };
        let link = || Connection::open(None).unwrap().link(name).unwrap();
        assert_eq!(link().unwrap().alias.as_deref(), Some("stave web 0123456789abcdef"));
        let of = |instance| {
            let mut other = list[4].clone();
            if let Op::VethAdd { mark, .. } = &mut other {
                *mark = instance;
            }
            other
        };
        for other in
            [of(None), of(Some(Mark::new("web", Some("fedcba9876543210")))), of(Some(Mark::new("db", None)))]
        {
            other.undo(&scope()).unwrap();
            assert!(link().is_some(), "{other:?}");
        }
        // Its own bridge goes although its port could not be taken back; with another's port it stays.
        sh("ip link add tap0 type veth peer name tap1; ip link set tap0 master stave0");
        list[0].undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_some());
        sh("ip link del tap0");
        list[0].undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_none());
        list[4].undo(&scope()).unwrap();
        assert!(link().is_none());
        netns.undo(&scope()).unwrap();
    });
}

/// The classifier comes and goes with `route_localnet`, and leaves those of others.
#[test]
fn route_localnet_is_on_behind_a_guard_only() {
    sandbox(|| {
        sh("ip link add br0 type bridge; ip link set br0 up; tc qdisc add dev br0 clsact
            tc filter add dev br0 egress pref 5 bpf direct-action bytecode '1,6 0 0 4294967295'");
        let picture =
            || sh("tc qdisc show dev br0; tc filter show dev br0 egress; tc filter show dev br0 ingress");
        let before = picture();
        let mut sysctl = Sysctl::plan(&scope(), Variable::RouteLocalnet { link: "br0".into() }).unwrap();
        sysctl.apply(&scope()).unwrap();
        let guarded = picture();
        assert!(guarded.contains("pref 83 bpf chain 0 handle 0x53 direct-action"), "{guarded}");
        assert_eq!(sysctl.check(&scope()).unwrap(), Condition::Present);
        sysctl.apply(&scope()).unwrap();
        assert_eq!(picture(), guarded, "once");
        sh("tc filter del dev br0 ingress");
        assert!(matches!(sysctl.check(&scope()).unwrap(), Condition::Missing(_)));
        sysctl.apply(&scope()).unwrap();
        assert_eq!(picture(), guarded);
        sysctl.undo(&scope()).unwrap();
        assert_eq!(picture(), before);
        assert_eq!(sh("sysctl -n net.ipv4.conf.br0.route_localnet"), "0\n");
        // Explained as it is made: tc makes the same.
        let explained = sysctl.explain();
        sh("tc filter del dev br0 egress; tc qdisc del dev br0 clsact");
        sysctl.apply(&scope()).unwrap();
        let made = picture();
        sysctl.undo(&scope()).unwrap();
        assert_eq!(picture(), "qdisc noqueue 0: root refcnt 2 \n", "our discipline goes as well");
        for line in explained.iter().filter(|line| line.starts_with("tc ")) {
            sh(line);
        }
        assert_eq!(picture(), made);
    });
}

/// Two links to the outside with other MTUs; the default route is by the first.
fn ways() {
    sh(
        "for n in 1 2; do ip link add w$n type veth peer name p$n; ip link set p$n up; ip link set w$n up mtu 1${n}00; \
            ip addr add 10.20$n.0.1/24 dev w$n; done; ip route add default via 10.201.0.2",
    );
}

fn mtu() -> Option<u32> {
    Connection::here().unwrap().mtu_of_the_way_out(None).unwrap()
}

#[test]
fn the_way_out_is_where_packets_go() {
    sandbox(|| {
        assert_eq!(mtu(), None, "there is none");
        ways();
        assert_eq!(mtu(), Some(1100));
        // One of a table for marked packets alone, and one for an address that is asked for.
        sh(
            "ip rule add fwmark 7 lookup 100; ip route add default via 10.202.0.2 table 100; ip route add 192.0.2.0/24 via 10.202.0.2",
        );
        assert_eq!(mtu(), Some(1100));
        sh("ip route add blackhole 198.51.100.0/24; ip route add unreachable 203.0.113.0/24");
        assert_eq!(mtu(), Some(1100));
        sh(
            "ip route add default via 10.202.0.2 metric 5; ip route del default metric 0; ip route add default via 10.201.0.2 metric 9",
        );
        assert_eq!(mtu(), Some(1200), "the lowest metric");
        sh("for half in 0.0.0.0/1 128.0.0.0/1; do ip route add $half via 10.201.0.2; done");
        assert_eq!(mtu(), Some(1100), "a VPN splits the default route");
        // Packets of containers may have a way of their own.
        sh(
            "ip link add b0 type bridge; ip addr add 172.17.0.1/16 dev b0; ip link set b0 up; sysctl -qw net.ipv4.ip_forward=1; \
            ip rule add from 172.17.0.0/16 lookup 100",
        );
        let bridge = Connection::here().unwrap().link("b0").unwrap().unwrap().index;
        let of_bridge = || {
            let from = Some((bridge, "172.17.0.2".parse().unwrap()));
            Connection::here().unwrap().mtu_of_the_way_out(from).unwrap()
        };
        assert_eq!((of_bridge(), mtu()), (Some(1200), Some(1100)));
        sh("sysctl -qw net.ipv4.ip_forward=0");
        assert_eq!(of_bridge(), Some(1100), "nothing is forwarded: the host's own way");
    });
}

#[test]
fn the_way_out_is_found_at_once_among_many_routes() {
    sandbox(|| {
        ways();
        let time = || {
            let look = || {
                let start = std::time::Instant::now();
                assert_eq!(mtu(), Some(1100));
                start.elapsed()
            };
            (0..20).map(|_| look()).min().unwrap()
        };
        let few = time();
        let routes: String = (0..100_000)
            .map(|n| format!("route add 11.{}.{}.{}/32 dev w2\n", n >> 16, n >> 8 & 255, n & 255))
            .collect();
        fs::write("/run/routes", routes).unwrap();
        sh("ip -batch /run/routes");
        let many = time();
        // A list of them takes a tenth of a second.
        assert!(
            many < few * 10 + std::time::Duration::from_millis(2),
            "{few:?} with few, {many:?} with many"
        );
        assert_eq!(
            Connection::here()
                .unwrap()
                .route_to("11.0.1.1".parse().unwrap())
                .unwrap()
                .unwrap()
                .destination
                .prefix_len(),
            32
        );
    });
}

/// `ip route flush` takes the route that came with a bridge's address.
#[test]
fn the_route_of_an_address_is_made_again() {
    sandbox(|| {
        netns("web");
        let mut operations = container("web", "172.17.0.2/16");
        operations.iter_mut().for_each(|operation| operation.apply(&scope()).unwrap());
        let before = sh("ip route show table all");
        let address = &mut operations[3];
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        sh("ip route del 172.17.0.0/16 dev stave0");
        let missing = Condition::Missing("route 172.17.0.0/16 of link \"stave0\"".into());
        assert_eq!(address.check(&scope()).unwrap(), missing);
        address.apply(&scope()).unwrap();
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        assert_eq!(sh("ip route show table all"), before);
        // A wider rule of somebody does not make it missing.
        sh("ip rule add pref 7 lookup 100; ip route add default dev stave0 table 100");
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        sh("ip rule del pref 7");
        assert!(undo_all(&operations, &scope()).is_empty());
    });
}
