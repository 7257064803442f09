//! Signs images in a registry, and pulls only signed ones. OpenSSL checks the signatures.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::{Sandbox, rootfs};

/// A registry on port 5000 with lib/a:1 and lib/b:1, and two keys.
fn with_keys() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.start_registry(5000, "data", json!({"storage": {"delete": {"enabled": true}}}));
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

/// OpenSSL verifies the first signature, and skopeo reads the manifest with this tag.
fn assert_openssl_agrees(sandbox: &Sandbox, tag: &str) {
    sandbox
        .sh(&format!(
            "tag={tag} && accept='Accept: application/vnd.oci.image.manifest.v1+json'
            curl -sf -H \"$accept\" localhost:5000/v2/lib/a/manifests/$tag > signatures.json
            curl -sf localhost:5000/v2/lib/a/blobs/$(jq -r '.layers[0].digest' signatures.json) > payload
            jq -r '.layers[0].annotations[\"dev.cosignproject.cosign/signature\"]' signatures.json | base64 -d > signature
            openssl dgst -sha256 -verify one.pub -signature signature payload > /dev/null
            jq -e '.critical.type == \"cosign container image signature\"' payload > /dev/null
            skopeo inspect --tls-verify=false docker://localhost:5000/lib/a:$tag > /dev/null"
        ))
        .ok();
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

    assert_openssl_agrees(&sandbox, signed["tag"].as_str().unwrap());
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

#[test]
fn signatures_that_are_made_at_the_same_time_all_stay() {
    let sandbox = with_keys();
    sandbox
        .sh("for n in 1 2 3 4; do
                openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $n.pem 2> /dev/null
            done
            for n in 1 2 3 4; do img-sign --key $n.pem localhost:5000/lib/a:1 > $n.json & pids=\"$pids $!\"; done
            for pid in $pids; do wait $pid || exit 1; done")
        .ok();
    sandbox
        .sh("for n in 1 2 3 4; do
                openssl pkey -in $n.pem -pubout -out $n.pub
                img-pull -q --root fresh$n --verify $n.pub localhost:5000/lib/a:1 > /dev/null || exit 1
            done")
        .ok();
}

/// Writes a policy with this requirement for two places of the registry.
fn write_policy(sandbox: &Sandbox, requirement: &str) {
    let text = format!(
        r#"{{"default": [{{"type": "reject"}}], "transports": {{"docker": {{"localhost:5000/lib": [{requirement}],
            "localhost:5000/copy": [{requirement}]}}}}}}"#
    );
    let text = text.replace("PWD", sandbox.directory().to_str().unwrap());
    std::fs::write(sandbox.directory().join("policy.json"), text).unwrap();
}

#[test]
fn a_policy_asks_for_signatures() {
    let sandbox = with_keys();
    let policy = |requirement: &str| write_policy(&sandbox, requirement);
    let pull = |words: &str| {
        sandbox.sh(&format!("img-pull -q --root fresh --policy policy.json {words} > /dev/null"))
    };
    let refused = |words: &str, why: &str| {
        let line = pull(words).exits(1).stderr;
        assert!(line.contains(why), "{words}: {line}");
        assert_eq!(sandbox.sh("img-ls --root fresh | jq '.images | length'").ok(), "0\n", "{words}");
    };
    let by_one = r#"{"type": "sigstoreSigned", "keyPath": "PWD/one.pub", "signedIdentity": {"type": "matchRepository"}}"#;
    policy(by_one);
    let why = "is not proven as policy.json asks: it has no signatures\nhint: --insecure-policy of img-pull";
    refused("localhost:5000/lib/a:1", why);
    let copied =
        sandbox.sh("img-copy -q --policy policy.json localhost:5000/lib/a:1 localhost:5000/new/a:1").exits(1);
    assert!(copied.stderr.contains(why), "{copied:?}");
    sandbox.sh("img-sign --key one.pem localhost:5000/lib/a:1 > /dev/null").ok();
    sandbox
        .sh("img-copy -q --policy policy.json localhost:5000/lib/a:1 localhost:5000/new/a:1 > /dev/null")
        .ok();
    pull("localhost:5000/lib/a:1").ok();
    pull("localhost:5000/lib/a@$(img-digest localhost:5000/lib/a:1 | jq -r .digest)").ok();
    sandbox.sh("rm -r fresh").ok();
    refused("localhost:5000/lib/b:1", "it has no signatures");
    refused("localhost:5000/other/a:1", "localhost:5000/other/a:1 is rejected by policy.json");
    refused("--policy none.json localhost:5000/lib/a:1", "read none.json: No such file or directory");

    // Every requirement counts. A signature without a tag is not for one by default.
    policy(&format!("{by_one}, {}", by_one.replace("one.pub", "two.pub")));
    refused("localhost:5000/lib/a:1", "none of its signatures is by the key");
    sandbox.sh("img-sign --key two.pem localhost:5000/lib/a:1 > /dev/null").ok();
    pull("localhost:5000/lib/a:1").ok();
    sandbox.sh("rm -r fresh").ok();
    policy(r#"{"type": "sigstoreSigned", "keyPath": "PWD/one.pub"}"#);
    refused(
        "localhost:5000/lib/a:1",
        "the signature by the key is for \"localhost:5000/lib/a\"\nhint: `signedIdentity` there",
    );

    // A copy has the original's name in its signatures.
    let tag = sandbox.sh("img-sign --key one.pem localhost:5000/lib/a:1 | jq -r .tag").ok();
    let tag = tag.trim();
    sandbox.sh(&format!("for tag in 1 {tag}; do img-copy -q localhost:5000/lib/a:$tag localhost:5000/copy/a:$tag > /dev/null || exit 1; done")).ok();
    policy(by_one);
    refused("localhost:5000/copy/a:1", "the signature by the key is for \"localhost:5000/lib/a\"");
    policy(
        &by_one.replace(
            r#""matchRepository""#,
            r#""exactRepository", "dockerRepository": "localhost:5000/lib/a""#,
        ),
    );
    pull("localhost:5000/copy/a:1").ok();
}

#[test]
fn a_mirror_may_have_the_signatures_and_an_index_or_all_its_images_be_signed() {
    let sandbox = with_keys();
    let requirement = r#"{"type": "sigstoreSigned", "keyPath": "PWD/one.pub", "signedIdentity": {"type": "matchRepository"}}"#;
    let text =
        format!(r#"{{"default": [{requirement}]}}"#).replace("PWD", sandbox.directory().to_str().unwrap());
    std::fs::write(sandbox.directory().join("policy.json"), text).unwrap();
    sandbox
        .sh("echo 'FROM scratch' > Dockerfile
            img-build -q --platform linux/amd64,linux/arm64 -t both --network none . > /dev/null
            img-push -q both localhost:5000/lib/both:1 > /dev/null")
        .ok();
    let pull = |words: &str| {
        sandbox.sh(&format!(
            "img-pull -q --root fresh --policy policy.json {words} localhost:5000/lib/both:1 > /dev/null"
        ))
    };
    pull("").exits(1);
    let digests = "img-pull -q --all-platforms localhost:5000/lib/both:1 > /dev/null && skopeo inspect --raw --tls-verify=false \
        docker://localhost:5000/lib/both:1 | jq -r '.manifests[] | select(.platform.architecture == \"ARCH\").digest'";
    for (architecture, works) in [("amd64", false), ("arm64", true)] {
        let digest = sandbox.sh(&digests.replace("ARCH", architecture)).ok();
        sandbox.sh(&format!("img-sign --key one.pem localhost:5000/lib/both@{digest}")).ok();
        pull(&format!("--platform linux/{architecture}")).ok();
        pull("--all-platforms").exits(i32::from(!works));
    }
    // The registry itself has lost them, and only the mirror has them.
    sandbox.sh("img-sign --key one.pem localhost:5000/lib/a:1 | jq -r .tag > tag").ok();
    sandbox.start_registry(5001, "other", json!({}));
    sandbox
        .sh("for tag in 1 $(cat tag); do
                img-copy -q localhost:5000/lib/a:$tag localhost:5001/hub/lib/a:$tag > /dev/null || exit 1
            done
            img-rm --remote localhost:5000/lib/a@$(img-digest localhost:5000/lib/a:$(cat tag) | jq -r .digest) > /dev/null")
        .ok();
    sandbox.sh("img-pull -q --root fresh --policy policy.json localhost:5000/lib/a:1").exits(1);
    sandbox
        .sh("img-pull -q --root fresh --policy policy.json --mirror localhost:5001/hub localhost:5000/lib/a:1 > /dev/null")
        .ok();
    sandbox
        .sh("img-pull -q --root fresh --verify one.pub --mirror localhost:5001/hub localhost:5000/lib/a:1 > /dev/null")
        .ok();
}
