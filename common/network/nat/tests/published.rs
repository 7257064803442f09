//! Published ports and port ranges. Needs root and nft: each test runs in a network namespace of
//! its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::AtomicU32;

use nat::{Mapping, NatOperation as Nat, Protocol, taken};
use nix::sched::CloneFlags;
use operation::{Condition, Operation, undo_all};

use common::*;

#[test]
fn a_published_port_is_published_once() {
    sandbox(|| {
        let mut none = publish("web", &["tcp * 1 172.17.0.2 1"]);
        assert_eq!(
            none.apply(&scope()).unwrap_err().to_string(),
            r#"add element published { tcp . 1 comment "web" : 172.17.0.2 . 1 } of table inet stave: No such file or directory"#
        );
        none.undo(&scope()).unwrap();
        bridge("stave0", "172.17.0.0/16").apply(&scope()).unwrap();
        let mut web = publish("web", &["tcp * 80 172.17.0.2 80", "tcp 10.0.0.1 81 172.17.0.2 80"]);
        web.apply(&scope()).unwrap();
        let mut other = publish("db", &["tcp * 82 172.17.0.3 1", "tcp * 80 172.17.0.3 80"]);
        assert_eq!(
            other.apply(&scope()).unwrap_err().to_string(),
            r#"add element published { tcp . 80 comment "db" : 172.17.0.3 . 80 } of table inet stave: File exists"#
        );
        other.undo(&scope()).unwrap();
        assert_eq!(web.check(&scope()).unwrap(), Condition::Present);
        assert!(!sh("nft list ruleset").contains("82"), "all of a transaction or nothing");
        for (spec, holder) in [
            ("tcp * 80 172.17.0.3 1", Some(Some("web"))),
            ("tcp 10.0.0.9 80 172.17.0.3 1", Some(Some("web"))),
            ("tcp * 81 172.17.0.3 1", Some(None)),
            ("tcp 10.0.0.1 81 172.17.0.3 1", Some(Some("web"))),
            ("tcp 10.0.0.9 81 172.17.0.3 1", None),
            ("udp * 80 172.17.0.3 1", None),
            ("tcp * 82 172.17.0.3 1", None),
        ] {
            let mappings = [mapping(spec)];
            let found = taken(&mappings, &nat::runs().unwrap()).unwrap().map(|(_, holder)| holder);
            assert_eq!(found, holder.map(|holder| holder.map(str::to_owned)), "{spec}");
        }
        // A lost part is made again.
        sh("nft delete element inet stave published '{ tcp . 80 }'");
        assert!(matches!(web.check(&scope()).unwrap(), Condition::Missing(_)));
        web.apply(&scope()).unwrap();
        assert_eq!(web.check(&scope()).unwrap(), Condition::Present);
    });
}

#[test]
fn a_range_of_many_ports_is_one_transaction() {
    sandbox(|| {
        bridge("stave0", "172.17.0.0/16").apply(&scope()).unwrap();
        let mapping = |port| Mapping {
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: port,
            container_ip: [172, 17, 0, 2].into(),
            container_port: port,
            count: 1,
        };
        let mut range = Nat::Publish { holder: "web".into(), mappings: (1000..=9999).map(mapping).collect() };
        range.apply(&scope()).unwrap();
        assert_eq!(range.check(&scope()).unwrap(), Condition::Present);
        let error = Nat::Publish { holder: "db".into(), mappings: (1000..=9999).map(mapping).collect() }
            .apply(&scope())
            .unwrap_err();
        assert!(error.to_string().ends_with("File exists"), "{error}");
        range.undo(&scope()).unwrap();
        assert!(matches!(range.check(&scope()).unwrap(), Condition::Missing(_)));
    });
}

/// Other ports, how many of them there are, and whether one of them is taken by those of the test.
const BESIDE: [(&str, u16, bool); 13] = [
    ("tcp * 20000 172.17.0.3 80", 1, true),
    ("tcp 127.0.0.1 29999 172.17.0.3 80", 1, true),
    ("tcp * 30000 172.17.0.3 80", 1, false),
    ("udp * 20000 172.17.0.3 80", 1, false),
    ("udp * 20299 fd00::3 80", 1, true),
    ("udp ::1 20299 fd00::3 80", 1, true),
    ("udp 127.0.0.2 300 172.17.0.3 80", 1, false),
    ("udp * 300 172.17.0.3 80", 1, true),
    ("tcp * 29999 172.17.0.3 29999", 2, true),
    ("tcp * 19999 172.17.0.3 19999", 2, true),
    ("tcp * 19000 172.17.0.3 19000", 1000, false),
    ("udp * 1 172.17.0.3 1", 7, true),
    ("udp 127.0.0.9 8 172.17.0.3 8", 2, false),
];

/// A port range is one element, and collides with each of its ports.
#[test]
fn a_run_of_ports_is_one_element() {
    sandbox(|| {
        bridge("stave0", "172.17.0.0/16").apply(&scope()).unwrap();
        let run = |spec: &str, count| Mapping { count, ..mapping(spec) };
        let all = [
            run("tcp * 20000 172.17.0.2 20000", 10_000),
            run("udp * 20000 fd00::2 20000", 300),
            run("udp 127.0.0.1 300 172.17.0.2 300", 300),
            mapping("udp * 7 172.17.0.2 7"),
        ];
        let mut web = Nat::Publish { holder: "web".into(), mappings: all.to_vec() };
        web.apply(&scope()).unwrap();
        web.apply(&scope()).unwrap();
        assert_eq!(web.check(&scope()).unwrap(), Condition::Present);
        for (map, element) in [
            ("ranges", "tcp . 20000-29999 comment \"web\" : 172.17.0.2"),
            ("ranges6", "udp . 20000-20299 comment \"web\" : fd00::2"),
            ("ranges_at", "127.0.0.1 . udp . 300-599 comment \"web\" : 172.17.0.2"),
        ] {
            let listed = sh(&format!("nft list map inet stave {map}"));
            assert!(listed.contains(element), "{listed}");
            let explained = web.explain().join("\n");
            assert!(explained.contains(&format!("inet stave {map} '{{ {element} }}'")), "{explained}");
        }
        let runs = nat::runs().unwrap();
        for (spec, count, is_taken) in BESIDE {
            let wanted = [run(spec, count)];
            assert_eq!(nat::taken(&wanted, &runs).unwrap().is_some(), is_taken, "{wanted:?}");
        }
        let mut db =
            Nat::Publish { holder: "db".into(), mappings: vec![run("tcp * 25000 172.17.0.3 25000", 6000)] };
        db.apply(&scope()).unwrap_err();
        db.undo(&scope()).unwrap();
        // A single port is in another map, so the kernel does not see the collision.
        for spec in
            ["tcp * 25000 172.17.0.3 80", "tcp 127.0.0.1 25000 172.17.0.3 80", "udp ::1 20000 fd00::3 80"]
        {
            let mut single = publish("db", &[spec]);
            let error = single.apply(&scope()).unwrap_err();
            assert_eq!(error.errno(), Some(nix::errno::Errno::EEXIST), "{spec}: {error}");
            let mended = nat::mend(&scope(), &mut [single.clone()]).unwrap();
            assert!(mended[0].is_err(), "{spec}");
            assert!(matches!(single.check(&scope()).unwrap(), Condition::Missing(_)), "{spec}");
        }
        let mut own = publish("web", &["tcp * 25000 172.17.0.2 80"]);
        own.apply(&scope()).unwrap();
        own.undo(&scope()).unwrap();
        assert_eq!(web.check(&scope()).unwrap(), Condition::Present);
        web.undo(&scope()).unwrap();
        assert!(matches!(web.check(&scope()).unwrap(), Condition::Missing(_)));
        assert_eq!(nat::runs().unwrap(), []);
    });
}

#[test]
fn twenty_at_once_with_nobody_waiting_for_another() {
    sandbox(|| {
        let before = sh("nft list ruleset");
        let next = AtomicU32::new(0);
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        std::thread::scope(|threads| {
            for _ in 0..20 {
                threads.spawn(|| {
                    use std::os::fd::AsFd;
                    nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    for round in 0..5 {
                        let name = format!("br{at}");
                        let port = format!("tcp * {} 10.{at}.0.2 80", 1000 + at * 10 + round);
                        let mut list = [bridge(&name, &format!("10.{at}.0.0/16")), publish(&name, &[&port])];
                        list[0].apply(&scope()).unwrap();
                        // The table is removed with the last bridge, so a port is published only
                        // while the container's bridge is there.
                        list[1].apply(&scope()).unwrap();
                        assert_eq!(list[1].check(&scope()).unwrap(), Condition::Present);
                        assert!(undo_all(&list, &scope()).is_empty());
                    }
                });
            }
        });
        assert_eq!(sh("nft list ruleset"), before);
    });
}
