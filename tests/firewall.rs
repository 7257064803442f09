//! Beside the host's own firewall: what it drops is let through, told and repaired, and goes with the last container. With real
//! iptables in both of its forms, nftables, ufw, firewalld and Docker.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::time::Duration;

use testkit::{HOST, OUTSIDE, Sandbox, wait_for};

/// A host whose neighbour outside knows the way to the containers; both have a server on port 80.
fn host() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
        .ok();
    sandbox.outside(&format!("ip route add 172.16.0.0/12 via {HOST}; {}", server("outside"))).ok();
    sandbox
}

/// A server in this network namespace that answers `name`.
fn server(name: &str) -> String {
    format!(
        "socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo {name}' > /dev/null 2>&1 < /dev/null & \
         until ss -Hlnt | grep -q ':80 '; do sleep 0.01; done"
    )
}

/// Makes the containers a and b with these flags. The port 80 of a is published as 8080.
fn containers(sandbox: &Sandbox, flags: &str) {
    sandbox
        .sh(&format!(
            "netns-bridge -n --id a {flags} | veth-pair | portmap -p 8080:80 > a.json
             netns-bridge -n --id b {flags} | veth-pair > b.json"
        ))
        .ok();
    for id in ["a", "b"] {
        sandbox.sh(&format!("ip netns exec {id} sh -c \"{}\"", server(id))).ok();
    }
}

fn unwind(sandbox: &Sandbox, id: &str) {
    sandbox.sh(&format!("unwind < {id}.json > /dev/null")).ok();
}

fn address(sandbox: &Sandbox, id: &str) -> String {
    sandbox.sh(&format!("jq -j '.network.cni.ips[0].address | split(\"/\")[0]' {id}.json")).ok()
}

/// Who answers, in the order: a to a neighbour outside by its published port, the neighbour to b, a to its sibling b; and b to
/// the neighbour, which must not reach it.
fn answers(sandbox: &Sandbox) -> [String; 4] {
    let ask = |to: &str, port: u16| {
        format!("timeout 2 socat -T1 - TCP4:{to}:{port},connect-timeout=0.3 < /dev/null 2> /dev/null || true")
    };
    let (a, b) = (address(sandbox, "a"), address(sandbox, "b"));
    let inside = |script: String| sandbox.sh(&format!("ip netns exec b {script}"));
    let outcomes = [
        sandbox.outside(&ask(HOST, 8080)),
        inside(ask(OUTSIDE, 80)),
        inside(ask(&a, 80)),
        sandbox.outside(&ask(&b, 80)),
    ];
    outcomes.map(|outcome| outcome.ok().trim().to_owned())
}

const THROUGH: [&str; 4] = ["a", "outside", "a", ""];
const DROPPED: [&str; 4] = ["", "", "", ""];

/// What `netns-bridge --check` says of a, without its last line.
fn check(sandbox: &Sandbox) -> String {
    let checked = sandbox.sh("netns-bridge --check < a.json > /dev/null");
    let summary = "netns-bridge: 1 of the things that the document lists is not as listed\n";
    let said = checked.stderr.strip_suffix(summary).unwrap_or(&checked.stderr).to_owned();
    assert_eq!(checked.status != 0, !said.is_empty(), "{}", checked.stderr);
    said
}

fn repair(sandbox: &Sandbox) {
    sandbox.sh("netns-bridge --repair < a.json > /dev/null").ok();
}

const IN_IPTABLES: &str = "netns-bridge: missing: a rule for bridge \"stave0\" in chain FORWARD of table ip filter, which drops its \
    packets (--repair adds it)\n";
const IN_LEGACY: &str = "netns-bridge: missing: a rule for bridge \"stave0\" in chain FORWARD of table filter of iptables-legacy, which \
    drops its packets (--repair adds it)\n";

/// The rules as `iptables-save` prints them, without times and counts.
fn saved(sandbox: &Sandbox, program: &str) -> String {
    sandbox.sh(&format!("{program}-save | sed '/^#/d; s/ \\[.*//'")).ok()
}

const RULES: &str = "-A FORWARD -i stave0 -m comment --comment \"stave stave0\" -j ACCEPT\n\
    -A FORWARD -o stave0 -m comment --comment \"stave stave0\" -j ACCEPT\n";

#[test]
fn iptables_in_both_forms() {
    // Chains with jumps, rules without a verdict, and rules behind ours.
    let rules = "$P -N LOGS && $P -A LOGS -p tcp --dport 9 -j RETURN && $P -A FORWARD -j LOGS && $P -A FORWARD -m comment --comment on
        $P -A FORWARD -s 10.0.0.0/8 -g LOGS; $P -A INPUT -i lo -j LOGS; $P -A OUTPUT -p udp; $P -P FORWARD DROP";
    for program in ["iptables-nft", "iptables-legacy"] {
        let sandbox = host();
        sandbox.sh(&rules.replace("$P", program)).ok();
        let before = saved(&sandbox, program);
        containers(&sandbox, "");
        assert_eq!(answers(&sandbox), THROUGH, "{program}");
        let with = saved(&sandbox, program);
        assert!(with.contains(&format!("-g LOGS\n{RULES}")), "{with}");
        assert_eq!(with.replace(RULES, ""), before);
        sandbox.sh(&format!("{program}-save | {program}-restore")).ok();
        assert_eq!(saved(&sandbox, program), with);
        assert_eq!(check(&sandbox), "");
        // A rule in front of ours that drops all, as others end their chain; and one more chain behind it.
        sandbox
            .sh(&format!("{program} -I FORWARD -j REJECT; {program} -N MORE; {program} -A FORWARD -j MORE"))
            .ok();
        assert_eq!(check(&sandbox), if program == "iptables-nft" { IN_IPTABLES } else { IN_LEGACY });
        repair(&sandbox);
        assert_eq!(answers(&sandbox), THROUGH, "{program}");
        let undo = "$P -D FORWARD -j REJECT; $P -D FORWARD -j MORE; $P -X MORE".replace("$P", program);
        sandbox.sh(&undo).ok();
        unwind(&sandbox, "b");
        assert!(saved(&sandbox, program).contains(RULES), "the first container goes with the last one");
        unwind(&sandbox, "a");
        assert_eq!(saved(&sandbox, program), before);
        unwind(&sandbox, "a");
    }
}

#[test]
fn counts_of_rules_that_stay() {
    let sandbox = host();
    let counts = |rule: &str| sandbox.sh(&format!("iptables-legacy-save -c | grep -e '{rule}'")).ok();
    sandbox.sh("iptables-legacy -A INPUT -i lo -m comment --comment counted; for n in 1 2 3; do echo | socat - UDP4:127.0.0.1:9; done; iptables-legacy -P FORWARD DROP").ok();
    let before = counts("counted");
    assert!(before.contains(" -A INPUT") && !before.starts_with("[0:"), "{before}");
    containers(&sandbox, "");
    assert_eq!(counts("counted"), before);
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    assert_eq!(counts("counted"), before);
}

#[test]
fn a_policy_that_comes_later_is_told_and_repaired() {
    let sandbox = host();
    containers(&sandbox, "");
    assert_eq!(answers(&sandbox), THROUGH);
    let before = sandbox.sh("iptables -S; nft -s list ruleset").ok();
    assert!(!before.contains("stave stave0"), "where nothing drops there is no rule: {before}");
    sandbox.sh("iptables -P FORWARD DROP").ok();
    assert_eq!(answers(&sandbox), DROPPED);
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    assert_eq!(check(&sandbox), "");
    // As a firewall does that loads its rules anew.
    sandbox.sh("iptables -F FORWARD").ok();
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    // The other form of iptables takes over, and the rules of the first one stay.
    sandbox.sh("iptables-legacy -P FORWARD DROP").ok();
    assert_eq!(check(&sandbox), IN_LEGACY);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    for program in ["iptables-nft", "iptables-legacy"] {
        assert!(!saved(&sandbox, program).contains("stave0"), "{program}");
    }
    // Chain and table are gone before us.
    containers(&sandbox, "");
    sandbox.sh("nft delete table ip filter").ok();
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
}

fn nft(sandbox: &Sandbox, rules: &str) {
    sandbox.sh_with("nft -f -", rules.as_bytes()).ok();
}

#[test]
fn chains_of_nftables() {
    let sandbox = host();
    let rules = "
table inet fw {
    chain refuse { meta l4proto 1 accept; reject; }
    chain forward {
        type filter hook forward priority 10; policy accept;
        ct state established,related accept
        jump refuse
    }
}
table ip fw {
    chain f {
        type filter hook forward priority -5; policy drop;
        iifname other* accept
    }
}
table ip6 fw {
    chain f { type filter hook forward priority 0; policy drop; }
}
";
    nft(&sandbox, rules);
    let before = sandbox.sh("nft -s list ruleset").ok();
    containers(&sandbox, "");
    assert_eq!(answers(&sandbox), THROUGH);
    let with = sandbox.sh("nft -s list table inet fw; nft -s list table ip fw").ok();
    let ours = |of: &str| {
        ["iifname", "oifname"]
            .map(|way| format!("\t\t{of}{way} \"stave0\" accept comment \"stave stave0\"\n"))
            .concat()
    };
    // Nothing guards IPv6 of our bridges but this firewall.
    assert!(with.contains(&format!("{}\t\tjump refuse", ours("meta nfproto ipv4 "))), "{with}");
    assert!(with.contains(&format!("accept\n{}\t}}", ours(""))), "{with}");
    assert_eq!(check(&sandbox), "");
    sandbox
        .sh("nft flush chain inet fw forward; nft flush chain ip fw f; nft add rule inet fw forward reject")
        .ok();
    assert_eq!(
        check(&sandbox),
        "netns-bridge: missing: a rule for bridge \"stave0\" in chain f of table ip fw and chain forward of table inet fw, which drops its \
         packets (--repair adds it)\n"
    );
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    // As earlier versions wrote it: it goes as well.
    let earlier = "oifname stave0 accept comment \\\"stave stave0\\\"";
    sandbox.sh(&format!("nft insert rule inet fw forward \"{earlier}\"")).ok();
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    let left = sandbox.sh("nft -s list ruleset").ok();
    assert!(!left.contains("stave stave0"), "{left}");
    nft(
        &sandbox,
        &format!(
            "delete table inet fw; delete table ip fw; delete table ip6 fw
{rules}"
        ),
    );
    assert_eq!(sandbox.sh("nft -s list ruleset").ok(), before);
    // An administrator who lets the bridge through needs no rule of ours.
    nft(
        &sandbox,
        "flush ruleset
table ip fw {
    chain f {
        type filter hook forward priority 0; policy drop;
        iifname stave* accept
        oifname stave0 counter accept
    }
}
",
    );
    let own = sandbox.sh("nft -s list table ip fw").ok();
    containers(&sandbox, "");
    assert_eq!(answers(&sandbox), THROUGH);
    assert_eq!(sandbox.sh("nft -s list table ip fw").ok(), own);
}

/// What drops IPv6 is let through for a bridge that has it, and stays shut for one that has not.
#[test]
fn ipv6_as_well() {
    let sandbox = host();
    sandbox
        .sh("ip address add 2001:db8::1/64 dev out0 nodad
             ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -p udp --dport 9 -j ACCEPT")
        .ok();
    nft(
        &sandbox,
        "table inet fw {
    chain forward {
        type filter hook forward priority 10; policy accept;
        meta nfproto ipv6 drop
    }
}
",
    );
    sandbox
        .outside("ip address add 2001:db8::2/64 dev eth0 nodad
                  socat TCP6-LISTEN:81,ipv6only,fork,reuseaddr SYSTEM:'echo outside' > /dev/null 2>&1 < /dev/null &
                  until ss -6Hlnt | grep -q ':81 '; do sleep 0.01; done")
        .ok();
    let before = sandbox.sh("nft -s list ruleset").ok();
    let make = "netns-bridge -n --id a --subnet6 fd01:5::/64 | veth-pair | portmap -p 8080:80 > a.json";
    sandbox.sh(make).ok();
    sandbox.serve("a", "TCP6-LISTEN:80", "a");
    let passes = || {
        let into = sandbox.ask("outside", "TCP6:[2001:db8::1]:8080");
        let out = sandbox.within("a", "timeout 2 socat -T1 - TCP6:[2001:db8::2]:81 < /dev/null").ok();
        (into.starts_with("a "), out.trim() == "outside")
    };
    // A neighbour that has not answered the first question is asked again after a second.
    wait_for("both ways", Duration::from_secs(10), || passes() == (true, true));
    let with = sandbox.sh("nft -s list table inet fw; nft -s list table ip6 filter").ok();
    for (of, rules) in [("meta nfproto ipv6 ", 2), ("", 4)] {
        let ours = with.matches(&format!("{of}iifname \"stave0\"")).count()
            + with.matches(&format!("{of}oifname \"stave0\"")).count();
        assert_eq!(ours, rules, "{with}");
    }
    sandbox.sh("nft flush chain ip6 filter FORWARD").ok();
    assert_eq!(
        check(&sandbox),
        "netns-bridge: missing: a rule for bridge \"stave0\" in chain FORWARD of table ip6 filter, which drops its packets \
         (--repair adds it)\n"
    );
    repair(&sandbox);
    wait_for("both ways again", Duration::from_secs(10), || passes() == (true, true));
    unwind(&sandbox, "a");
    sandbox.sh("ip6tables-nft -A FORWARD -p udp --dport 9 -j ACCEPT").ok();
    assert_eq!(sandbox.sh("nft -s list ruleset").ok(), before);
    containers(&sandbox, "");
    assert_eq!(sandbox.sh("nft -s list ruleset | grep -c 'stave stave0'").stdout, "0\n");
}

#[test]
fn a_firewall_is_chosen() {
    let sandbox = host();
    let refused = sandbox.sh("netns-bridge -n --id a --firewall iptables > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "netns-bridge: let bridge \"stave0\" through iptables: it has no chain for forwarded packets\n\
         hint: --firewall auto finds out which firewall drops its packets, if any\n"
    );
    let absent = sandbox.sh("netns-bridge -n --id a --firewall firewalld > /dev/null").exits(1);
    assert_eq!(
        absent.stderr,
        "netns-bridge: ask firewalld about bridge \"stave0\": it is not on the system bus\n\
         hint: firewalld must be reachable at /run/dbus/system_bus_socket; or use --firewall none\n"
    );
    let unknown = sandbox.sh("netns-bridge -n --id a --firewall ufw > /dev/null").exits(2);
    assert!(unknown.stderr.contains("auto, iptables, nftables, firewalld, none"), "{}", unknown.stderr);
    // A certain one gets the rules before it drops anything.
    sandbox.sh("iptables -P FORWARD ACCEPT; netns-bridge -n --id z --firewall iptables > z.json").ok();
    sandbox.sh("iptables -P FORWARD DROP; unwind < z.json").ok();
    containers(&sandbox, "--firewall none");
    assert_eq!(answers(&sandbox), DROPPED);
    assert_eq!(check(&sandbox), "");
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    nft(&sandbox, "add table ip fw\nadd chain ip fw f { type filter hook forward priority 0; }\n");
    containers(&sandbox, "--firewall nftables");
    assert_eq!(
        check(&sandbox),
        "netns-bridge: differs: chain FORWARD of table ip filter drops packets of bridge \"stave0\", and --firewall nftables leaves it so\n"
    );
    let lines = sandbox.sh("netns-bridge --explain -n --id c --firewall iptables | tail -n 2").ok();
    assert_eq!(
        lines,
        "nft add rule ip filter FORWARD 'iifname \"stave0\" accept comment \"stave stave0\"'\n\
         nft add rule ip filter FORWARD 'oifname \"stave0\" accept comment \"stave stave0\"'\n"
    );
    sandbox.sh(&lines).ok();
    assert_eq!(answers(&sandbox), THROUGH, "the lines do what they say");
}

#[test]
fn the_last_container_of_whichever_run_directory_takes_the_rules() {
    let sandbox = host();
    sandbox.sh("iptables -P FORWARD DROP; netns-bridge -n --id a > a.json; STAVE_RUN=/run/other netns-bridge -n --id b > b.json").ok();
    unwind(&sandbox, "a");
    assert!(saved(&sandbox, "iptables").contains(RULES));
    sandbox.sh("STAVE_RUN=/run/other unwind < b.json").ok();
    assert!(!saved(&sandbox, "iptables").contains("stave0"));
}

#[test]
fn the_last_container_takes_the_rules_of_others_with_it() {
    let sandbox = host();
    sandbox.sh("iptables -P FORWARD DROP").ok();
    let before = saved(&sandbox, "iptables");
    for [first, second] in [["auto", "none"], ["none", "auto"]] {
        for order in [["a", "b"], ["b", "a"]] {
            sandbox.sh(&format!("netns-bridge -n --id a --firewall {first} > a.json; netns-bridge -n --id b --firewall {second} > b.json")).ok();
            unwind(&sandbox, order[0]);
            assert!(saved(&sandbox, "iptables").contains(RULES), "{first} {order:?}");
            unwind(&sandbox, order[1]);
            assert_eq!(saved(&sandbox, "iptables"), before, "{first} {order:?}");
        }
    }
}

#[test]
fn net_repair_lets_the_bridges_through() {
    let sandbox = host();
    containers(&sandbox, "");
    sandbox
        .sh("netns-bridge -n --id c --bridge other0 --firewall none > c.json; iptables -P FORWARD DROP")
        .ok();
    let explained = sandbox.sh("net-repair --all --explain").ok();
    assert_eq!(explained.matches("comment \"stave stave0\"").count(), 2, "{explained}");
    assert!(!explained.contains("stave other0"), "{explained}");
    let rule = "a rule for bridge \"stave0\" in chain FORWARD of table ip filter, which drops its packets (--repair adds it)";
    let repaired = sandbox.sh("net-repair --all").json();
    assert_eq!(repaired.pointer("/0/restored/0").unwrap(), rule, "{repaired}");
    assert_eq!(repaired.pointer("/1/restored").unwrap().as_array().unwrap().len(), 0, "{repaired}");
    assert_eq!(answers(&sandbox), THROUGH);
    // The program that watches sees a firewall that is loaded anew.
    sandbox.sh("(net-guard > guard.log 2>&1 & echo $! > guard.pid); sleep 0.3; iptables -F FORWARD").ok();
    sandbox
        .sh("for try in $(seq 50); do iptables -S | grep -q stave0 && exit; sleep 0.05; done; exit 1")
        .ok();
    assert_eq!(answers(&sandbox), THROUGH);
    sandbox.sh("kill $(cat guard.pid)").ok();
}

#[test]
fn stave_run_passes_the_flag_on() {
    let sandbox = Sandbox::with_busybox();
    let stave = testkit::repository().join("scripts/stave").display().to_string();
    sandbox.sh("iptables -P FORWARD DROP").ok();
    for (flag, has_rules) in [("", true), ("--firewall none", false), ("--firewall=iptables", true)] {
        sandbox.sh(&format!("{stave} run -d --name web {flag} busybox sleep 1000")).ok();
        assert_eq!(saved(&sandbox, "iptables").contains(RULES), has_rules, "{flag}");
        sandbox.sh(&format!("{stave} rm -f web")).ok();
        assert!(!saved(&sandbox, "iptables").contains("stave0"), "{flag}");
    }
}

#[test]
fn killed_at_any_change_it_leaves_nothing() {
    for (program, calls) in [("iptables-nft", "sendto"), ("iptables-legacy", "setsockopt,flock")] {
        let sandbox = host();
        sandbox.sh(&format!("{program} -P FORWARD DROP")).ok();
        let before = sandbox.snapshot();
        let rules = saved(&sandbox, program);
        for (what, run) in [
            ("made", "netns-bridge -n --id a > a.json"),
            ("undone", "netns-bridge --undo < a.json > /dev/null"),
        ] {
            let mut killed = 0;
            for at in 1.. {
                if what == "undone" {
                    sandbox.sh("netns-bridge -n --id a > a.json").ok();
                }
                let kill = format!(
                    "strace -f -o /dev/null -e trace={calls} -e inject={calls}:signal=KILL:when={at}"
                );
                let ended = sandbox.sh(&format!("{kill} {run}")).status;
                sandbox.sh("unwind a 2> /dev/null || true").ok();
                assert_eq!(saved(&sandbox, program), rules, "{program} {what}, killed at call {at}");
                if ended == 0 {
                    break;
                }
                killed += 1;
            }
            assert!(killed > 1, "{program} {what}: {killed}");
        }
        sandbox.assert_as(&before);
    }
}

/// Gives the sandbox directories of its own in the place of these, with the same content.
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

#[test]
fn firewalld() {
    let sandbox = host();
    own(&sandbox, "/etc/firewalld");
    sandbox
        .sh("mkdir -p /run/dbus && (dbus-daemon --system --nofork --nopidfile > dbus.log 2>&1 &)
             until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
             (firewalld --nofork --nopid > firewalld.log 2>&1 &)
             for try in $(seq 100); do firewall-cmd --state > /dev/null 2>&1 && break; sleep 0.1; done; firewall-cmd --state")
        .ok();
    let zones = || sandbox.sh("firewall-cmd --get-active-zones").ok();
    containers(&sandbox, "");
    assert_eq!(zones(), "trusted\n  interfaces: stave0\n");
    assert_eq!(answers(&sandbox), THROUGH);
    assert_eq!(check(&sandbox), "");
    sandbox.sh("firewall-cmd --reload").ok();
    assert_eq!(
        check(&sandbox),
        "netns-bridge: missing: a rule for bridge \"stave0\" in firewalld, which drops its packets (--repair adds it)\n"
    );
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    unwind(&sandbox, "a");
    assert_eq!(zones(), "trusted\n  interfaces: stave0\n");
    unwind(&sandbox, "b");
    assert_eq!(zones(), "");
    // What the administrator configured stays, and a zone of his choice is not changed.
    sandbox
        .sh("firewall-cmd --permanent --zone=trusted --add-interface=stave0 && firewall-cmd --reload")
        .ok();
    sandbox.sh("netns-bridge -n --id c | unwind > /dev/null").ok();
    assert_eq!(zones(), "trusted\n  interfaces: stave0\n");
    // So does what somebody did before, until firewalld loads its rules anew.
    sandbox
        .sh("firewall-cmd --permanent --zone=trusted --remove-interface=stave0 && firewall-cmd --reload")
        .ok();
    sandbox.sh("firewall-cmd --zone=trusted --add-interface=stave0").ok();
    containers(&sandbox, "");
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    assert_eq!(zones(), "trusted\n  interfaces: stave0\n");
    sandbox.sh("firewall-cmd --zone=work --change-interface=stave0").ok();
    let refused = sandbox.sh("netns-bridge -n --id c > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "netns-bridge: add bridge \"stave0\" to zone trusted of firewalld: it is in zone work\n\
         hint: firewall-cmd --zone=trusted --change-interface=stave0, or --firewall none\n"
    );
    assert_eq!(zones(), "work\n  interfaces: stave0\n");
    // Another network namespace of the same machine, whose firewall this is not.
    sandbox.sh("unshare --net netns-bridge -n --id d | unshare --net unwind > /dev/null").ok();
    assert_eq!(zones(), "work\n  interfaces: stave0\n");
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
    // A network that Docker adds later comes before our rules, and starting Docker anew changes nothing.
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
    // Some versions set this policy only where they switched ip_forward on.
    sandbox.sh("iptables -P FORWARD DROP").ok();
    assert_eq!(answers(&sandbox), DROPPED);
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
}
