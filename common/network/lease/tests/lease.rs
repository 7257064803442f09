//! Leases on disk.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, sync::Mutex};

use ipnet::IpNet;
use lease::{Lease, plan};
use operation::{Condition, Operation, Scope};

fn subnet(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn scope(dir: &Path) -> Scope {
    Scope { root: dir.join("root"), run_dir: dir.join("run") }
}

/// Plans and applies, with the gateway reserved.
fn lease(scope: &Scope, net: &str, id: &str) -> Result<Lease, String> {
    let net = subnet(net);
    let mut lease =
        plan(&scope.run_dir, net, net, &[lease::gateway(net)], id, |_| true).map_err(|e| e.to_string())?;
    lease.apply(scope).map_err(|e| e.to_string())?;
    Ok(lease)
}

fn last(lease: &Lease) -> u8 {
    lease.address.to_string().rsplit_once('.').unwrap().1.parse().unwrap()
}

#[test]
fn the_next_free_address_and_every_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let mut leases: Vec<_> = ["a", "b", "c"].map(|id| lease(&scope, "10.0.0.0/29", id).unwrap()).into();
    assert_eq!(leases.iter().map(last).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(fs::read_to_string(scope.run_dir.join("leases/10.0.0.0_29/10.0.0.3")).unwrap(), "b\n");
    leases.remove(1).undo(&scope).unwrap();
    leases.extend(["d", "e", "f"].map(|id| lease(&scope, "10.0.0.0/29", id).unwrap()));
    assert_eq!(leases.iter().map(last).collect::<Vec<_>>(), [2, 4, 5, 6, 3], "one given back comes last");
    assert_eq!(
        lease(&scope, "10.0.0.0/29", "g").unwrap_err(),
        "lease an address of 10.0.0.0/29: all 5 are in use"
    );
    for lease in &leases {
        assert_eq!(lease.check(&scope).unwrap(), Condition::Present);
        lease.undo(&scope).unwrap();
        lease.undo(&scope).unwrap();
        assert!(matches!(lease.check(&scope).unwrap(), Condition::Missing(_)));
    }
    assert_eq!(fs::read_dir(&scope.run_dir).unwrap().count(), 0);
}

#[test]
fn a_large_subnet_with_one_gap() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let directory = lease::directory(&scope.run_dir, subnet("10.0.0.0/24"));
    fs::create_dir_all(&directory).unwrap();
    for host in (2..=254).filter(|host| *host != 200) {
        fs::write(directory.join(format!("10.0.0.{host}")), "x").unwrap();
    }
    assert_eq!(last(&lease(&scope, "10.0.0.0/24", "a").unwrap()), 200);
    assert!(lease(&scope, "10.0.0.0/24", "b").is_err());
}

#[test]
fn somebody_elses_lease_is_neither_taken_nor_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let theirs = lease(&scope, "10.0.0.0/29", "a").unwrap();
    let mut ours = Lease { holder: "b".into(), ..theirs.clone() };
    let path = lease::directory(&scope.run_dir, subnet("10.0.0.0/29")).join("10.0.0.2");
    assert_eq!(ours.apply(&scope).unwrap_err().to_string(), format!("create lease {path:?}: File exists"));
    ours.undo(&scope).unwrap();
    assert_eq!(theirs.check(&scope).unwrap(), Condition::Present);
    assert_eq!(ours.check(&scope).unwrap(), Condition::Different(r#"lease of 10.0.0.2: "a" has it"#.into()));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "the lease and the cursor");
}

#[test]
fn a_lease_of_a_container_that_is_gone_is_taken_over_when_all_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let net = subnet("10.0.0.0/30");
    let gone = lease(&scope, "10.0.0.0/30", "gone").unwrap();
    assert!(plan(&scope.run_dir, net, net, &["10.0.0.1".parse().unwrap()], "new", |_| true).is_err());
    let gateway = ["10.0.0.1".parse().unwrap()];
    let mut new = plan(&scope.run_dir, net, net, &gateway, "new", |id| id != "gone").unwrap();
    assert_eq!(new.instead_of.as_deref(), Some("gone"));
    new.apply(&scope).unwrap();
    gone.undo(&scope).unwrap();
    assert_eq!(new.check(&scope).unwrap(), Condition::Present);
    // The container that took the lease over keeps it.
    let mut late = Lease { holder: "late".into(), instead_of: Some("gone".into()), ..new.clone() };
    assert!(late.apply(&scope).is_err());
    new.undo(&scope).unwrap();
}

#[test]
fn twenty_at_once_get_twenty_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let lock = Mutex::new(());
    let given = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for at in 0..20 {
            let (scope, lock, given) = (&scope, &lock, &given);
            threads.spawn(move || {
                for round in 0..10 {
                    let made = {
                        let _held = lock.lock().unwrap();
                        lease(scope, "10.0.0.0/24", &format!("c{at}-{round}")).unwrap()
                    };
                    given.lock().unwrap().push(made);
                }
            });
        }
    });
    let given = given.into_inner().unwrap();
    let different: std::collections::HashSet<_> = given.iter().map(|lease| lease.address).collect();
    assert_eq!(different.len(), 200);
    std::thread::scope(|threads| {
        for lease in &given {
            threads.spawn(|| lease.undo(&scope).unwrap());
        }
    });
    assert_eq!(fs::read_dir(&scope.run_dir).unwrap().count(), 0);
}

#[test]
fn a_document_names_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let scope = scope(dir.path());
    let sound =
        plan(&scope.run_dir, subnet("10.0.0.0/29"), subnet("10.0.0.0/29"), &[], "web", |_| true).unwrap();
    for hostile in [
        Lease { directory: "/etc".into(), ..sound.clone() },
        Lease { directory: scope.run_dir.join("leases/../x"), ..sound.clone() },
        Lease { holder: "../../x".into(), ..sound.clone() },
    ] {
        assert!(hostile.undo(&scope).is_err(), "{hostile:?}");
    }
    sound.undo(&scope).unwrap();
}

#[test]
fn explained_as_a_person_would_type_it() {
    let lease =
        plan(Path::new("/run/stave"), subnet("172.17.0.0/16"), subnet("172.17.0.0/16"), &[], "web", |_| true)
            .unwrap();
    assert_eq!(
        lease.explain(),
        [
            "mkdir -p /run/stave/leases/172.17.0.0_16",
            "echo web > /run/stave/leases/172.17.0.0_16/172.17.0.1",
            "echo 172.17.0.1 > /run/stave/leases/172.17.0.0_16/cursor",
        ]
    );
}
