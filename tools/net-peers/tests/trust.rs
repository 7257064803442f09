//! An etcd that speaks TLS.
#![allow(clippy::unwrap_used)]

use testkit::Sandbox;

/// What listens on port 2379 speaks TLS, and no HTTP.
const START: &str = "
openssl req -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout key.pem -x509 -days 2 -out cert.pem \
    -subj /CN=etcd -addext subjectAltName=IP:192.0.2.1 2> openssl.log
socat OPENSSL-LISTEN:2379,fork,reuseaddr,verify=0,cert=cert.pem,key=key.pem 'SYSTEM:echo none' > socat.log 2>&1 &
for try in $(seq 100); do
    grep -q ':094B .* 0A ' /proc/net/tcp && break
    sleep 0.05
done
";

#[test]
fn a_server_with_tls_is_asked_if_it_is_trusted() {
    let sandbox = Sandbox::new();
    sandbox.sh(START).ok();
    let join = |flags: &str| {
        let peers = "net-peers front --etcd https://192.0.2.1:2379 --host one --subnet 10.9.0.0/16";
        sandbox.sh(&format!("{peers} {flags}")).exits(1).stderr
    };
    let asked = "net-peers: ask https://192.0.2.1:2379/v3/kv/txn: ";
    assert_eq!(
        join(""),
        format!("{asked}the certificate is not trusted: it is an authority's, not a server's\n")
    );
    // The server was trusted, and its answer read.
    let answer = join("--etcd-ca cert.pem");
    assert!(answer.starts_with(asked) && !answer.contains("certificate"), "{answer}");
    let wrong = join("--etcd-ca key.pem");
    assert_eq!(wrong, "net-peers: read \"key.pem\": it has no certificate\n");
}
