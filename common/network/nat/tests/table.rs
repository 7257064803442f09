//! The table as nft shows it. Needs root and nft: each test runs in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use nat::{Mode, NatOperation as Nat};
use operation::{Condition, Operation, undo_all};

use common::*;

const LISTED: &str = r#"table inet stave {
	map published {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 10080 comment "web" : 172.17.0.2 . 80,
			     udp . 10053 comment "web" : 172.17.0.2 . 53,
			     sctp . 7 comment "web" : 172.18.0.2 . 7 }
	}

	map published6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = { tcp . 10080 comment "web" : fd00:17::2 . 80 }
	}

	map published_at {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 127.0.0.1 . tcp . 10443 comment "web" : 172.17.0.2 . 443 }
	}

	map published_at6 {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		elements = { fd00:9::1 . udp . 10443 comment "web" : fd00:17::2 . 443 }
	}

	map ranges {
		type inet_proto . inet_service : ipv4_addr
		flags interval
	}

	map ranges6 {
		type inet_proto . inet_service : ipv6_addr
		flags interval
	}

	map ranges_at {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr
		flags interval
	}

	map ranges_at6 {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr
		flags interval
	}

	set bridges {
		type ipv4_addr . ifname
		flags interval
		elements = { 172.17.0.0/16 . "stave0",
			     127.0.0.0/8 . "stave0",
			     172.18.0.0/16 . "br1",
			     127.0.0.0/8 . "br1" }
	}

	set bridges6 {
		type ipv6_addr . ifname
		flags interval
		elements = { fd00:17::/64 . "stave0",
			     ::1 . "stave0" }
	}

	set subnets {
		type ipv4_addr
		flags interval
		elements = { 172.17.0.0/16, 172.18.0.0/16 }
	}

	set subnets6 {
		type ipv6_addr
		flags interval
		elements = { fd00:17::/64 }
	}

	set same_bridge {
		type ifname . ifname
		elements = { "stave0" . "stave0",
			     "br1" . "br1" }
	}

	set routed {
		type ifname . ifname
	}

	set internal {
		type ifname . ifname
	}

	set isolated {
		type ifname . ifname
	}

	set linked {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service
	}

	set linked6 {
		type ipv6_addr . ipv6_addr . inet_proto . inet_service
	}

	set open {
		type ipv4_addr . inet_proto . inet_service
	}

	set open6 {
		type ipv6_addr . inet_proto . inet_service
	}

	set users {
		type ifname . ifname
		elements = { "stave0" . "vweb" comment "web" }
	}

	set addresses {
		type ipv4_addr
		elements = { 172.17.0.2 comment "web" }
	}

	set addresses6 {
		type ipv6_addr
		elements = { fd00:17::2 comment "web" }
	}

	chain martians {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "lo" ip saddr 127.0.0.0/8 drop
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
		fib daddr type local dnat ip to meta l4proto . th dport map @published
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ranges_at
		fib daddr type local dnat ip to meta l4proto . th dport map @ranges
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @published_at6
		fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges_at6
		fib daddr type local dnat ip6 to meta l4proto . th dport map @ranges6
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname . oifname @internal iifname . oifname != @same_bridge drop
		iifname . iifname @internal iifname . oifname != @same_bridge drop
		iifname . oifname @isolated ip saddr . ip daddr . meta l4proto . th dport @linked accept
		iifname . oifname @isolated ip6 saddr . ip6 daddr . meta l4proto . th dport @linked6 accept
		iifname . oifname @isolated ct status ! dnat ct state invalid,new,untracked drop
		ip daddr . meta l4proto . th dport @open accept
		oifname . oifname @routed icmp type echo-request accept
		ip6 daddr . meta l4proto . th dport @open6 accept
		oifname . oifname @routed icmpv6 type echo-request accept
		oifname . oifname @same_bridge iifname . oifname != @same_bridge ct status ! dnat ct state invalid,new,untracked drop
	}

	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
		fib daddr type local dnat ip to meta l4proto . th dport map @published
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ranges_at
		fib daddr type local dnat ip to meta l4proto . th dport map @ranges
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @published_at6
		fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges_at6
		fib daddr type local dnat ip6 to meta l4proto . th dport map @ranges6
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat ip saddr . oifname @bridges masquerade
		ip saddr @subnets ip saddr . oifname != @bridges masquerade
		ct status dnat ip6 saddr . oifname @bridges6 masquerade
		ip6 saddr @subnets6 ip6 saddr . oifname != @bridges6 masquerade
	}
}
"#;

/// The lines, sorted, because the elements of a hash have no order.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .replace("elements = {", "\n")
        .lines()
        .flat_map(|line| line.split(", "))
        .map(|line| line.trim().trim_end_matches(['}', ',', ' ']).to_owned())
        .collect();
    lines.sort();
    lines
}

#[test]
fn nft_lists_what_was_meant() {
    sandbox(|| {
        let mut list = example();
        for operation in &mut list {
            operation.apply(&scope()).unwrap();
            operation.apply(&scope()).unwrap();
        }
        for operation in &list {
            assert_eq!(operation.check(&scope()).unwrap(), Condition::Present);
        }
        assert_eq!(sorted(&sh("nft list ruleset")), sorted(LISTED));
        let json = sh("nft -j list ruleset");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let rules = json["nftables"].as_array().unwrap().iter().filter(|object| object.get("rule").is_some());
        assert_eq!(rules.count(), 32, "however many ports and bridges");
        assert!(undo_all(&list, &scope()).is_empty());
        assert!(undo_all(&list, &scope()).is_empty());
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn the_explanation_typed_by_a_person_does_the_same() {
    sandbox(|| {
        let list = [bridge("stave0", "172.17.0.0/16"), example().pop().unwrap()];
        for line in list.iter().flat_map(Operation::explain) {
            if !line.starts_with("conntrack ") {
                sh(&line);
            }
        }
        let typed = sh("nft -s list ruleset");
        for operation in &list {
            assert_eq!(operation.check(&scope()).unwrap(), Condition::Present, "{typed}");
        }
        assert!(undo_all(&list, &scope()).is_empty());
        for mut operation in list {
            operation.apply(&scope()).unwrap();
        }
        assert_eq!(sorted(&typed), sorted(&sh("nft -s list ruleset")));
    });
}

#[test]
fn explained_to_the_letter() {
    let lines: Vec<_> = example().iter().flat_map(Operation::explain).collect();
    for line in [
        "nft add table inet stave",
        "nft add map inet stave published '{ type inet_proto . inet_service : ipv4_addr . inet_service; }'",
        "nft add set inet stave bridges '{ type ipv4_addr . ifname; flags interval; }'",
        "nft add chain inet stave prerouting '{ type nat hook prerouting priority dstnat; policy accept; }'",
        "nft add rule inet stave martians 'iifname != \"lo\" ip daddr 127.0.0.0/8 drop'",
        "nft add rule inet stave forward 'oifname . oifname @same_bridge iifname . oifname != @same_bridge ct status ! dnat ct state invalid,new,untracked drop'",
        "nft add element inet stave same_bridge '{ \"stave0\" . \"stave0\" }'",
        "nft add rule inet stave postrouting 'ip saddr @subnets ip saddr . oifname != @bridges masquerade'",
        "nft add element inet stave bridges '{ 172.17.0.0/16 . \"stave0\" }'",
        "nft add element inet stave published '{ tcp . 10080 comment \"web\" : 172.17.0.2 . 80 }'",
        "nft add element inet stave published_at '{ 127.0.0.1 . tcp . 10443 comment \"web\" : 172.17.0.2 . 443 }'",
        "conntrack -D -p udp --orig-port-dst 10053",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
    }
}

#[test]
fn what_is_missing_is_found_and_made_again() {
    sandbox(|| {
        let mut bridge = bridge("stave0", "172.17.0.0/16");
        bridge.apply(&scope()).unwrap();
        let whole = sh("nft list ruleset");
        for damage in [
            "nft flush chain inet stave postrouting",
            "nft add rule inet stave output counter",
            "nft insert rule inet stave prerouting drop",
            "nft flush set inet stave bridges",
            "nft flush set inet stave subnets",
            "nft flush set inet stave same_bridge",
            "nft flush chain inet stave forward",
            "nft flush ruleset",
            "nft delete rule inet stave martians handle $(nft -a list chain inet stave martians | grep -o 'handle [0-9]*$' | tail -1 | cut -d' ' -f2)",
        ] {
            sh(damage);
            assert!(matches!(bridge.check(&scope()).unwrap(), Condition::Missing(_)), "{damage}");
            bridge.apply(&scope()).unwrap();
            assert_eq!(bridge.check(&scope()).unwrap(), Condition::Present, "{damage}");
            assert_eq!(sorted(&sh("nft list ruleset")), sorted(&whole), "{damage}");
        }
        // A set of another type under our name is not ours to change.
        sh(
            "nft flush ruleset; nft add table inet stave; nft add set inet stave subnets '{ type inet_service; }'",
        );
        assert!(matches!(bridge.check(&scope()).unwrap(), Condition::Different(_)));
        assert_eq!(bridge.apply(&scope()).unwrap_err().to_string(), "add table inet stave: File exists");
    });
}

#[test]
fn a_host_that_was_closed_stays_so_as_long_as_the_table_stands() {
    const CLOSING: &str =
        "meta nfproto ipv4 iifname . iifname != @same_bridge oifname . oifname != @same_bridge drop";
    sandbox(|| {
        let closes = || sh("nft list chain inet stave forward").contains(CLOSING);
        bridge("br1", "172.18.0.0/16").apply(&scope()).unwrap();
        assert!(!closes());
        let subnet = "172.17.0.0/16".parse().unwrap();
        let mut closed = Nat::Bridge {
            bridge: "stave0".into(),
            subnet,
            user: None,
            subnet6: None,
            closed: true,
            closed6: false,
            mode: Mode::default(),
        };
        assert!(matches!(closed.check(&scope()).unwrap(), Condition::Missing(_)));
        closed.apply(&scope()).unwrap();
        assert!(closes());
        let mut other = bridge("br2", "172.19.0.0/16");
        other.apply(&scope()).unwrap();
        assert!(closes() && other.check(&scope()).unwrap() == Condition::Present);
        closed.undo(&scope()).unwrap();
        assert!(closes(), "another bridge stands");
        let explained = closed.explain();
        assert!(
            explained.contains(&format!("nft add rule inet stave forward '{CLOSING}'")),
            "{explained:#?}"
        );
    });
}

#[test]
fn a_table_that_somebody_removed_is_made_again_for_all() {
    sandbox(|| {
        let mut operations = example();
        operations.iter_mut().try_for_each(|operation| operation.apply(&scope())).unwrap();
        let whole = sorted(&sh("nft list ruleset"));
        let restore = |operations: Option<Vec<Nat>>| {
            let recorded =
                || operations.ok_or_else(|| nat::Error::new("read", "records", nix::errno::Errno::EIO));
            nat::restore(&scope(), recorded)
        };
        restore(None).unwrap(); // It stands: nobody asks for the records.
        sh("nft flush ruleset");
        restore(None).unwrap_err();
        // The order of the records does not matter.
        operations.reverse();
        restore(Some(operations)).unwrap();
        assert_eq!(sorted(&sh("nft list ruleset")), whole);
    });
}

/// The content of a table of family `ip`, as versions before 0.2 made it, is moved to our table,
/// and no rule is missing in between.
#[test]
fn the_table_of_a_former_version_is_taken_over() {
    const FORMER: &str = r#"
        table ip stave {
            map published { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 80 comment "old" : 172.17.0.9 . 80 }; }
            map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
            set bridges { type ipv4_addr . ifname; flags interval; elements = { 172.17.0.0/16 . "stave0", 127.0.0.0/8 . "stave0" }; }
            set subnets { type ipv4_addr; flags interval; elements = { 172.17.0.0/16 }; }
            set same_bridge { type ifname . ifname; elements = { "stave0" . "stave0" }; }
            set addresses { type ipv4_addr; elements = { 172.17.0.9 comment "old" }; }
            chain forward {
                type filter hook forward priority filter; policy accept;
                iifname . iifname != @same_bridge oifname . oifname != @same_bridge drop
            }
        }"#;
    sandbox(|| {
        sh(&format!("nft '{FORMER}'"));
        let mut new = used("br1", "172.18.0.0/16", "web", "/run/stave");
        assert!(matches!(new.check(&scope()).unwrap(), Condition::Missing(_)));
        assert!(sh("nft list tables").contains("ip stave"), "to look changes nothing");
        new.apply(&scope()).unwrap();
        let ruleset = sh("nft list ruleset");
        assert!(!ruleset.contains("table ip stave"), "{ruleset}");
        for part in [
            "tcp . 80 comment \"old\" : 172.17.0.9 . 80",
            "elements = { 172.17.0.0/16, 172.18.0.0/16 }",
            "172.17.0.9 comment \"old\"",
            "meta nfproto ipv4 iifname . iifname != @same_bridge oifname . oifname != @same_bridge drop",
        ] {
            assert!(ruleset.contains(part), "{part}: {ruleset}");
        }
        // The operations that a container of that version recorded are present, and can be undone.
        let old = [bridge("stave0", "172.17.0.0/16"), publish("old", &["tcp * 80 172.17.0.9 80"])];
        assert_eq!(nat::conditions(&old).unwrap(), vec![Condition::Present; 2]);
        assert!(undo_all(&old, &scope()).is_empty());
        new.undo(&scope()).unwrap();
        let left = Nat::Address { address: [172, 17, 0, 9].into(), holder: "old".into(), instead_of: None };
        left.undo(&scope()).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// What many containers lack is added in one transaction. An element of another program does not
/// stop the rest.
#[test]
fn what_is_missing_is_mended_together() {
    sandbox(|| {
        let address = |holder: &str, last| Nat::Address {
            address: [172, 17, 0, last].into(),
            holder: holder.into(),
            instead_of: None,
        };
        let mut operations = vec![
            used("stave0", "172.17.0.0/16", "web", "/run/stave"),
            address("web", 2),
            publish("web", &["tcp * 10080 172.17.0.2 80", "udp * 10053 172.17.0.2 53"]),
            used("stave0", "172.17.0.0/16", "db", "/run/stave"),
            address("db", 3),
            routed("r"),
        ];
        for operation in &mut operations {
            operation.apply(&scope()).unwrap();
        }
        let whole = sh("nft list ruleset");
        let missing = |found: &[Condition]| {
            found.iter().map(|found| matches!(found, Condition::Missing(_))).collect::<Vec<_>>()
        };
        assert_eq!(nat::conditions(&operations).unwrap(), vec![Condition::Present; 6]);
        for (damage, expected) in [
            ("nft flush ruleset", [true; 6]),
            (
                "nft delete element inet stave published '{ udp . 10053 }'",
                [false, false, true, false, false, false],
            ),
            ("nft flush set inet stave addresses", [false, true, false, false, true, false]),
            ("nft flush chain inet stave output", [true, false, false, false, false, true]),
            ("nft add table inet stave '{ flags dormant; }'", [true, false, false, false, false, true]),
        ] {
            sh(damage);
            assert_eq!(missing(&nat::conditions(&operations).unwrap()), expected, "{damage}");
            let mended = nat::mend(&scope(), &mut operations).unwrap();
            let mended: Vec<_> = mended.into_iter().map(Result::unwrap).collect();
            assert_eq!(missing(&mended), expected, "{damage}");
            assert_eq!(nat::conditions(&operations).unwrap(), vec![Condition::Present; 6], "{damage}");
            assert_eq!(sorted(&sh("nft list ruleset")), sorted(&whole), "{damage}");
        }
        // Another program has the port of one container by now.
        sh("nft delete element inet stave published '{ tcp . 10080 }'; \
            nft add element inet stave published '{ tcp . 10080 comment \"x\" : 172.17.0.9 . 1 }'; nft flush set inet stave addresses");
        let mended = nat::mend(&scope(), &mut operations).unwrap();
        assert!(matches!(mended[2], Ok(Condition::Different(_))), "{:?}", mended[2]);
        assert!(sh("nft list set inet stave addresses").contains("172.17.0.3 comment \"db\""));
    });
}
