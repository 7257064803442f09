//! What several containers and run directories share, and what belongs to other programs. Needs
//! root and nft: each test runs in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use nat::{NatOperation as Nat, Used, address_holder};
use operation::{Condition, Operation, Scope, undo_all};

use common::*;

/// Two run directories on one host know of each other only through the table.
#[test]
fn what_another_run_directory_uses_stays() {
    sandbox(|| {
        let other = Scope { root: "/run/root".into(), run_dir: "/run/other".into() };
        let mut web = used("stave0", "172.17.0.0/16", "web", "/run/stave");
        let mut db = used("stave0", "172.17.0.0/16", "db", "/run/other");
        let mut port = publish("db", &["tcp * 80 172.17.0.3 80"]);
        web.apply(&scope()).unwrap();
        db.apply(&other).unwrap();
        port.apply(&other).unwrap();
        let claimed = |operation: Nat, bridge| {
            let Nat::Bridge { user: Some(user), .. } = &operation else { panic!() };
            Used::new(&user.clone(), bridge, Probe(std::cell::Cell::new(false)))
        };
        for bridge in [Some("stave0"), None] {
            let probe = claimed(web.clone(), bridge);
            probe.undo(&scope()).unwrap();
            assert!(!probe.operation.0.get(), "db uses it");
        }
        let elsewhere = claimed(web.clone(), Some("br9"));
        elsewhere.undo(&scope()).unwrap();
        assert!(elsewhere.operation.0.get(), "nobody else is on br9");
        for _ in 0..2 {
            web.undo(&scope()).unwrap();
            assert_eq!(db.check(&other).unwrap(), Condition::Present);
            assert_eq!(port.check(&other).unwrap(), Condition::Present);
        }
        let last = claimed(db.clone(), None);
        last.undo(&other).unwrap();
        assert!(last.operation.0.get());

        // A container that has the name already is not replaced.
        let mut twin = used("stave0", "172.17.0.0/16", "twin", "/run/stave");
        let Nat::Bridge { user: Some(user), .. } = &mut twin else { panic!() };
        user.link = "vdb".into();
        assert!(twin.apply(&scope()).unwrap_err().to_string().ends_with("File exists"));
        twin.undo(&scope()).unwrap();
        assert_eq!(db.check(&other).unwrap(), Condition::Present);

        let address = |holder: &str, instead_of: Option<&str>| Nat::Address {
            address: [172, 17, 0, 2].into(),
            holder: holder.into(),
            instead_of: instead_of.map(str::to_owned),
        };
        address("web", None).apply(&scope()).unwrap();
        address("web", None).apply(&scope()).unwrap();
        assert_eq!(address_holder([172, 17, 0, 2].into()).unwrap().as_deref(), Some("web"));
        assert!(address("db", None).apply(&other).is_err());
        address("db", None).undo(&other).unwrap();
        assert_eq!(address("web", None).check(&scope()).unwrap(), Condition::Present);
        address("new", Some("web")).apply(&scope()).unwrap();
        address("web", None).undo(&scope()).unwrap();
        assert_eq!(address("new", None).check(&scope()).unwrap(), Condition::Present);
        address("new", None).undo(&scope()).unwrap();
        assert_eq!(address_holder([172, 17, 0, 2].into()).unwrap(), None);

        assert!(undo_all(&[db, port], &other).is_empty());
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Records whether it was undone.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Probe(std::cell::Cell<bool>);

impl Operation for Probe {
    fn explain(&self) -> Vec<String> {
        Vec::new()
    }
    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        Ok(())
    }
    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        self.0.set(true);
        Ok(())
    }
    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(Condition::Present)
    }
}

/// Whatever a document says, undo leaves the objects of other programs alone.
#[test]
fn a_document_that_names_a_foreign_table_or_port_changes_nothing() {
    sandbox(|| {
        let hostile = || {
            vec![
                bridge("stave0", "172.17.0.0/16"),
                used("stave0", "172.17.0.0/16", "web", "/run/stave"),
                Nat::Address { address: [172, 17, 0, 2].into(), holder: "web".into(), instead_of: None },
                publish("web", &["tcp * 80 172.17.0.2 80"]),
            ]
        };
        for theirs in [
            "nft add table inet stave; nft add chain inet stave c; nft add rule inet stave c accept",
            "nft add table inet stave; nft add set inet stave bridges '{ type inet_service; elements = { 1 } }'",
            "nft add table inet stave",
            "nft add table ip stave; nft add set ip stave bridges '{ type ipv4_addr; }'",
        ] {
            sh(theirs);
            let before = sh("nft list ruleset");
            assert!(undo_all(&hostile(), &scope()).is_empty(), "{theirs}");
            assert_eq!(sh("nft list ruleset"), before, "{theirs}");
            sh("nft flush ruleset");
        }
        used("br1", "172.18.0.0/16", "db", "/run/stave").apply(&scope()).unwrap();
        publish("db", &["tcp * 80 172.17.0.2 80"]).apply(&scope()).unwrap();
        let before = sh("nft list ruleset");
        assert!(undo_all(&hostile(), &scope()).is_empty());
        assert_eq!(sh("nft list ruleset"), before, "another container's");
    });
}
