//! img-copy between registries, layouts, archives and the store, compared with skopeo and umoci.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::json;
use testkit::{Sandbox, rootfs};

/// Two registries, on ports 5000 and 5001. The first one has lib/a:1.
fn with_registries() -> Sandbox {
    let sandbox = Sandbox::new();
    for port in [5000, 5001] {
        sandbox.start_registry(port, &format!("data{port}"), json!({}));
    }
    let archive = rootfs(|tree| testkit::file(tree, "etc/name", 0o644, b"a"));
    sandbox
        .sh_with(
            "img-load -q -t a - > /dev/null && img-push -q a localhost:5000/lib/a:1 > /dev/null",
            &archive,
        )
        .ok();
    sandbox
}

/// An index of two platforms and an attestation, pushed as `localhost:5000/lib/many`.
const MANY: &str = r#"
    for platform in amd64 arm64; do
        printf 'FROM scratch\nCOPY Dockerfile /\nLABEL p=%s\n' $platform > Dockerfile
        img-build -q --platform linux/$platform -t p-$platform . > /dev/null
        img-push -q p-$platform localhost:5000/lib/many:$platform > /dev/null
    done
    entry() {
        curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' localhost:5000/v2/lib/many/manifests/$1 > m.json
        printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":%s,"digest":"sha256:%s","platform":{"os":"%s","architecture":"%s"}}' \
            $(stat -c %s m.json) $(sha256sum m.json | cut -d ' ' -f 1) $2 $3
    }
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,%s,%s]}' \
        "$(entry amd64 linux amd64)" "$(entry arm64 linux arm64)" "$(entry amd64 unknown unknown)" > index.json
    curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @index.json \
        localhost:5000/v2/lib/many/manifests/latest
"#;

#[test]
fn from_one_registry_to_another() {
    let sandbox = with_registries();
    let copied = sandbox.sh("img-copy -q localhost:5000/lib/a:1 docker://localhost:5001/x/y:2").json();
    assert_eq!((&copied["sent"], &copied["existing"], &copied["mounted"]), (&json!(2), &json!(0), &json!(0)));
    let digest = |name: &str| {
        let inspect = format!("skopeo inspect --tls-verify=false docker://{name} | jq -r .Digest");
        sandbox.sh(&inspect).ok().trim().to_owned()
    };
    assert_eq!(digest("localhost:5001/x/y:2"), digest("localhost:5000/lib/a:1"));
    assert_eq!(copied["digest"], digest("localhost:5000/lib/a:1"));
    let again = sandbox.sh("img-copy -q localhost:5000/lib/a:1 localhost:5001/x/y:3").json();
    assert_eq!((&again["sent"], &again["existing"]), (&json!(0), &json!(2)));
    let within = sandbox.sh("img-copy -q localhost:5001/x/y:2 localhost:5001/x/z").json();
    assert_eq!(
        (&within["sent"], &within["mounted"]),
        (&json!(0), &json!(2)),
        "the registry gives its own blobs"
    );
    assert_eq!(
        sandbox.sh("find /tmp -maxdepth 1 -name 'img-copy-*'").ok(),
        "",
        "nothing is stored on the way"
    );
    assert_eq!(sandbox.sh("img-ls | jq '.images | length'").ok(), "1\n", "the store has what it had");

    sandbox.sh(MANY).ok();
    let whole = sandbox.sh("img-copy -q localhost:5000/lib/many localhost:5001/many").json();
    assert_eq!(whole["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(digest("localhost:5001/many"), digest("localhost:5000/lib/many"));
    let one =
        sandbox.sh("img-copy -q --platform linux/arm64 localhost:5000/lib/many localhost:5001/one").json();
    assert_eq!(one["digest"], digest("localhost:5000/lib/many:arm64"));
}

#[test]
fn wrong_bytes_do_not_arrive() {
    let sandbox = with_registries();
    sandbox
        .sh("blob=$(ls -S data5000/docker/registry/v2/blobs/sha256/*/*/data | head -1)
        printf x | dd of=$blob conv=notrunc status=none")
        .ok();
    let refused = sandbox.sh("img-copy -q localhost:5000/lib/a:1 localhost:5001/x/y").exits(1).stderr;
    assert!(refused.starts_with("img-copy: read blob sha256:"), "{refused}");
    let tags = sandbox.sh("img-tags localhost:5001/x/y").exits(1).stderr;
    assert!(tags.contains("404"), "nothing got the name: {tags}");
    let missing = sandbox.sh("img-copy -q localhost:5000/none localhost:5001/x/y").exits(1).stderr;
    assert!(
        missing.contains("get http://localhost:5000/v2/none/manifests/latest: 404 Not Found"),
        "{missing}"
    );
}

#[test]
fn every_place() {
    let sandbox = with_registries();
    let sh = |line: &str| sandbox.sh(line).ok();
    sh("img-copy -q localhost:5000/lib/a:1 oci:layout:one > /dev/null
        umoci unpack --rootless --image layout:one bundle 2> /dev/null");
    assert_eq!(sh("cat bundle/rootfs/etc/name"), "a");
    sh("img-copy -q oci:layout:one oci-archive:a.tar:web:1 > /dev/null
        skopeo inspect oci-archive:a.tar > /dev/null
        img-copy -q oci-archive:a.tar docker-archive:d.tar:web:1 > /dev/null
        skopeo inspect docker-archive:d.tar > /dev/null
        img-copy -q docker-archive:d.tar store:back > /dev/null
        img-copy -q store:back localhost:5001/back > /dev/null
        img-copy -q localhost:5001/back store:again > /dev/null
        img-copy -q store:again oci:layout > /dev/null");
    let id = |name: &str| sandbox.sh(&format!("img-inspect {name} | jq -r .image.descriptor.digest")).ok();
    assert_eq!(id("back"), id("again"));
    assert_eq!(
        sh("img-inspect again | layer-apply | jq -r '.layers[0].directory' | xargs -I{} cat {}/etc/name"),
        "a"
    );
    assert_eq!(
        sh("img-ls | jq -c '[.images[].references[]] | sort'"),
        "[\"a:latest\",\"again:latest\",\"back:latest\"]\n"
    );
    assert_eq!(sh("find /tmp -maxdepth 1 -name 'img-copy-*'"), "");
    sh("printf 'FROM scratch\\nCOPY a.tar /\\n' > Dockerfile
        img-build -q -t other . > /dev/null && img-copy -q store:other oci:layout:two > /dev/null");
    let several = sandbox.sh("img-copy oci:layout store:x").exits(1).stderr;
    assert_eq!(several, "img-copy: layout has 2 images\nhint: add :NAME to say which one\n");
    for place in ["oci:layout", "docker-archive:d.tar"] {
        let path = place.split(':').nth(1).unwrap();
        let none = sandbox.sh(&format!("img-copy {place}:nope store:x")).exits(1).stderr;
        assert_eq!(none, format!("img-copy: {path} has no image \"nope\"\n"));
    }
    let before = sh("sha256sum d.tar");
    let exists = sandbox.sh("img-copy store:other docker-archive:d.tar:two:1").exits(1).stderr;
    let advice = "hint: remove the file first, or name another one: an existing archive is not extended";
    assert_eq!(exists, format!("img-copy: write \"d.tar\": File exists\n{advice}\n"));
    assert_eq!(sh("sha256sum d.tar"), before);
    // A file from mktemp is empty.
    sh("img-copy -q store:other docker-archive:$(mktemp -p $PWD) > /dev/null");
    let nowhere = sandbox.sh("img-copy oci:none store:x").exits(1).stderr;
    assert!(nowhere.starts_with("img-copy: "), "{nowhere}");
    let unknown = sandbox.sh("img-copy dir:x store:x").exits(2).stderr;
    assert!(unknown.contains("\"dir\" is none of docker://"), "{unknown}");
}

#[test]
fn a_part_of_an_image_is_not_copied_as_the_whole() {
    let sandbox = with_registries();
    sandbox.sh(MANY).ok();
    sandbox.sh("img-rm -q -f p-amd64 p-arm64 > /dev/null && img-gc -q --grace 0s > /dev/null").ok();
    sandbox.sh("img-pull -q --platform linux/amd64 localhost:5000/lib/many > /dev/null").ok();
    for destination in ["oci:copied", "oci-archive:copied.tar", "docker://localhost:5001/x", "store:copied"] {
        let refused =
            sandbox.sh(&format!("img-copy -q store:localhost:5000/lib/many {destination}")).exits(1).stderr;
        assert!(refused.contains("linux/arm64"), "{destination}: {refused}");
        let hint = "hint: `img-pull --all-platforms` fetches the rest; --platform ";
        assert!(refused.contains(hint), "{destination}: {refused}");
        let one = format!("img-copy -q --platform linux/amd64 store:localhost:5000/lib/many {destination}");
        sandbox.sh(&one).ok();
    }
}

/// An artifact that refers to an image, in a layout, for a registry that keeps no lists of referrers.
#[test]
fn artifacts_go_both_ways_and_are_listed() {
    let sandbox = with_registries();
    let script = r#"
        curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' localhost:5000/v2/lib/a/manifests/1 > image.json
        part() { printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' $1 $(sha256sum $2 | cut -d ' ' -f 1) $(stat -c %s $2); }
        printf '{}' > empty.json && printf 'an SBOM' > sbom.txt
        printf '{"schemaVersion":2,"mediaType":"%s","artifactType":"text/x.sbom","config":%s,"layers":[%s],"subject":%s}'             application/vnd.oci.image.manifest.v1+json "$(part application/vnd.oci.empty.v1+json empty.json)"             "$(part text/plain sbom.txt)" "$(part application/vnd.oci.image.manifest.v1+json image.json)" > artifact.json
        mkdir -p layout/blobs/sha256 && printf '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
        for file in empty.json sbom.txt artifact.json; do cp $file layout/blobs/sha256/$(sha256sum $file | cut -d ' ' -f 1); done
        printf '{"schemaVersion":2,"manifests":[%s]}' "$(part application/vnd.oci.image.manifest.v1+json artifact.json)" > layout/index.json
        img-copy -q oci:layout localhost:5000/lib/a:sbom > /dev/null
    "#;
    sandbox.sh(script).ok();
    let listed = || sandbox.sh("img-referrers localhost:5000/lib/a:1").json()["referrers"].clone();
    let found = listed();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[0]["artifactType"], "text/x.sbom");
    // Once more is not listed twice.
    sandbox.sh("img-copy -q oci:layout localhost:5000/lib/a:sbom > /dev/null").ok();
    assert_eq!(listed(), found);
    for back in ["oci:back:sbom", "store:sbom", "oci-archive:back.tar:sbom"] {
        sandbox.sh(&format!("img-copy -q localhost:5000/lib/a:sbom {back} > /dev/null")).ok();
    }
    sandbox.sh("cmp sbom.txt back/blobs/sha256/$(sha256sum sbom.txt | cut -d ' ' -f 1) && img-gc -q --grace 0 > /dev/null").ok();
    sandbox.sh("img-copy -q store:sbom localhost:5001/x/sbom:1 > /dev/null").ok();
    let digest = |name: &str| sandbox.sh(&format!("img-digest {name} | jq -r .digest")).ok();
    assert_eq!(digest("localhost:5001/x/sbom:1"), digest("localhost:5000/lib/a:sbom"));
    // cosign keeps signatures at a tag.
    let digest = digest("localhost:5000/lib/a:1").trim().replace(':', "-");
    sandbox.sh(&format!("img-copy -q oci:layout localhost:5000/lib/a:{digest}.sig > /dev/null")).ok();
    let found = listed();
    assert_eq!(found[1]["artifactType"], "application/vnd.dev.cosign.artifact.sig.v1+json", "{found}");
    assert_eq!(found[1]["annotations"]["org.opencontainers.image.ref.name"], format!("{digest}.sig"));
}

/// The image store has room, and the destination has none.
#[test]
fn a_destination_without_room() {
    let sandbox = with_registries();
    let archive = rootfs(|tree| testkit::file(tree, "large", 0o644, &vec![7; 4 << 20]));
    sandbox.sh_with("img-load -q -t large - > /dev/null", &archive).ok();
    sandbox.sh("mkdir small && mount -t tmpfs -o size=2M small small").ok();
    let full = sandbox.sh("img-copy -q store:large oci:small/layout:x").exits(1).stderr;
    let place = sandbox.directory().join("small/layout/blobs");
    assert!(full.starts_with("img-copy: write \"small/layout/blobs/sha256/"), "{place:?}: {full}");
    assert!(full.ends_with(": No space left on device\n"), "{full}");
}
