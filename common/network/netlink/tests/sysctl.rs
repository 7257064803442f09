//! Sets sysctls and puts them back. Needs root: each test runs in its own network and mount
//! namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use netlink::{Sysctl, Variable};
use operation::{Condition, Operation};

use common::*;

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
        // These exist already and need no forwarding, which was off.
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

/// The classifier is added and removed with `route_localnet`. Other programs' classifiers stay.
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
        // The explained commands have the same effect.
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
