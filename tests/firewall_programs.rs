//! Containers beside programs that set up a firewall: ufw, firewalld and Docker.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod barrier;

use barrier::*;
use testkit::Sandbox;

/// Gives the sandbox its own copies of these directories.
fn own(sandbox: &Sandbox, directories: &str) {
    sandbox
        .sh(&format!("for d in {directories}; do cp -a --parents $d /run/own/ 2>/dev/null || {{ mkdir -p /run/own; cp -a --parents $d /run/own/; }}; \
             mount --bind /run/own$d $d; done"))
        .ok();
}

#[test]
fn ufw() {
    let sandbox = host();
    own(&sandbox, "/etc/ufw /etc/default");
    containers(&sandbox, "");
    sandbox.sh("ufw --force enable").ok();
    assert_eq!(answers(&sandbox), DROPPED);
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    sandbox.sh("ufw reload").ok();
    assert_eq!(answers(&sandbox), THROUGH, "after a reload");
    sandbox.sh("ufw --force disable && ufw --force enable").ok();
    assert_eq!(answers(&sandbox), THROUGH, "after it was switched off and on");
    let before = saved(&sandbox, "iptables").replace(RULES, "");
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    assert_eq!(saved(&sandbox, "iptables"), before);
    containers(&sandbox, "");
    assert_eq!(answers(&sandbox), THROUGH, "ufw first");
}

/// A host with firewalld.
fn with_firewalld() -> Sandbox {
    let sandbox = host();
    own(&sandbox, "/etc/firewalld");
    sandbox
        .sh("mkdir -p /run/dbus && (dbus-daemon --system --nofork --nopidfile > dbus.log 2>&1 &)
             until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
             (firewalld --nofork --nopid > firewalld.log 2>&1 &)
             for try in $(seq 100); do firewall-cmd --state > /dev/null 2>&1 && break; sleep 0.1; done; firewall-cmd --state")
        .ok();
    sandbox
}

fn zones(sandbox: &Sandbox) -> String {
    sandbox.sh("firewall-cmd --get-active-zones").ok()
}

#[test]
fn firewalld() {
    let sandbox = with_firewalld();
    containers(&sandbox, "");
    assert_eq!(zones(&sandbox), "trusted\n  interfaces: stave0\n");
    assert_eq!(answers(&sandbox), THROUGH);
    assert_eq!(check(&sandbox), "");
    sandbox.sh("firewall-cmd --reload").ok();
    assert_eq!(
        check(&sandbox),
        "netns-bridge: missing: a rule for bridge \"stave0\" in firewalld, which drops its packets (--repair adds it)\n"
    );
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    // net-guard does so by itself, each time.
    sandbox.sh("(net-guard > guard.log 2>&1 & echo $! > guard.pid); sleep 0.3").ok();
    for _ in 0..3 {
        sandbox.sh("firewall-cmd --reload").ok();
        let is_back = "firewall-cmd --get-active-zones | grep -q stave0 && exit";
        let told = sandbox
            .sh(&format!("for try in $(seq 50); do {is_back}; sleep 0.1; done; cat guard.log; exit 1"));
        assert_eq!(told.status, 0, "{}", told.stdout);
        assert_eq!(answers(&sandbox), THROUGH);
    }
    sandbox.sh("kill $(cat guard.pid)").ok();
    unwind(&sandbox, "a");
    assert_eq!(zones(&sandbox), "trusted\n  interfaces: stave0\n");
    unwind(&sandbox, "b");
    assert_eq!(zones(&sandbox), "");
}

#[test]
fn zones_of_the_administrator() {
    let sandbox = with_firewalld();
    // What the administrator configured stays, and a zone that the administrator chose is not changed.
    sandbox
        .sh("firewall-cmd --permanent --zone=trusted --add-interface=stave0 && firewall-cmd --reload")
        .ok();
    sandbox.sh("netns-bridge -n --id c | unwind > /dev/null").ok();
    assert_eq!(zones(&sandbox), "trusted\n  interfaces: stave0\n");
    // The same holds for what somebody did earlier, until firewalld reloads its rules.
    sandbox
        .sh("firewall-cmd --permanent --zone=trusted --remove-interface=stave0 && firewall-cmd --reload")
        .ok();
    sandbox.sh("firewall-cmd --zone=trusted --add-interface=stave0").ok();
    containers(&sandbox, "");
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    assert_eq!(zones(&sandbox), "trusted\n  interfaces: stave0\n");
    sandbox.sh("firewall-cmd --zone=work --change-interface=stave0").ok();
    let refused = sandbox.sh("netns-bridge -n --id c > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "netns-bridge: add bridge \"stave0\" to zone trusted of firewalld: it is in zone work\n\
         hint: firewall-cmd --zone=trusted --change-interface=stave0, or --firewall none\n"
    );
    assert_eq!(zones(&sandbox), "work\n  interfaces: stave0\n");
    // Another network namespace of the same machine, to which this firewall does not belong.
    sandbox.sh("unshare --net netns-bridge -n --id d | unshare --net unwind > /dev/null").ok();
    assert_eq!(zones(&sandbox), "work\n  interfaces: stave0\n");
}

const DOCKERD: &str = "mkdir -p /run/docker-data && (dockerd --data-root /run/docker-data --exec-root /run/docker-exec --pidfile /run/d.pid \
    -H unix:///run/d.sock --storage-driver vfs > dockerd.log 2>&1 &)
    for try in $(seq 100); do docker -H unix:///run/d.sock version > /dev/null 2>&1 && break; sleep 0.1; done; iptables -S DOCKER-USER";

#[test]
fn docker_first() {
    let sandbox = host();
    sandbox.sh(DOCKERD).ok();
    let before = saved(&sandbox, "iptables");
    assert!(before.contains(":FORWARD DROP"), "{before}");
    containers(&sandbox, "");
    assert_eq!(answers(&sandbox), THROUGH);
    // The rules of a network that Docker adds later come before ours. A restart of Docker changes nothing.
    sandbox.sh("docker -H unix:///run/d.sock network create later").ok();
    sandbox
        .sh(&format!("kill $(cat /run/d.pid); while [ -e /run/d.pid ]; do sleep 0.05; done; {DOCKERD}"))
        .ok();
    assert_eq!(answers(&sandbox), THROUGH);
    assert_eq!(check(&sandbox), "");
    sandbox.sh("docker -H unix:///run/d.sock network rm later").ok();
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    assert_eq!(saved(&sandbox, "iptables"), before);
}

#[test]
fn docker_second() {
    let sandbox = host();
    containers(&sandbox, "");
    sandbox.sh(DOCKERD).ok();
    // Some versions of Docker set this policy only if they switched ip_forward on.
    sandbox.sh("iptables -P FORWARD DROP").ok();
    assert_eq!(answers(&sandbox), DROPPED);
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
}
