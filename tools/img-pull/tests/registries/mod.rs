//! Real registries, with and without TLS, passwords and tokens.

use std::fs;

use serde_json::{Value, json};
use testkit::{Sandbox, rootfs};

const START: &str = r#"
for name in plain safe token; do
    docker-registry serve $name.yml > $name.log 2>&1 &
done
socat TCP-LISTEN:5003,bind=127.0.0.1,fork,reuseaddr EXEC:./token-server.sh > socat.log 2>&1 &
for port in 5000 5001 5002 5003; do
    for try in $(seq 100); do
        grep -q ":$(printf %04X $port) .* 0A " /proc/net/tcp && break
        sleep 0.05
    done
done
"#;

/// Plain HTTP on port 5000. TLS and a password, with the same repositories, on 5001. TLS and tokens on 5002,
/// with the token server on 5003.
pub(crate) fn with_registries() -> Sandbox {
    let sandbox = Sandbox::new();
    let write = |name: &str, value: Value| {
        fs::write(sandbox.directory().join(name), value.to_string()).unwrap();
    };
    let storage = json!({"filesystem": {"rootdirectory": sandbox.directory().join("data")}});
    let registry = |port: u16, tls: bool, auth: Value| {
        let mut http = json!({"addr": format!("127.0.0.1:{port}")});
        if tls {
            http["tls"] = json!({"certificate": "cert.pem", "key": "key.pem"});
        }
        json!({"version": 0.1, "storage": storage, "http": http, "auth": auth})
    };
    write("plain.yml", registry(5000, false, json!({})));
    write("safe.yml", registry(5001, true, json!({"htpasswd": {"realm": "test", "path": "htpasswd"}})));
    let token = json!({"realm": "https://localhost:5004/token", "service": "registry", "issuer": "test",
        "rootcertbundle": "cert.pem"});
    write("token.yml", registry(5002, true, json!({"token": token})));
    write(
        "auth.json",
        json!({"auths": {"localhost:5001": {"auth": "dTpw"}, "localhost:5002": {"auth": "dTpw"}}}),
    );
    write("identity.json", json!({"auths": {"localhost:5002": {"identitytoken": "secret"}}}));
    write("empty.json", json!({}));
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/token-server.sh");
    fs::copy(server, sandbox.directory().join("token-server.sh")).unwrap();
    sandbox
        .sh("htpasswd -Bbc htpasswd u p 2> /dev/null
            openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
                -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE 2> /dev/null")
        .ok();
    sandbox.sh(START).ok();
    let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, b"a"));
    sandbox.sh_with("img-load -q -t localhost:5000/lib/a - > /dev/null", &archive).ok();
    sandbox
}
