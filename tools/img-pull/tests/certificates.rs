//! Registries whose certificates and addresses are not the usual ones. The servers answer every request with 404.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::fs;

use testkit::Sandbox;

const SERVER: &str = r#"#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
printf 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
"#;

/// `serve PORT NAME` speaks TLS on a port, with the certificate NAME.pem and its key NAME.key. `self NAME …` makes a
/// self-signed one as Docker's documentation says. `signed NAME CA …` makes one that CA.pem has signed.
const FUNCTIONS: &str = r#"
export HOME=$PWD
key='-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256'
self() { name=$1; shift; openssl req $key -keyout $name.key -x509 -days 2 -out $name.pem -subj /CN=reg "$@" 2>> openssl.log; }
signed() {
    name=$1 ca=$2; shift 2
    openssl req $key -keyout $name.key -out $name.csr -subj /CN=server 2>> openssl.log
    printf '%s\n' "$@" > $name.ext
    openssl x509 -req -in $name.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 2 -out $name.pem -extfile $name.ext 2>> openssl.log
}
wait_for() {
    for try in $(seq 100); do
        cat /proc/net/tcp /proc/net/tcp6 | grep -q ":$(printf %04X $1) .* 0A " && return
        sleep 0.05
    done
}
serve() {
    socat OPENSSL-LISTEN:$1,fork,reuseaddr,verify=0,cert=$2.pem,key=$2.key EXEC:./server.sh >> socat.log 2>&1 &
    wait_for $1
}
"#;

/// A host with the address 198.51.100.1, on which the servers are.
fn host() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.directory().join("server.sh"), SERVER).unwrap();
    fs::write(sandbox.directory().join("functions"), FUNCTIONS).unwrap();
    sandbox.sh("chmod +x server.sh; ip address add 198.51.100.1/32 dev lo").ok();
    sandbox
}

/// The error of a pull from this port, without what all have in common.
fn error(sandbox: &Sandbox, port: u16, flags: &str) -> String {
    let pull = format!("img-pull --retries 0 {flags} 198.51.100.1:{port}/a/b:1");
    let error = sandbox.sh(&format!("HOME=$PWD {pull}")).exits(1).stderr;
    let request = format!("img-pull: get https://198.51.100.1:{port}/v2/a/b/manifests/1: ");
    error.strip_prefix(&request).unwrap_or(&error).to_owned()
}

const NOT_FOUND: &str = "404 Not Found\n";
const HINT: &str = "\nhint: trust its certificate with --cacert FILE, or accept any with --insecure\n";

#[test]
fn a_certificate_that_is_itself_trusted() {
    let host = host();
    host.sh(r#". ./functions
        own='subjectAltName=IP:198.51.100.1'
        self docker -addext $own; serve 7001 docker
        self other -addext $own; serve 7002 other
        self ca -subj /CN=authority; signed leaf ca $own extendedKeyUsage=serverAuth; serve 7003 leaf
        mv ca.pem first.pem; self ca -subj /CN=authority
        mkdir certs && cp docker.pem certs/ca.crt"#)
        .ok();
    let untrusted = |problem: &str| format!("the certificate is not trusted: {problem}{HINT}");
    assert_eq!(error(&host, 7001, ""), untrusted("it is an authority's, not a server's"));
    assert_eq!(error(&host, 7001, "--cacert docker.pem"), NOT_FOUND);
    assert_eq!(error(&host, 7001, "--cert-dir certs"), NOT_FOUND);
    assert_eq!(error(&host, 7001, "--insecure"), NOT_FOUND);
    // The same names, but another certificate.
    assert_eq!(error(&host, 7002, "--cacert docker.pem"), untrusted("it is an authority's, not a server's"));
    assert_eq!(error(&host, 7003, "--cacert docker.pem"), untrusted("its issuer is unknown"));
    let same_name = "its issuer is not the trusted certificate of the same name";
    assert_eq!(error(&host, 7003, "--cacert ca.pem"), untrusted(same_name));
    assert_eq!(error(&host, 7003, "--cacert first.pem"), NOT_FOUND);
    assert_eq!(error(&host, 7003, "--cacert leaf.pem"), NOT_FOUND);
    let for_host = "mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker
        mkdir -p /etc/docker/certs.d/198.51.100.1:7001; cp docker.pem /etc/docker/certs.d/198.51.100.1:7001/ca.crt";
    host.sh(for_host).ok();
    assert_eq!(error(&host, 7001, ""), NOT_FOUND);
    let login = "echo p | img-login -u u --password-stdin --cacert docker.pem 198.51.100.1:7001";
    let error = host.sh(login).exits(1).stderr;
    assert!(error.contains(": 404 Not Found"), "{error}");
}

#[test]
fn trust_does_not_mend_everything() {
    let host = host();
    host.sh(
        r#". ./functions
        own='subjectAltName=IP:198.51.100.1'
        self named -addext subjectAltName=DNS:reg.test,IP:198.51.100.2; serve 7001 named
        self nameless; serve 7002 nameless
        self client -addext $own -addext extendedKeyUsage=clientAuth; serve 7003 client
        self server -addext $own -addext extendedKeyUsage=critical,clientAuth,serverAuth; serve 7004 server
        self ca; signed leaf ca $own extendedKeyUsage=clientAuth; serve 7005 leaf
        : > index; echo 01 > serial
        printf '%s\n' '[ca]' default_ca=x '[x]' database=index serial=serial new_certs_dir=. default_md=sha256 \
            policy=p x509_extensions=e '[p]' commonName=supplied '[e]' $own basicConstraints=CA:TRUE > ca.conf
        for name in late early; do
            openssl req $key -keyout $name.key -out $name.csr -subj /CN=$name 2>> openssl.log
        done
        sign() { openssl ca -batch -config ca.conf -selfsign -notext "$@" 2>> openssl.log; }
        sign -keyfile late.key -in late.csr -out late.pem -startdate 200101000000Z -enddate 200102000000Z
        sign -keyfile early.key -in early.csr -out early.pem -startdate 400101000000Z -enddate 400102000000Z
        serve 7006 late; serve 7007 early"#,
    )
    .ok();
    for (port, name, problem) in [
        (7001, "named", "it is for reg.test, 198.51.100.2"),
        (7002, "nameless", "it names no host (subjectAltName)"),
        (7003, "client", "it is not for servers (extendedKeyUsage)"),
        (7005, "leaf", "it is not for servers (extendedKeyUsage)"),
        (7006, "late", "it expired on Thu, 02 Jan 2020 00:00:00 GMT"),
        (7007, "early", "it is not valid before Sun, 01 Jan 2040 00:00:00 GMT"),
    ] {
        let expected = format!("the certificate is not trusted: {problem}\n");
        assert_eq!(error(&host, port, &format!("--cacert {name}.pem")), expected, "{name}");
        assert_eq!(error(&host, port, "--insecure"), NOT_FOUND, "{name}");
    }
    assert_eq!(error(&host, 7004, "--cacert server.pem"), NOT_FOUND);
    // A key that is not the certificate's.
    host.sh("mkdir certs; cp server.pem certs/me.cert; cp client.key certs/me.key").ok();
    let wrong = error(&host, 7004, "--cert-dir certs");
    assert!(wrong.starts_with("img-pull: prepare TLS for 198.51.100.1:7004: "), "{wrong}");
}

#[test]
fn keys_of_p_521() {
    let host = host();
    host.sh(r#". ./functions
        own='subjectAltName=IP:198.51.100.1'
        # The leaves are signed with SHA-256, the default.
        small=$key key='-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-521'
        self docker -sha512 -addext $own; serve 7001 docker
        self ca -sha512 -subj /CN=authority; signed leaf ca $own; serve 7002 leaf
        key=$small; signed mixed ca $own; serve 7003 mixed
        sed s/verify=0/verify=0,openssl-max-proto-version=TLS1.2/ functions > old; . ./old; serve 7004 docker
        sed s/verify=0/verify=1,cafile=ca.pem/ functions > mutual; . ./mutual; serve 7005 mixed"#)
        .ok();
    for (port, trusted) in [(7001, "docker"), (7002, "ca"), (7003, "ca")] {
        assert_eq!(error(&host, port, &format!("--cacert {trusted}.pem")), NOT_FOUND, "{port}");
        assert_eq!(error(&host, port, "--insecure"), NOT_FOUND, "{port}");
        let wrong = error(&host, port, "");
        assert!(wrong.starts_with("the certificate is not trusted: ") && wrong.ends_with(HINT), "{wrong}");
    }
    // An authority with the same name, but another key.
    host.sh(". ./functions; cp ca.pem first.pem; key=$(echo \"$key\" | sed s/P-256/P-521/); self ca -subj /CN=authority").ok();
    let same_name = "its issuer is not the trusted certificate of the same name";
    let expected = format!("the certificate is not trusted: {same_name}{HINT}");
    assert_eq!(error(&host, 7002, "--cacert ca.pem"), expected);
    assert_eq!(
        error(&host, 7004, "--cacert docker.pem"),
        "the server accepts no TLS that is offered: 1.2 or 1.3, keys of RSA, P-256, P-384 or Ed25519, with 1.3 also P-521\n"
    );
    let mutual = error(&host, 7005, "--cacert first.pem");
    assert_eq!(mutual, "the server wants a client certificate, or another one\n");
}
