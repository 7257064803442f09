//! What a registry has, and who may see it: img-login, img-logout, img-tags, img-digest, img-referrers and
//! img-rm --remote with Debian's docker-registry and skopeo.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};
use testkit::{Sandbox, rootfs};

/// A registry with plain HTTP on port 5000. On 5001, with TLS and a password, the same repositories.
fn with_registries() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .sh("htpasswd -Bbc htpasswd u 'p:w' 2> /dev/null
            openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
                -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE 2> /dev/null
            mkdir certs home && cp cert.pem certs/ca.crt")
        .ok();
    let storage = json!({"delete": {"enabled": true}});
    sandbox.start_registry(5000, "data", json!({"storage": storage}));
    let tls = json!({"certificate": "cert.pem", "key": "key.pem"});
    let auth = json!({"htpasswd": {"realm": "test", "path": "htpasswd"}});
    sandbox.start_registry(5001, "data", json!({"storage": storage, "http": {"tls": tls}, "auth": auth}));
    let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, b"a"));
    sandbox
        .sh_with(
            "img-load -q -t a - > /dev/null && img-push -q a localhost:5000/lib/a:1 > /dev/null",
            &archive,
        )
        .ok();
    sandbox
}

#[test]
fn log_in_and_out() {
    let sandbox = with_registries();
    let sh = |line: &str| {
        sandbox.sh(&format!(
            "export HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/home/run DOCKER_CONFIG= XDG_CONFIG_HOME=\n{line}"
        ))
    };
    let refused =
        sh("echo wrong | img-login localhost:5001 -u u --password-stdin --cert-dir certs").exits(1).stderr;
    assert_eq!(
        refused,
        "img-login: get https://localhost:5001/v2/: 401 Unauthorized: authentication required\n"
    );
    assert_eq!(sh("find home -type f").ok(), "", "what was refused is not kept");

    let kept =
        sh("echo 'p:w' | img-login https://localhost:5001/ -u u --password-stdin --cert-dir certs").exits(0);
    let file = sandbox.directory().join("home/.docker/config.json");
    assert_eq!(kept.stderr, format!("img-login: the password is in {}, not encrypted\n", file.display()));
    let report: Value = serde_json::from_str(&kept.stdout).unwrap();
    assert_eq!(report, json!({"registry": "localhost:5001", "username": "u", "file": file}));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    sh("skopeo inspect --cert-dir certs docker://localhost:5001/lib/a:1 > /dev/null").ok();
    sh("img-pull -q --cert-dir certs --root fresh localhost:5001/lib/a:1 > /dev/null").ok();

    // podman's file is read first, so an existing login is renewed there.
    sh("mkdir -p home/run/containers && echo '{\"auths\": {\"localhost:5001\": {\"auth\": \"eDp5\"}}}' > home/run/containers/auth.json").ok();
    let denied = sh("img-tags --cert-dir certs localhost:5001/lib/a").exits(1).stderr;
    assert!(denied.ends_with("\nhint: log in with `img-login localhost:5001`\n"), "{denied}");
    sh("echo 'p:w' | img-login -q localhost:5001 -u u --password-stdin --cert-dir certs > /dev/null").ok();
    sh("img-tags --cert-dir certs localhost:5001/lib/a").ok();

    let removed = sh("img-logout localhost:5001").json();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2, "{removed}");
    sh("img-tags --cert-dir certs localhost:5001/lib/a").exits(1);
    assert_eq!(
        sh("img-logout localhost:5001").exits(0).stderr,
        "img-logout: there was no login for localhost:5001\n"
    );
    sh("img-tags --cert-dir certs --creds 'u:p:w' localhost:5001/lib/a").ok();
    sh("img-tags --tls-verify=false --creds 'u:p:w' localhost:5001/lib/a").ok();
    let untrusted = sh("img-tags --creds 'u:p:w' localhost:5001/lib/a").exits(1).stderr;
    assert!(untrusted.contains("the certificate is not trusted"), "{untrusted}");
}

#[test]
fn a_helper_keeps_the_login() {
    let sandbox = with_registries();
    let helper = "#!/bin/sh\necho $1 >> home/calls\ncase $1 in\nstore) cat > home/secret ;;\nget) cat home/secret ;;\nerase) rm home/secret ;;\nesac\n";
    fs::create_dir(sandbox.directory().join("bin")).unwrap();
    fs::write(sandbox.directory().join("bin/docker-credential-box"), helper).unwrap();
    fs::write(sandbox.directory().join("home/auth.json"), r#"{"credHelpers": {"localhost:5001": "box"}}"#)
        .unwrap();
    let sh = |line: &str| {
        sandbox.sh(&format!(
            "chmod +x bin/*; export PATH=$PWD/bin:$PATH REGISTRY_AUTH_FILE=$PWD/home/auth.json\n{line}"
        ))
    };
    let report = sh("echo 'p:w' | img-login localhost:5001 -u u --password-stdin --cacert cert.pem").json();
    assert_eq!(report["helper"], "docker-credential-box");
    let secret = sandbox.sh("cat home/secret").json();
    assert_eq!(secret, json!({"ServerURL": "localhost:5001", "Username": "u", "Secret": "p:w"}));
    assert!(!sandbox.sh("cat home/auth.json").ok().contains("auth\""), "the file has no secret");
    sh("img-tags --cacert cert.pem localhost:5001/lib/a").ok();
    let removed = sh("img-logout localhost:5001").json();
    assert_eq!(removed["removed"], json!([{"helper": "docker-credential-box"}]));
    sh("img-tags --cacert cert.pem localhost:5001/lib/a").exits(1);
}

#[test]
fn at_the_terminal() {
    let sandbox = with_registries();
    // script provides the terminal. The input is typed when the question is shown.
    let typed = "(while ! grep -q Username log; do sleep 0.02; done; echo u; while ! grep -q Password log; do sleep 0.02; done; echo p:w) |
        HOME=$PWD/home script -qfc 'img-login localhost:5001 --cert-dir certs --authfile home/auth.json > report' log > /dev/null";
    sandbox.sh(typed).ok();
    assert_eq!(sandbox.sh("cat report").json()["username"], "u");
    let shown = sandbox.sh("cat log").ok();
    assert!(shown.contains("Username: ") && !shown.contains("p:w"), "{shown}");
    let without = sandbox.sh("setsid -w img-login localhost:5001 < /dev/null").exits(1).stderr;
    assert_eq!(
        without,
        "img-login: ask at the terminal: No such device or address\n\
         hint: give the name with --username and the password with --password-stdin\n"
    );
}

#[test]
fn tags_digests_and_removal() {
    let sandbox = with_registries();
    sandbox.sh("for tag in 2 3 latest; do img-push -q a localhost:5000/lib/a:$tag > /dev/null; done").ok();
    let tags = sandbox.sh("img-tags localhost:5000/lib/a").json();
    assert_eq!(tags, json!({"repository": "localhost:5000/lib/a", "tags": ["1", "2", "3", "latest"]}));
    assert_eq!(sandbox.sh("img-tags --lines localhost:5000/lib/a").ok(), "1\n2\n3\nlatest\n");
    let missing = sandbox.sh("img-tags localhost:5000/lib/none").exits(1).stderr;
    assert!(missing.contains("404 Not Found"), "{missing}");
    let tagged = sandbox.sh("img-tags localhost:5000/lib/a:1").exits(2).stderr;
    assert!(tagged.contains("a repository has no tag; name it \"localhost:5000/lib/a\""), "{tagged}");

    let found = sandbox.sh("img-digest localhost:5000/lib/a").json();
    let theirs = sandbox.sh("skopeo inspect --tls-verify=false docker://localhost:5000/lib/a").json();
    assert_eq!(found["digest"], theirs["Digest"]);
    let digest = found["digest"].as_str().unwrap();
    assert_eq!(found["reference"], format!("localhost:5000/lib/a@{digest}"));
    sandbox.sh(&format!("img-digest localhost:5000/lib/a@{digest} --platform linux/amd64")).ok();

    // Debian's registry can remove manifests by digest only. Removing all names for one would lose the
    // others.
    let kept = sandbox.sh("img-rm --remote localhost:5000/lib/a:2").exits(1).stderr;
    assert_eq!(
        kept,
        format!(
            "img-rm: remove localhost:5000/lib/a:2: the registry cannot remove only a name\n\
             hint: localhost:5000/lib/a@{digest} removes the image with all its names there\n"
        )
    );
    sandbox.sh("img-pull -q localhost:5000/lib/a:2 > /dev/null").ok();
    let removed = sandbox.sh(&format!("img-rm --remote localhost:5000/lib/a@{digest}")).exits(0);
    assert_eq!(removed.stderr, format!("Deleted: localhost:5000/lib/a@{digest}\n"));
    sandbox.sh("img-pull -q localhost:5000/lib/a:2 > /dev/null").exits(1);
    sandbox.sh(&format!("img-rm --remote localhost:5000/lib/a@{digest}")).exits(1);
    sandbox.sh(&format!("img-rm --remote --force localhost:5000/lib/a@{digest}")).ok();
    let alone = sandbox.sh("img-rm --insecure a").exits(2).stderr;
    assert!(alone.contains("--remote"), "{alone}");
}

/// Debian's registry keeps no list of referrers, so the one under a tag is used.
#[test]
fn referrers_under_a_tag() {
    let sandbox = with_registries();
    let digest = sandbox.sh("img-digest localhost:5000/lib/a:1 | jq -r .digest").ok().trim().to_owned();
    let none = sandbox.sh("img-referrers localhost:5000/lib/a:1").json();
    assert_eq!(none, json!({"subject": format!("localhost:5000/lib/a@{digest}"), "referrers": []}));
    // The registry requires everything that an index names: here the image itself, twice.
    let own = sandbox.sh("img-digest localhost:5000/lib/a:1").json();
    let entry = |kind: &str| json!({"mediaType": own["mediaType"], "size": own["size"], "digest": digest, "artifactType": kind});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry("a/signature"), entry("a/sbom")]});
    let put = format!(
        "curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @- \
            http://localhost:5000/v2/lib/a/manifests/{}",
        digest.replace(':', "-")
    );
    sandbox.sh_with(&put, index.to_string().as_bytes()).ok();
    let all = sandbox.sh("img-referrers localhost:5000/lib/a:1").json();
    assert_eq!(all["referrers"].as_array().unwrap().len(), 2, "{all}");
    let one = sandbox.sh("img-referrers --artifact-type a/sbom localhost:5000/lib/a:1").json();
    assert_eq!(one["referrers"][0]["artifactType"], "a/sbom");
    assert_eq!(one["referrers"].as_array().unwrap().len(), 1);
}

/// registries.conf may allow plain HTTP. A login asks there, too.
#[test]
fn plain_http_by_registries_conf() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("htpasswd -Bbc htpasswd u 'p:w' 2> /dev/null && mkdir home
            echo '127.0.0.1 reg.test' > hosts && mount --bind hosts /etc/hosts")
        .ok();
    let auth = json!({"htpasswd": {"realm": "test", "path": "htpasswd"}});
    sandbox.start_registry(5000, "data", json!({"auth": auth}));
    let log_in = |configuration: &str| {
        fs::write(sandbox.directory().join("registries.conf"), configuration).unwrap();
        sandbox.sh(
            "export HOME=$PWD/home DOCKER_CONFIG= XDG_RUNTIME_DIR= CONTAINERS_REGISTRIES_CONF=$PWD/registries.conf
            echo p:w | img-login -q -u u --password-stdin reg.test:5000",
        )
    };
    let refused = log_in("").exits(1).stderr;
    assert!(refused.contains("the server does not speak TLS"), "{refused}");
    log_in("[[registry]]\nlocation = \"reg.test:5000\"\ninsecure = true\n").exits(0);
}
