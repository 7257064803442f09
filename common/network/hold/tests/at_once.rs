//! Several processes hold ports in the kernel at once. Needs root: runs in a network namespace of
//! its own.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::PathBuf,
    thread,
    time::Duration,
};

use hold::{HoldOperation, Ports};
use nat::Protocol;
use nix::sched::{CloneFlags, unshare};
use operation::{Condition, Operation, Scope};

fn hold(holder: &str, host_ip: Option<[u8; 4]>, first: u16, last: u16) -> HoldOperation {
    let ports = Ports { protocol: Protocol::Tcp, host_ip: host_ip.map(IpAddr::from), first, last };
    HoldOperation { holder: holder.into(), ports: vec![ports], reserved: Vec::new(), by_program: false }
}

const MOMENT: Duration = Duration::from_millis(5);

fn scope() -> Scope {
    Scope { root: PathBuf::from("/nowhere"), run_dir: PathBuf::from("/nowhere") }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The program is attached and detached all the time, and no port is lost by that.
#[test]
fn many_at_once_without_a_lock() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root: run scripts/test as root");
    std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    thread::scope(|threads| {
        for number in 0..8_u16 {
            threads.spawn(move || {
                let first = 1000 + 10 * number;
                // Two of them share each port of the second kind, on different addresses.
                let one = [127, 0, 0, 1 + (number % 2) as u8];
                let shared = 2000 + number / 2;
                for round in 0..150 {
                    let id = format!("c{number}");
                    let mut held = [hold(&id, None, first, first + 9), hold(&id, Some(one), shared, shared)];
                    for operation in &mut held {
                        operation.apply(&scope()).unwrap();
                    }
                    // While the other one releases the shared port, it may look free for a moment.
                    assert_eq!(held[0].check(&scope()).unwrap(), Condition::Present, "{number} {round}");
                    for port in [first, first + 9] {
                        assert!(!is_free(port), "{number} {round} {port}");
                    }
                    let is_present = || held[1].check(&scope()).unwrap() == Condition::Present;
                    assert!(
                        (0..100).any(|_| is_present() || {
                            thread::sleep(MOMENT);
                            false
                        }),
                        "{number} {round}"
                    );
                    held.iter().for_each(|operation| operation.undo(&scope()).unwrap());
                    held.iter().for_each(|operation| operation.undo(&scope()).unwrap());
                    for port in [first, first + 9] {
                        assert!(is_free(port), "{number} {round} {port}");
                    }
                }
            });
        }
    });
    assert!((1000..1080).chain(2000..2004).all(is_free));
}

/// More ports than fit into one map.
#[test]
fn all_ports_of_the_host() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root: run scripts/test as root");
    let mut all = hold("all", None, 1, u16::MAX);
    let begin = std::time::Instant::now();
    all.apply(&scope()).unwrap();
    let applied = begin.elapsed();
    assert_eq!(all.check(&scope()).unwrap(), Condition::Present);
    assert!([1, 16384, 32768, 65535].into_iter().all(|port| !is_free(port)));
    let begin = std::time::Instant::now();
    all.undo(&scope()).unwrap();
    println!("{applied:?} {:?}", begin.elapsed());
    assert!([1, 16384, 32768, 65535].into_iter().all(is_free));
    assert_eq!(
        all.check(&scope()).unwrap(),
        Condition::Missing("hold of host port 1/tcp".into()),
        "nothing holds them"
    );
}

#[test]
fn a_repair_that_fails_leaves_what_stood() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root: run scripts/test as root");
    let mut first = hold("web", None, 1000, 1000);
    first.apply(&scope()).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 1002)).unwrap();
    let mut all = hold("web", None, 1000, 1002);
    let error = all.apply(&scope()).unwrap_err().to_string();
    assert_eq!(error, "hold host port 1002/tcp: it is taken by a process of the host");
    assert_eq!(first.check(&scope()).unwrap(), Condition::Present);
    assert!(!is_free(1000) && is_free(1001));
    drop(taken);
    all.apply(&scope()).unwrap();
    assert!(!(1000..=1002).any(is_free));
    all.undo(&scope()).unwrap();
    assert!((1000..=1002).all(is_free));
}
