//! Containers' networks that others damaged: net-repair restores them on request, and net-guard
//! automatically.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{HOST, Sandbox, Snapshot, wait_for};

/// Two containers on one bridge: `web` with published ports and a server, and `db`. A server outside answers as well.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    sandbox
        .sh("netns-bridge -n --id web | veth-pair | portmap -p 8080:80 -p 127.0.0.1:8081:80 > web.json")
        .ok();
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    sandbox.serve("web", "TCP4-LISTEN:80", "web");
    let server = "socat TCP4-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    sandbox
}

/// Asserts that published ports, neighbours, and the route out work.
#[track_caller]
fn assert_works(sandbox: &Sandbox, after: &str) {
    for (from, to, answer) in [
        ("outside", format!("{HOST}:8080"), "web 192.0.2.2"),
        ("host", "127.0.0.1:8081".into(), "web 172.17.0.1"),
        ("db", "172.17.0.2:80".into(), "web 172.17.0.3"),
        ("web", "192.0.2.2:99".into(), "outside 192.0.2.1"),
    ] {
        // The kernel notices only after up to a second that a link is up again.
        let ask = || sandbox.ask(from, &format!("TCP4:{to}"));
        let said = (0..3).map(|_| ask()).find(|said| said == answer).unwrap_or_else(ask);
        assert_eq!(said, answer, "{from} asks {to} after: {after}");
    }
}

/// Damages by other programs, and what is reported as restored first.
const DAMAGES: [(&str, &str); 14] = [
    ("nft flush ruleset", "db: restored: table inet stave"),
    ("nft delete table inet stave", "db: restored: table inet stave"),
    ("nft add table inet stave '{ flags dormant; }'", "db: restored: table inet stave"),
    ("nft flush chain inet stave prerouting", "db: restored: rule prerouting "),
    (
        "nft delete element inet stave published '{ tcp . 8080 }'",
        "web: restored: element published { tcp . 8080 comment \"web\" : 172.17.0.2 . 80 } of table inet stave",
    ),
    ("ip link del stave0", "db: restored: link \"stave0\""),
    ("ip link set stave0 down", "db: restored: link \"stave0\" set up"),
    ("ip addr flush dev stave0", "db: restored: address 172.17.0.1/16 of link \"stave0\""),
    ("ip route del 172.17.0.0/16 dev stave0", "db: restored: route 172.17.0.0/16 of link \"stave0\""),
    ("echo 0 > /proc/sys/net/ipv4/ip_forward", "db: restored: net.ipv4.ip_forward=1 (it is 0)"),
    (
        "echo 0 > /proc/sys/net/ipv4/conf/stave0/route_localnet",
        "db: restored: net.ipv4.conf.stave0.route_localnet=1 (it is 0)",
    ),
    ("ip link set $WEB nomaster", "web: restored: link \"$WEB\" as a port of \"stave0\""),
    ("ip link set $WEB down", "web: restored: link \"$WEB\" set up"),
    ("ip link del $WEB", "web: restored: link \"$WEB\""),
];

/// The name of the host's side of the link of `web`.
fn link_of_web(sandbox: &Sandbox) -> String {
    sandbox.sh("jq -r '.network.cni.interfaces[1].name' web.json").ok().trim().to_owned()
}

#[test]
fn what_others_took_apart_works_again() {
    let sandbox = sandbox();
    assert_works(&sandbox, "the start");
    let (before, link) = (sandbox.snapshot(), link_of_web(&sandbox));
    let nothing = sandbox.sh("net-repair --all").exits(0);
    assert_eq!(nothing.stderr, "net-repair: nothing is missing\n");
    let rows =
        json!([{"id": "db", "restored": [], "failed": []}, {"id": "web", "restored": [], "failed": []}]);
    assert_eq!(serde_json::from_str::<Value>(&nothing.stdout).unwrap(), rows);
    for (damage, first) in DAMAGES {
        let (damage, first) = (damage.replace("$WEB", &link), first.replace("$WEB", &link));
        sandbox.sh(&damage).ok();
        let repaired = sandbox.sh("net-repair --all").exits(0);
        assert!(
            repaired.stderr.lines().any(|line| line.starts_with(&format!("net-repair: {first}"))),
            "{damage}: {}",
            repaired.stderr
        );
        assert_works(&sandbox, &damage);
        assert_eq!(
            sandbox.sh("net-repair --all").exits(0).stderr,
            "net-repair: nothing is missing\n",
            "{damage}"
        );
        let checked = "netns-bridge --check < web.json | veth-pair --check | portmap --check > /dev/null";
        sandbox.sh(checked).ok();
    }
    assert_same(&before, &sandbox.snapshot());
    sandbox.sh("unwind web db > /dev/null").ok();
    assert_eq!(
        sandbox
            .sh("nft list ruleset; ip -o link show type bridge; find /run/stave -type f ! -path '*/locks/*'")
            .ok(),
        ""
    );
}

/// New links have other indexes. Everything else is as before.
#[track_caller]
fn assert_same(before: &Snapshot, after: &Snapshot) {
    for kind in ["nftables", "route", "sysctl", "mount", "file in /run"] {
        assert_eq!(before.of(kind), after.of(kind), "{kind}");
    }
}

#[test]
fn one_that_cannot_be_repaired_does_not_keep_the_others_from_it() {
    let sandbox = sandbox();
    sandbox
        .sh("netns-bridge -n --id gone | veth-pair > gone.json; umount /run/netns/gone; nft flush ruleset")
        .ok();
    // Another program's link has the name of one of ours.
    sandbox.sh("netns-bridge -n --id other | veth-pair > other.json").ok();
    let theirs = sandbox.sh("jq -r '.network.cni.interfaces[1].name' other.json").ok();
    sandbox.sh(&format!("ip link del {0}; ip link add {0} type bridge", theirs.trim())).ok();
    sandbox.sh("nft flush ruleset; echo nonsense > /run/stave/unread.json").ok();
    let repaired = sandbox.sh("net-repair --all").exits(1);
    assert_works(&sandbox, "a repair that failed for others");
    let rows: Value = serde_json::from_str(&repaired.stdout).unwrap();
    let failed = |id: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
        row["failed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(failed("web"), [""; 0]);
    assert_eq!(failed("gone"), ["missing: network namespace \"/run/netns/gone\""]);
    assert_eq!(failed("other"), [format!("differs: link {:?} has another hardware address", theirs.trim())]);
    assert!(
        failed("unread")[0].starts_with("read record \"/run/stave/unread.json\": "),
        "{:?}",
        failed("unread")
    );
    assert!(
        repaired.stderr.ends_with("net-repair: 3 containers could not be repaired\n"),
        "{}",
        repaired.stderr
    );
    let nobody = sandbox.sh("net-repair nobody").exits(1);
    let line = "net-repair: no container \"nobody\" in /run/stave\nhint: container-ls lists them\n";
    assert!(nobody.stderr.starts_with(line), "{}", nobody.stderr);
    sandbox.sh("net-repair").exits(2);
    sandbox.sh("net-repair --all web").exits(2);
}

#[test]
fn a_namespace_that_lost_its_name_gets_it_back() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let repaired = |id: &str| {
        let told = sandbox.sh(&format!("net-repair {id} > /dev/null")).exits(0).stderr;
        assert!(told.contains(&format!("{id}: restored: network namespace")), "{told}");
    };
    // The server in it keeps it.
    sandbox.sh("umount /run/netns/web && rm /run/netns/web").ok();
    repaired("web");
    assert_works(&sandbox, "the name of a namespace was removed");
    // Nobody is in this one. It has another name.
    sandbox
        .sh("touch /run/netns/x && mount --bind /run/netns/db /run/netns/x && umount /run/netns/db && rm /run/netns/db")
        .ok();
    repaired("db");
    sandbox.sh("umount /run/netns/x && rm /run/netns/x").ok();
    assert_works(&sandbox, "a namespace was renamed");
    assert_same(&before, &sandbox.snapshot());
}

/// What a killed tool has begun is undone and not repaired. What is being unwound will soon be gone.
#[test]
fn a_container_that_is_being_made_or_taken_back_is_left_alone() {
    let sandbox = sandbox();
    for change in
        [".steps[1].state = \"begun\"", ".error = {tool: \"unwind\", step: \"undo\", message: \"\"}"]
    {
        sandbox.sh(&format!("jq -c '{change}' db.json > /run/stave/db.json")).ok();
        sandbox
            .sh("nft flush ruleset; ip link set $(jq -r '.network.cni.interfaces[1].name' db.json) down")
            .ok();
        let repaired = sandbox.sh("net-repair --all").json();
        let ids: Vec<_> = repaired.as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, ["web"], "{change}");
        assert!(!sandbox.sh("nft list ruleset").ok().contains("comment \"db\""), "{change}");
        let named = sandbox.sh("net-repair db").exits(1);
        assert!(named.stderr.starts_with("net-repair: container \"db\" is being made or taken back\n"));
    }
}

#[test]
fn to_explain_a_repair_is_to_change_nothing() {
    let sandbox = sandbox();
    assert_eq!(sandbox.sh("net-repair --all --explain; net-guard --explain").ok(), "");
    sandbox.sh("nft flush ruleset; ip link del stave0").ok();
    let before = sandbox.snapshot();
    let explained = sandbox.sh("net-repair --all --explain").ok();
    for line in ["nft add table inet stave\n", "ip link add stave0 ", "ip address add 172.17.0.1/16 "] {
        assert!(explained.contains(line), "{line} in:\n{explained}");
    }
    assert_eq!(sandbox.sh("net-guard --explain").ok(), explained);
    sandbox.assert_as(&before);
    // Both bridges, each with its own subnet, are restored.
    sandbox.sh("net-repair -q --all > /dev/null").ok();
    assert_works(&sandbox, "explaining");
}

/// Starts net-guard, and waits until it reports that it is watching.
fn guard(sandbox: &Sandbox) {
    let ready = "socat -u UNIX-RECV:/run/notify CREATE:ready > /dev/null 2>&1 < /dev/null & s=$!; until [ -S /run/notify ]; do sleep 0.01; done
        NOTIFY_SOCKET=/run/notify net-guard > guard.out 2> guard.log < /dev/null & echo $! > guard.pid
        for try in $(seq 500); do grep -qs READY=1 ready && kill $s && exit 0; sleep 0.01; done; cat guard.log >&2; exit 1";
    sandbox.sh(ready).ok();
}

/// The lines that the guard has printed since the last call.
fn said(sandbox: &Sandbox) -> String {
    sandbox.sh("cat guard.log; : > guard.log").ok().replace('\0', "")
}

fn processor_time(sandbox: &Sandbox) -> String {
    sandbox.sh("cut -d ' ' -f 14,15 /proc/$(cat guard.pid)/stat").ok()
}

#[test]
fn the_guard_puts_back_what_others_take_away() {
    let sandbox = sandbox();
    let (before, link) = (sandbox.snapshot(), link_of_web(&sandbox));
    sandbox.sh("nft flush ruleset").ok();
    guard(&sandbox);
    assert_works(&sandbox, "what was missing at the start");
    assert_eq!(said(&sandbox), "net-guard: restored: table inet stave and 4 more, of 2 containers\n");
    for (damage, _) in DAMAGES.iter().filter(|(damage, _)| !damage.contains("route_localnet")) {
        let damage = damage.replace("$WEB", &link);
        sandbox.sh(&damage).ok();
        let restored = || sandbox.sh("grep -q restored guard.log").status == 0;
        wait_for(&format!("a repair after: {damage}"), Duration::from_secs(60), restored);
        assert_works(&sandbox, &damage);
        said(&sandbox);
        assert_eq!(
            sandbox.sh("net-repair --all").exits(0).stderr,
            "net-repair: nothing is missing\n",
            "{damage}"
        );
    }
    // A firewall that begins to drop packets, and one whose chain existed before.
    let firewall = [
        (
            "nft 'add table ip fw; add chain ip fw f { type filter hook forward priority 0; policy drop; }'",
            "delete table ip fw",
        ),
        (
            "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 0; }; add rule inet fw f drop'",
            "delete table inet fw",
        ),
    ];
    for (damage, back) in firewall {
        sandbox.sh(damage).ok();
        let restored = || sandbox.sh("grep -q restored guard.log").status == 0;
        wait_for(&format!("a repair after: {damage}"), Duration::from_secs(60), restored);
        assert_works(&sandbox, damage);
        sandbox.sh(&format!("nft {back}")).ok();
    }
    std::thread::sleep(Duration::from_secs(1));
    said(&sandbox);
    // While nothing happens, it uses no processor time; its own repairs do not wake it.
    let idle = processor_time(&sandbox);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(processor_time(&sandbox), idle);
    assert_eq!(said(&sandbox), "");
    assert_eq!(
        sandbox.sh("kill $(cat guard.pid); wait_for() { while [ -e /proc/$1 ]; do sleep 0.01; done; }; wait_for $(cat guard.pid); cat guard.out").ok(),
        ""
    );
    sandbox.sh("rm -f /run/notify").ok();
    assert_same(&before, &sandbox.snapshot());
}

/// Changes that a container makes in its own namespace stay, such as a VPN that takes the default route.
#[test]
fn the_guard_leaves_a_containers_own_namespace_alone() {
    let sandbox = sandbox();
    guard(&sandbox);
    sandbox.sh("ip -n db route del default; ip -n db link set eth0 mtu 1300; nft flush ruleset").ok();
    wait_for("the table", Duration::from_secs(60), || sandbox.sh("nft list table inet stave").status == 0);
    assert_works(&sandbox, "a change in a container");
    assert_eq!(sandbox.sh("ip -n db route show default").ok(), "");
    assert!(sandbox.sh("net-repair db").ok().contains("route 0.0.0.0/0 by 172.17.0.1 in /run/netns/db"));
}

/// Containers come and go while the guard watches. It does not disturb them, keeps nothing of theirs alive,
/// and restores nothing that was removed.
#[test]
fn containers_come_and_go_beside_the_guard() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    guard(&sandbox);
    // A flush in the middle of a step makes the step fail, which leaves nothing behind.
    let each = "for n in 1 2 3 4 5; do netns-bridge -n --id c$0-$n | veth-pair | portmap -p 80 > c$0-$n.json 2> why; nft flush ruleset; unwind c$0-$n > /dev/null || exit 1; done";
    sandbox.sh(&format!("for m in 1 2 3; do sh -c '{each}' $m & all=\"$all $!\"; done; for one in $all; do wait $one || exit 1; done")).ok();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(sandbox.sh("ls /run/netns 2> /dev/null | wc -l").ok(), "0\n");
    let failures: Vec<_> =
        said(&sandbox).lines().filter(|line| !line.contains("restored")).map(str::to_owned).collect();
    assert_eq!(failures, [""; 0]);
    sandbox.sh("kill -9 $(cat guard.pid); while [ -e /proc/$(cat guard.pid) ]; do sleep 0.01; done; rm -f /run/notify").ok();
    sandbox.assert_as(&before);
}
