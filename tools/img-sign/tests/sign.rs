//! Signs images in a registry, and pulls only signed ones. OpenSSL checks the signatures.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::{Sandbox, rootfs};

/// A registry on port 5000 with lib/a:1 and lib/b:1, and two keys.
fn with_keys() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.start_registry(5000, "data", json!({}));
    for name in ["a", "b"] {
        let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, name.as_bytes()));
        let load = format!(
            "img-load -q -t {name} - > /dev/null && img-push -q {name} localhost:5000/lib/{name}:1 > /dev/null"
        );
        sandbox.sh_with(&load, &archive).ok();
    }
    sandbox
        .sh("for key in one two; do
                openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $key.pem 2> /dev/null
                openssl pkey -in $key.pem -pubout -out $key.pub
            done
            openssl ec -in one.pem -out sec1.pem 2> /dev/null
            openssl genpkey -algorithm RSA -out rsa.pem 2> /dev/null && openssl pkey -in rsa.pem -pubout -out rsa.pub")
        .ok();
    sandbox
}

#[test]
fn an_image_is_taken_only_if_it_is_signed() {
    let sandbox = with_keys();
    let pull = |words: &str| sandbox.sh(&format!("img-pull -q --root fresh {words} > /dev/null"));
    let refused = |words: &str, why: &str| {
        let line = pull(words).exits(1).stderr;
        assert!(line.contains(why), "{words}: {line}");
        assert_eq!(sandbox.sh("img-ls --root fresh | jq '.images | length'").ok(), "0\n", "{words}");
    };
    refused("--verify one.pub localhost:5000/lib/a:1", "is not proven: it has no signatures");
    let signed = sandbox.sh("img-sign --key one.pem localhost:5000/lib/a:1").json();
    assert_eq!(
        (&signed["signatures"], &signed["digest"]),
        (&json!(1), &sandbox.sh("img-digest localhost:5000/lib/a:1").json()["digest"])
    );
    refused("--verify two.pub localhost:5000/lib/a:1", "none of its signatures is by the key");
    // The same key does not sign twice, whatever its file's form; another one adds to it.
    assert_eq!(sandbox.sh("img-sign --key sec1.pem localhost:5000/lib/a:1").json(), signed);
    assert_eq!(sandbox.sh("img-sign --key two.pem localhost:5000/lib/a:1").json()["signatures"], 2);
    let found = sandbox.sh("img-referrers localhost:5000/lib/a:1").json();
    assert_eq!(found["referrers"][0]["annotations"]["org.opencontainers.image.ref.name"], signed["tag"]);

    // OpenSSL agrees.
    sandbox
        .sh(&format!(
            "tag={} && accept='Accept: application/vnd.oci.image.manifest.v1+json'
            curl -sf -H \"$accept\" localhost:5000/v2/lib/a/manifests/$tag > signatures.json
            curl -sf localhost:5000/v2/lib/a/blobs/$(jq -r '.layers[0].digest' signatures.json) > payload
            jq -r '.layers[0].annotations[\"dev.cosignproject.cosign/signature\"]' signatures.json | base64 -d > signature
            openssl dgst -sha256 -verify one.pub -signature signature payload > /dev/null
            jq -e '.critical.type == \"cosign container image signature\"' payload > /dev/null
            skopeo inspect --tls-verify=false docker://localhost:5000/lib/a:$tag > /dev/null",
            signed["tag"].as_str().unwrap()
        ))
        .ok();
    pull("--verify two.pub --verify one.pub localhost:5000/lib/a:1").ok();
    sandbox.sh("img-rm -q --root fresh localhost:5000/lib/a:1 > /dev/null").ok();

    // A copy is signed for the original's repository, and a signature is for one image.
    sandbox
        .sh(&format!(
            "img-copy -q localhost:5000/lib/a:1 localhost:5000/copy/a:1 > /dev/null
            img-copy -q localhost:5000/lib/a:{0} localhost:5000/copy/a:{0} > /dev/null",
            signed["tag"].as_str().unwrap()
        ))
        .ok();
    refused(
        "--verify one.pub localhost:5000/copy/a:1",
        "the signature by the key is for \"localhost:5000/lib/a\"\nhint: ",
    );
    pull("--verify one.pub --verify-as localhost:5000/lib/a localhost:5000/copy/a:1").ok();
    sandbox.sh("img-rm -q --root fresh localhost:5000/copy/a:1 > /dev/null").ok();
    let other =
        sandbox.sh("img-digest localhost:5000/lib/b:1").json()["digest"].as_str().unwrap().replace(':', "-");
    sandbox
        .sh(&format!(
            "img-copy -q localhost:5000/lib/a:{} localhost:5000/lib/b:{other}.sig > /dev/null",
            signed["tag"].as_str().unwrap()
        ))
        .ok();
    refused("--verify one.pub localhost:5000/lib/b:1", "the signature by the key is for another image");
    refused(
        "--verify rsa.pub localhost:5000/lib/a:1",
        "read key \"rsa.pub\": it is no public key for ECDSA with P-256, in PEM",
    );
}

/// A key as `cosign generate-key-pair` writes it, with the password "secret".
const COSIGN_KEY: &str = include_str!("cosign.key");
const COSIGN_PUB: &str = include_str!("cosign.pub");

#[test]
fn an_encrypted_key_of_cosign() {
    let sandbox = with_keys();
    std::fs::write(sandbox.directory().join("cosign.key"), COSIGN_KEY).unwrap();
    std::fs::write(sandbox.directory().join("cosign.pub"), COSIGN_PUB).unwrap();
    let sign = |password: &str| {
        sandbox.sh(&format!("{password} img-sign --key cosign.key localhost:5000/lib/a:1 < /dev/null"))
    };
    let wrong = sign("COSIGN_PASSWORD=wrong").exits(1).stderr;
    assert_eq!(wrong, "img-sign: read key \"cosign.key\": the password is wrong\n");
    sign("COSIGN_PASSWORD=secret").ok();
    sandbox.sh("img-pull -q --root fresh --verify cosign.pub localhost:5000/lib/a:1 > /dev/null").ok();
    let no_key = sandbox.sh("img-sign --key rsa.pem localhost:5000/lib/a:1").exits(1).stderr;
    assert_eq!(no_key, "img-sign: read key \"rsa.pem\": it is no private key for ECDSA with P-256, in PEM\n");
}
