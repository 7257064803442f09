//! Bridges in other modes than that of masquerade. Needs root and nft: each test runs in a network
//! namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use nat::{Mode, NatOperation as Nat, OpenPort, Protocol};
use operation::{Condition, Operation, undo_all};

use common::*;

#[test]
fn internal_isolated_and_unguarded_bridges() {
    sandbox(|| {
        for kept in [Mode { internal: true, ..Mode::default() }, Mode { isolated: true, ..Mode::default() }] {
            let mut apart = bridge("i0", "10.6.0.0/24");
            let Nat::Bridge { mode, .. } = &mut apart else { panic!() };
            *mode = kept;
            apart.apply(&scope()).unwrap();
            assert_eq!(nat::mode("i0").unwrap(), Some(kept));
            assert!(
                bridge("i0", "10.6.0.0/24").apply(&scope()).unwrap_err().to_string().ends_with("File exists")
            );
            apart.undo(&scope()).unwrap();
            assert_eq!(nat::mode("i0").unwrap(), None);
        }
        // No rule matches another program's bridge on which the host is no gateway.
        let mut bare = used("i0", "10.6.0.0/24", "web", "/run/stave");
        let Nat::Bridge { mode, .. } = &mut bare else { panic!() };
        let kept = Mode { unguarded: true, ..Mode::default() };
        *mode = kept;
        bare.apply(&scope()).unwrap();
        assert_eq!(
            (nat::mode("i0").unwrap(), bare.check(&scope()).unwrap()),
            (Some(kept), Condition::Present)
        );
        assert_eq!(sh("nft list table inet stave").matches("\"i0\"").count(), 1, "only its claim");
        bare.undo(&scope()).unwrap();
        assert_eq!(nat::mode("i0").unwrap(), None);
    });
}

#[test]
fn a_routed_bridge_has_open_ports_and_no_masquerade() {
    sandbox(|| {
        let port = |port| OpenPort {
            protocol: Protocol::Tcp,
            container_ip: [10, 5, 0, 2].into(),
            container_port: port,
        };
        let open = |holder: &str, ports: &[u16]| Nat::Open {
            holder: holder.into(),
            ports: ports.iter().map(|number| port(*number)).collect(),
        };
        let mut operations = [routed("web"), open("web", &[80, 81])];
        assert_eq!(nat::mode("r0").unwrap(), None);
        for operation in &mut operations {
            assert!(matches!(operation.check(&scope()).unwrap(), Condition::Missing(_)));
            operation.apply(&scope()).unwrap();
            operation.apply(&scope()).unwrap();
            assert_eq!(operation.check(&scope()).unwrap(), Condition::Present);
            let text = serde_json::to_string(operation).unwrap();
            assert_eq!(&serde_json::from_str::<Nat>(&text).unwrap(), operation);
        }
        assert_eq!(nat::mode("r0").unwrap(), Some(Mode { routed: true, ..Mode::default() }));
        assert!(!sh("nft list set inet stave subnets").contains("10.5.0.0"));
        assert!(sh("nft list set inet stave open").contains("10.5.0.2 . tcp . 81 comment \"web\""));
        // A bridge has one mode, and a port one container.
        let Nat::Bridge { bridge, subnet, user, closed, .. } = routed("other") else { panic!() };
        let mut other = Nat::Bridge {
            bridge,
            subnet,
            user,
            subnet6: None,
            closed,
            closed6: false,
            mode: Mode::default(),
        };
        assert!(other.apply(&scope()).unwrap_err().to_string().ends_with("File exists"));
        assert!(open("other", &[82, 80]).apply(&scope()).unwrap_err().to_string().ends_with("File exists"));
        open("other", &[80]).undo(&scope()).unwrap();
        assert_eq!(operations[1].check(&scope()).unwrap(), Condition::Present);
        assert!(undo_all(&operations, &scope()).is_empty());
        assert!(undo_all(&operations, &scope()).is_empty());
        assert_eq!(sh("nft list ruleset"), "");
    });
}
