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

/// An authority, and certificates of it for a server and for a client. Then Debian's etcd, which wants both.
const ETCD: &str = r#"
key="openssl req -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256"
$key -keyout ca.key -x509 -days 2 -out ca.pem -subj /CN=ca 2> openssl.log
issue() {
    $key -keyout $1.key -out $1.csr -subj /CN=$1 2> openssl.log
    printf 'subjectAltName=IP:192.0.2.1\nextendedKeyUsage=%s' $2 > $1.ext
    openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out $1.pem -extfile $1.ext 2> openssl.log
}
issue server serverAuth,clientAuth; issue client clientAuth
etcd --data-dir etcd --listen-client-urls https://192.0.2.1:2379 --advertise-client-urls https://192.0.2.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --cert-file server.pem --key-file server.key \
    --client-cert-auth --trusted-ca-file ca.pem > etcd.log 2>&1 &
echo $! > etcd.pid
for try in $(seq 200); do
    ss -Hlnt | grep -q ':2379 ' && break
    sleep 0.05
done
"#;

#[test]
fn an_etcd_that_wants_a_certificate_too() {
    let sandbox = Sandbox::new();
    sandbox.sh(ETCD).ok();
    let join = |flags: &str| {
        let peers = "net-peers front --etcd https://192.0.2.1:2379 --host one --subnet 10.9.0.0/16";
        // It stays, to watch etcd.
        sandbox.sh(&format!("timeout 3 {peers} {flags}"))
    };
    let stranger = join("--etcd-ca ca.pem").exits(1).stderr;
    let told = [
        "net-peers: ask https://192.0.2.1:2379/v3/kv/txn: ",
        "hint: the server may want a client certificate",
    ];
    assert!(told.iter().all(|told| stranger.contains(told)), "{stranger}");
    let joined = join("--etcd-ca ca.pem --etcd-cert client.pem --etcd-key client.key");
    assert_eq!(joined.stderr, "");
    let network = sandbox.sh("cat $STAVE_ROOT/networks/front.json").json();
    assert_eq!(network["subnets"][0]["subnet"], "10.9.0.0/16");
    let wrong = join("--etcd-ca ca.pem --etcd-cert client.pem --etcd-key server.key").exits(1).stderr;
    assert!(wrong.starts_with("net-peers: read \"server.key\": "), "{wrong}");
    sandbox.sh("kill $(cat etcd.pid)").ok();
}
