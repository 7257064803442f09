//! A container, name servers and servers outside, and what the container can reach.

#![allow(dead_code)] // Each test uses a part of it.

use testkit::{Has, Sandbox, Snapshot};

pub(crate) fn addresses(hosts: &[u8]) -> Has {
    Has::Addresses(hosts.iter().map(|host| [198, 51, 100, *host].into()).collect(), 60)
}

pub(crate) fn zone() -> Vec<(&'static str, Has)> {
    vec![
        ("git.example", addresses(&[1])),
        ("deb.debian.example", Has::Alias("cdn.example")),
        ("cdn.example", addresses(&[2])),
        ("debian.example", addresses(&[3])),
        ("other.example", addresses(&[3])),
    ]
}

/// A host with servers outside, on ports 80, 443 and 853 of 198.51.100.1 to 198.51.100.4.
pub(crate) fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let serve = |port: u16| {
        format!(
            "socat TCP4-LISTEN:{port},fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_SOCKADDR' >/dev/null 2>&1 </dev/null &"
        )
    };
    let servers: String = [80, 443, 853].into_iter().map(serve).collect();
    sandbox
        .outside(&format!(
            "for host in 1 2 3 4; do ip addr add 198.51.100.$host/32 dev lo; done; {servers}
             socat UDP4-LISTEN:443,fork EXEC:cat >/dev/null 2>&1 </dev/null &
             until [ $(ss -Hlnt | grep -c -e ':80 ' -e ':443 ' -e ':853 ') = 3 ]; do sleep 0.01; done"
        ))
        .ok();
    sandbox
}

pub(crate) fn start(sandbox: &Sandbox, list: &str) {
    sandbox
        .sh(&format!(
            "netns-bridge -n --id web | veth-pair | portmap -p 8080:80 | egress-allow {list} > web.json"
        ))
        .ok();
}

/// The answer that `web` gets from a server, an address for socat. If it may not go there, it is rejected at
/// once and does not wait.
#[track_caller]
pub(crate) fn hears(sandbox: &Sandbox, words: &str, to: &str) -> String {
    let limit = if to.starts_with("TCP") { ",connect-timeout=8" } else { "" };
    let ask = format!("echo {words} | timeout 10 socat -t8 - {to}{limit}");
    let heard = sandbox.within("web", &ask);
    let is_refused = ["refused", "unreachable", "No route", "not permitted", "reset"];
    let at_once = is_refused.iter().any(|word| heard.stderr.contains(word));
    assert!(!heard.stdout.is_empty() || at_once, "web waits for {to}: {heard:?}");
    heard.stdout.trim().to_owned()
}

#[track_caller]
pub(crate) fn assert_reaches(sandbox: &Sandbox, to: &str, reaches: bool, when: &str) {
    let answer = hears(sandbox, "?", &format!("TCP4:{to}"));
    assert_eq!(!answer.is_empty(), reaches, "web asks {to} {when}: {answer:?}");
}

/// Like [`Sandbox::assert_as`], except for servers of the test that have not ended yet.
#[track_caller]
pub(crate) fn assert_as(sandbox: &Sandbox, before: &Snapshot) {
    let difference = sandbox.difference(before);
    let left: Vec<_> = difference.lines().filter(|line| !line.contains("socat")).collect();
    assert_eq!(left, [""; 0]);
}
