//! A real registry, Debian's docker-registry, with skopeo on its other side.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::fs;

use serde_json::json;
use testkit::{Sandbox, rootfs};

const START: &str = r#"
docker-registry serve plain.yml > plain.log 2>&1 &
docker-registry serve safe.yml > safe.log 2>&1 &
for port in 5000 5001; do
    for try in $(seq 100); do
        bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2> /dev/null && break
        sleep 0.05
    done
done
"#;

/// Plain HTTP on port 5000; TLS and a password, with the same repositories, on 5001.
fn with_registries() -> Sandbox {
    let sandbox = Sandbox::new();
    let write = |name: &str, value: serde_json::Value| {
        fs::write(sandbox.directory().join(name), value.to_string()).unwrap();
    };
    let storage = json!({"filesystem": {"rootdirectory": sandbox.directory().join("data")}});
    write("plain.yml", json!({"version": 0.1, "storage": storage, "http": {"addr": "127.0.0.1:5000"}}));
    write(
        "safe.yml",
        json!({"version": 0.1, "storage": storage,
        "auth": {"htpasswd": {"realm": "test", "path": "htpasswd"}},
        "http": {"addr": "127.0.0.1:5001", "tls": {"certificate": "cert.pem", "key": "key.pem"}}}),
    );
    write("auth.json", json!({"auths": {"localhost:5001": {"auth": "dTpw"}}}));
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

#[test]
fn there_and_back() {
    let sandbox = with_registries();
    let pushed = sandbox.sh("img-push -q localhost:5000/lib/a").json();
    assert_eq!((&pushed["sent"], &pushed["existing"]), (&json!(2), &json!(0)));
    let again = sandbox.sh("img-push -q localhost:5000/lib/a").json();
    assert_eq!((&again["sent"], &again["existing"]), (&json!(0), &json!(2)));
    let other = sandbox.sh("img-push localhost:5000/lib/a localhost:5000/lib/b").exits(0);
    assert!(other.stderr.contains(": Mounted from lib/a\n"), "{}", other.stderr);
    let seen = sandbox.sh("skopeo inspect --tls-verify=false docker://localhost:5000/lib/b").json();
    assert_eq!(seen["Digest"], pushed["digest"]);

    let pulled = sandbox.sh("img-pull --root fresh localhost:5000/lib/a").exits(0);
    assert!(pulled.stderr.starts_with("latest: Pulling from lib/a\n"), "{}", pulled.stderr);
    assert!(pulled.stderr.ends_with("Status: Downloaded newer image for localhost:5000/lib/a:latest\n"));
    let again = sandbox.sh("img-pull --root fresh localhost:5000/lib/a").exits(0);
    assert!(again.stderr.ends_with("Status: Image is up to date for localhost:5000/lib/a:latest\n"));
    sandbox.sh("img-pull -q --root applied --apply localhost:5000/lib/b > /dev/null").ok();
    assert_eq!(sandbox.sh("cat applied/layers/*/etc/name").ok(), "a");
}

#[test]
fn what_skopeo_wrote() {
    let sandbox = with_registries();
    for format in ["oci", "v2s2"] {
        sandbox
            .sh(&format!(
                "skopeo copy -q --dest-tls-verify=false --format {format} \
                    oci:root/images:localhost:5000/lib/a:latest docker://localhost:5000/skopeo:{format}
                rm -rf fresh
                img-pull -q --root fresh localhost:5000/skopeo:{format} | layer-apply --root fresh > /dev/null"
            ))
            .ok();
        assert_eq!(sandbox.sh("cat fresh/layers/*/etc/name").ok(), "a", "{format}");
    }
}

#[test]
fn certificates_and_passwords() {
    let sandbox = with_registries();
    let name = "localhost:5001/lib/a";
    let untrusted = sandbox.sh(&format!("img-pull {name}")).exits(1).stderr;
    assert!(untrusted.contains(": the certificate is not trusted: "), "{untrusted}");
    let denied = sandbox.sh(&format!("img-pull --cacert cert.pem {name}")).exits(1).stderr;
    assert!(
        denied.contains("/manifests/latest: 401 Unauthorized: authentication required\nhint: "),
        "{denied}"
    );
    let flags = "-q --cacert cert.pem --authfile auth.json";
    sandbox.sh(&format!("img-push {flags} localhost:5000/lib/a {name}")).ok();
    sandbox.sh(&format!("img-pull {flags} {name}")).ok();
    let helper = "#!/bin/sh\nread -r host || :\necho '{\"Username\": \"u\", \"Secret\": \"p\"}'\n";
    fs::write(sandbox.directory().join("docker-credential-test"), helper).unwrap();
    fs::write(sandbox.directory().join("config.json"), r#"{"credHelpers": {"localhost:5001": "test"}}"#)
        .unwrap();
    sandbox
        .sh(&format!(
            "chmod +x docker-credential-test
            PATH=$PWD:$PATH DOCKER_CONFIG=$PWD XDG_CONFIG_HOME=$PWD/none XDG_RUNTIME_DIR=$PWD/none \
                img-pull -q --insecure {name}"
        ))
        .ok();
}
