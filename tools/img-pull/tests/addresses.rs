//! A registry with several addresses, of which not all answer.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs,
    time::{Duration, Instant},
};

use testkit::Sandbox;

const SERVER: &str = r#"#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
printf 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
"#;

/// `dead.test` has an IPv6 address that swallows all packets, `no.test` one that nobody can reach, and `shut.test` one that
/// refuses. All have 198.51.100.1 as well, where a server answers.
const START: &str = "
set -e
chmod +x server.sh
ip address add 198.51.100.1/32 dev lo
ip address add 2001:db8::dead/128 dev lo nodad
ip address add 2001:db8::1/128 dev lo nodad
nft add table ip6 dead
nft add chain ip6 dead input '{ type filter hook input priority 0; }'
nft add rule ip6 dead input ip6 daddr 2001:db8::dead drop
for host in '2001:db8::dead dead' '2001:db8:1::1 no' '2001:db8::1 shut'; do
    echo \"${host% *} ${host#* }.test\"
    echo \"198.51.100.1 ${host#* }.test\"
done > hosts
mount --bind hosts /etc/hosts
openssl req -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout key.pem -x509 -days 2 -out cert.pem \
    -subj /CN=registry -addext subjectAltName=DNS:dead.test,DNS:no.test,DNS:shut.test 2> openssl.log
socat OPENSSL-LISTEN:7001,bind=198.51.100.1,fork,reuseaddr,verify=0,cert=cert.pem,key=key.pem EXEC:./server.sh > socat.log 2>&1 &
for try in $(seq 100); do
    grep -q ':1B59 .* 0A ' /proc/net/tcp && break
    sleep 0.05
done
";

#[test]
fn the_address_that_answers_wins() {
    let host = Sandbox::new();
    fs::write(host.directory().join("server.sh"), SERVER).unwrap();
    host.sh(START).ok();
    for name in ["dead.test", "no.test", "shut.test"] {
        let first = host.sh(&format!("getent ahosts {name} | head -n 1")).ok();
        assert!(name == "no.test" || first.contains(':'), "IPv6 does not come first: {first}");
        let begin = Instant::now();
        let error =
            host.sh(&format!("img-pull --retries 0 --cacert cert.pem {name}:7001/a/b:1")).exits(1).stderr;
        assert_eq!(
            error,
            format!("img-pull: get https://{name}:7001/v2/a/b/manifests/1: 404 Not Found\n"),
            "{name}"
        );
        // Trying one address after the other takes 20 seconds for dead.test.
        assert!(begin.elapsed() < Duration::from_secs(10), "{name}: {:?}", begin.elapsed());
    }
    // The reason is the first that says something.
    let refused = host.sh("img-pull --retries 0 no.test:7002/a/b:1").exits(1).stderr;
    assert!(refused.ends_with("/manifests/1: Connection refused\n"), "{refused}");
    host.sh("umount /etc/hosts").ok();
}
