//! Registries that are reached through a proxy, or directly where they should be.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::fs;

use serde_json::json;
use testkit::{HOST, Sandbox, rootfs};

const START: &str = r#"
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test \
    -addext subjectAltName=DNS:registry.test,DNS:localhost -addext basicConstraints=critical,CA:FALSE 2> /dev/null
for name in plain safe; do
    docker-registry serve $name.yml > $name.log 2>&1 &
done
chmod +x proxy.sh
tls=cert=cert.pem,key=key.pem,verify=0
socat TCP-LISTEN:3128,bind=127.0.0.1,fork,reuseaddr EXEC:./proxy.sh > /dev/null 2>&1 &
socat OPENSSL-LISTEN:3129,bind=127.0.0.1,fork,reuseaddr,$tls EXEC:./proxy.sh > /dev/null 2>&1 &
for port in 3128 3129 5000 5001; do
    for try in $(seq 100); do
        cat /proc/net/tcp /proc/net/tcp6 | grep -q ":$(printf %04X $port) .* 0A " && break
        sleep 0.05
    done
done
"#;

/// Plain HTTP on port 5000 and TLS on 5001, on every address of the host. A proxy on 3128, and one with TLS
/// on 3129. The image `x` is in the store. The servers' names cannot be looked up.
fn with_proxy() -> Sandbox {
    let sandbox = Sandbox::new();
    let storage = json!({"filesystem": {"rootdirectory": sandbox.directory().join("data")}});
    for (name, http) in [
        ("plain.yml", json!({"addr": ":5000"})),
        ("safe.yml", json!({"addr": ":5001", "tls": {"certificate": "cert.pem", "key": "key.pem"}})),
    ] {
        let configuration = json!({"version": 0.1, "storage": storage, "http": http});
        fs::write(sandbox.directory().join(name), configuration.to_string()).unwrap();
    }
    let proxy = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy.sh");
    fs::copy(proxy, sandbox.directory().join("proxy.sh")).unwrap();
    sandbox.sh(START).ok();
    let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, b"a"));
    sandbox.sh_with("img-load -q -t x - > /dev/null", &archive).ok();
    sandbox
}

/// The requests to the proxy since the last call, without duplicates.
fn asked(sandbox: &Sandbox) -> String {
    sandbox.sh("sort -u asked.log 2> /dev/null; rm -f asked.log").ok()
}

#[test]
fn plain_http_is_forwarded() {
    let sandbox = with_proxy();
    let variables = "HTTP_PROXY=http://u:p%40s@127.0.0.1:3128 HTTPS_PROXY=127.0.0.1:3128";
    sandbox.sh(&format!("{variables} img-push -q --insecure x registry.test:5000/a")).ok();
    let requests = asked(&sandbox);
    // TLS goes through a tunnel.
    assert!(requests.starts_with("CONNECT registry.test:5000 \n"), "{requests}");
    for line in requests.lines().skip(1) {
        let (method, rest) = line.split_once(' ').unwrap();
        assert!(["GET", "HEAD", "POST", "PUT"].contains(&method), "{requests}");
        assert!(
            rest.starts_with("http://registry.test:5000/v2/") && rest.ends_with(" Basic dTpwQHM="),
            "{line}"
        );
    }
    sandbox.sh(&format!("{variables} img-pull -q --insecure --root fresh --apply registry.test:5000/a")).ok();
    assert_eq!(sandbox.sh("cat fresh/layers/*/etc/name").ok(), "a");
    // The same holds for later requests on the same connection.
    assert_eq!(sandbox.sh("grep -c 'http.request.uri=\"/' plain.log || :").ok(), "0\n");
    let pushed = "grep -c 'http.request.uri=\"http://registry.test:5000/v2/a/manifests/' plain.log";
    assert_ne!(sandbox.sh(pushed).ok(), "0\n");
}

#[test]
fn tls_goes_through_a_tunnel() {
    let sandbox = with_proxy();
    for (proxy, credentials) in
        [("http://127.0.0.1:3128", ""), ("u:p@127.0.0.1:3128", "Basic dTpw"), ("https://localhost:3129", "")]
    {
        let variables = format!("https_proxy={proxy} HTTP_PROXY=http://127.0.0.1:1");
        sandbox.sh(&format!("{variables} img-push -q --cacert cert.pem x registry.test:5001/a")).ok();
        sandbox
            .sh(&format!(
                "rm -rf fresh; {variables} img-pull -q --cacert cert.pem --root fresh registry.test:5001/a"
            ))
            .ok();
        assert_eq!(asked(&sandbox), format!("CONNECT registry.test:5001 {credentials}\n"), "{proxy}");
    }
    // The proxy's certificate is valid, but the registry's is not.
    let untrusted = "HTTPS_PROXY=http://127.0.0.1:3128 img-pull -q registry.test:5001/a";
    let error = sandbox.sh(untrusted).exits(1).stderr;
    assert!(
        error.contains(" through proxy http://127.0.0.1:3128: the certificate is not trusted: "),
        "{error}"
    );
}

#[test]
fn reached_without_the_proxy() {
    let sandbox = with_proxy();
    let dead = "HTTP_PROXY=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1 ALL_PROXY=http://127.0.0.1:1";
    for host in ["localhost:5000", "127.0.0.1:5000"] {
        sandbox.sh(&format!("{dead} img-push -q x {host}/a; {dead} img-pull -q {host}/a")).ok();
    }
    let push = |variables: &str| {
        sandbox.sh(&format!("{variables} img-push -q --insecure x {HOST}:5000/b")).ok();
        asked(&sandbox)
    };
    // The variable for TLS does not apply to plain HTTP.
    assert_eq!(push("HTTPS_PROXY=http://127.0.0.1:3128"), format!("CONNECT {HOST}:5000 \n"));
    assert_eq!(push("ALL_PROXY=http://127.0.0.1:1"), "");
    let both = "HTTP_PROXY=http://127.0.0.1:3128 HTTPS_PROXY=http://127.0.0.1:3128";
    for (list, direct) in [
        ("*", true),
        (HOST, true),
        ("192.0.2.1:5000", true),
        ("192.0.2.1:5001", false),
        ("a.example, 192.0.2.0/24", true),
        ("192.0.3.0/24", false),
    ] {
        assert_eq!(push(&format!("{both} NO_PROXY='{list}'")).is_empty(), direct, "{list}");
    }
}

#[test]
fn what_a_proxy_does_not_allow() {
    let sandbox = with_proxy();
    let error = |command: &str| sandbox.sh(command).exits(1).stderr;
    let get = "img-pull: get https://registry.test:5001/v2/a/manifests/latest";
    assert_eq!(
        error("HTTPS_PROXY=http://u:secret@127.0.0.1:1 img-pull -q registry.test:5001/a"),
        format!(
            "{get}: proxy http://127.0.0.1:1: Connection refused\n\
             hint: HTTPS_PROXY names the proxy; set NO_PROXY=registry.test:5001 to bypass it\n"
        )
    );
    sandbox.sh("touch closed").ok();
    assert_eq!(
        error("HTTPS_PROXY=http://u:secret@127.0.0.1:3128 img-pull -q registry.test:5001/a"),
        format!(
            "{get}: proxy http://127.0.0.1:3128: 407 Proxy Authentication Required\n\
             hint: set HTTPS_PROXY=http://user:password@host:port to give the proxy a password\n"
        )
    );
    let both = "HTTP_PROXY=http://u:secret@127.0.0.1:3128 HTTPS_PROXY=http://127.0.0.1:3128";
    assert_eq!(
        error(&format!("{both} img-pull -q --insecure registry.test:5000/a")),
        "img-pull: get http://registry.test:5000/v2/a/manifests/latest through proxy http://127.0.0.1:3128: \
         407 Proxy Authentication Required\n\
         hint: set HTTP_PROXY=http://user:password@host:port to give the proxy a password\n"
    );
    assert_eq!(
        error("HTTPS_PROXY=socks5://u:secret@127.0.0.1:3128 img-pull -q registry.test:5001/a"),
        "img-pull: read HTTPS_PROXY: scheme \"socks5\" is not http or https\n"
    );
    // If both ways were tried, the error names the one that failed.
    assert_eq!(
        error(&format!("HTTPS_PROXY=http://127.0.0.1:1 img-pull -q --insecure {HOST}:9/a")),
        format!(
            "img-pull: get https://{HOST}:9/v2/: proxy http://127.0.0.1:1: Connection refused\n\
             hint: HTTPS_PROXY names the proxy; set NO_PROXY={HOST}:9 to bypass it\n"
        )
    );
    // The proxy speaks TLS, and rejects a plain request.
    let no_http = error("HTTPS_PROXY=http://127.0.0.1:3129 img-pull -q --retries 0 registry.test:5001/a");
    let broke = format!("{get}: proxy http://127.0.0.1:3129: the connection broke\n");
    assert!(no_http.starts_with(&broke), "{no_http}");
}
