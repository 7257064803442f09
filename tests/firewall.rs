//! Containers beside the host's own firewall: packets that it drops are let through, missing rules are
//! reported and repaired, and the rules go with the last container. With real iptables in both forms,
//! and nftables.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod barrier;

use std::time::Duration;

use barrier::*;
use testkit::{Sandbox, wait_for};

#[test]
fn iptables_in_both_forms() {
    // Chains with jumps, rules without a verdict, and rules after ours.
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
        // A rule before ours that drops everything, as others end their chain, and another chain after it.
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
    // Like a firewall that reloads its rules.
    sandbox.sh("iptables -F FORWARD").ok();
    assert_eq!(check(&sandbox), IN_IPTABLES);
    repair(&sandbox);
    // The other form of iptables takes over, and the first form's rules stay.
    sandbox.sh("iptables-legacy -P FORWARD DROP").ok();
    assert_eq!(check(&sandbox), IN_LEGACY);
    repair(&sandbox);
    assert_eq!(answers(&sandbox), THROUGH);
    unwind(&sandbox, "a");
    unwind(&sandbox, "b");
    for program in ["iptables-nft", "iptables-legacy"] {
        assert!(!saved(&sandbox, program).contains("stave0"), "{program}");
    }
    // Chain and table are removed before our rules are.
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
    // Only this firewall guards IPv6 on our bridges.
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
    // A rule as an earlier version wrote it is removed as well.
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

/// Makes the container a with IPv6. Port 80 of a is published as 8080, and a neighbour outside has a server.
fn container_with_ipv6(sandbox: &Sandbox) {
    sandbox
        .outside("ip address add 2001:db8::2/64 dev eth0 nodad
                  socat TCP6-LISTEN:81,ipv6only,fork,reuseaddr SYSTEM:'echo outside' > /dev/null 2>&1 < /dev/null &
                  until ss -6Hlnt | grep -q ':81 '; do sleep 0.01; done")
        .ok();
    sandbox
        .sh("ip address add 2001:db8::1/64 dev out0 nodad
             netns-bridge -n --id a --subnet6 fd01:5::/64 | veth-pair | portmap -p 8080:80 > a.json")
        .ok();
    sandbox.serve("a", "TCP6-LISTEN:80", "a");
}

/// Asserts that IPv6 passes into the container a and out of it.
#[track_caller]
fn assert_passes6(sandbox: &Sandbox) {
    let passes = || {
        let into = sandbox.ask("outside", "TCP6:[2001:db8::1]:8080");
        let out = sandbox.within("a", "timeout 2 socat -T1 - TCP6:[2001:db8::2]:81 < /dev/null").ok();
        (into.starts_with("a "), out.trim() == "outside")
    };
    // If a neighbour has not answered the first solicitation, the kernel asks again after a second.
    wait_for("both ways", Duration::from_secs(10), || passes() == (true, true));
}

/// IPv6 is let through for a bridge that has it, and stays blocked for a bridge without it.
#[test]
fn ipv6_as_well() {
    let sandbox = host();
    sandbox.sh("ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -p udp --dport 9 -j ACCEPT").ok();
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
    let before = sandbox.sh("nft -s list ruleset").ok();
    container_with_ipv6(&sandbox);
    assert_passes6(&sandbox);
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
    assert_passes6(&sandbox);
    unwind(&sandbox, "a");
    sandbox.sh("ip6tables-nft -A FORWARD -p udp --dport 9 -j ACCEPT").ok();
    assert_eq!(sandbox.sh("nft -s list ruleset").ok(), before);
    containers(&sandbox, "");
    assert_eq!(sandbox.sh("nft -s list ruleset | grep -c 'stave stave0'").stdout, "0\n");
}

#[test]
fn ipv6_in_the_older_form() {
    let sandbox = host();
    let program = "ip6tables-legacy";
    sandbox
        .sh(&"$P -N LOGS && $P -A LOGS -p tcp --dport 9 -j RETURN && $P -A FORWARD -j LOGS && $P -A FORWARD -m comment --comment on
            $P -A FORWARD -s fd09::/16 -g LOGS; $P -A INPUT -i lo -j LOGS; $P -A OUTPUT -p udp; $P -P FORWARD DROP".replace("$P", program))
        .ok();
    let before = saved(&sandbox, program);
    container_with_ipv6(&sandbox);
    assert_passes6(&sandbox);
    let with = saved(&sandbox, program);
    assert!(with.contains(&format!("-g LOGS\n{RULES}")), "{with}");
    assert_eq!(with.replace(RULES, ""), before);
    sandbox.sh(&format!("{program}-save | {program}-restore")).ok();
    assert_eq!(saved(&sandbox, program), with);
    assert_eq!(check(&sandbox), "");
    sandbox.sh(&format!("{program} -I FORWARD -j REJECT")).ok();
    assert_eq!(check(&sandbox), IN_LEGACY.replace("iptables", "ip6tables"));
    repair(&sandbox);
    assert_passes6(&sandbox);
    sandbox.sh(&format!("{program} -D FORWARD -j REJECT")).ok();
    unwind(&sandbox, "a");
    assert_eq!(saved(&sandbox, program), before);
    // A bridge without IPv6 has no rule there.
    containers(&sandbox, "");
    assert_eq!(saved(&sandbox, program), before);
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
    // A firewall that is named gets the rules even before it drops anything.
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
    // net-guard notices a firewall that reloads.
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
