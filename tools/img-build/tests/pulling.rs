//! Base images that are not in the store, and images for other platforms.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;
#[path = "../../img-pull/tests/server/mod.rs"]
mod server;

use common::{Built, Fixture};
use oci::Digest;
use serde_json::{Value, json};
use server::{Content, Seen, gets, image_of, serve};

/// A layer with the file `name`.
fn layer(name: &str) -> Vec<u8> {
    testkit::rootfs(|tree| testkit::file(tree, name, 0o644, name.as_bytes()))
}

/// Adds an image for a platform to the repository `a/b`, and returns its entry for an index.
fn add(content: &mut Content, tag: &str, architecture: &str, on_build: &[&str]) -> Value {
    let layer = layer(architecture);
    let configuration = json!({"architecture": architecture, "os": "linux", "config": {"OnBuild": on_build},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
    let manifest = image_of(content, tag, configuration.to_string().into_bytes(), &[layer]);
    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest),
        "size": manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
}

/// A registry with `one`, `two` (both for amd64) and `multi`.
fn registry() -> (String, Seen) {
    let mut content = Content::new();
    add(&mut content, "one", "amd64", &["COPY --from=tool / /tools/"]);
    let list = ["amd64", "arm64"].map(|architecture| add(&mut content, architecture, architecture, &[]));
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list});
    content.insert("/v2/a/b/manifests/multi".to_owned(), index.to_string().into_bytes());
    serve(content, |_, _, _| false)
}

fn files(fixture: &Fixture, built: &Built) -> Vec<String> {
    fixture.layers(built, 0).into_iter().flatten().map(|(name, _)| name).collect()
}

#[test]
fn what_is_not_in_the_store_is_pulled_once() {
    let fixture = Fixture::new();
    let (host, seen) = registry();
    // A trigger of the base image needs a stage that the Dockerfile itself does not need.
    let text = format!(
        "FROM {host}/a/b:arm64 AS tool\nFROM {host}/a/b:one\nCOPY --from={host}/a/b:one /amd64 /again\nCOPY --from={host}/a/b:amd64 / /x/\n"
    );
    let never = fixture.build_with(&text, &["--pull=never"]);
    assert!(
        never.error().ends_with(&format!("no image \"{host}/a/b:one\" in the store")),
        "{}",
        never.stderr
    );
    assert_eq!(seen.lock().unwrap().len(), 0);
    let built = fixture.build(&text);
    let files = files(&fixture, &built);
    assert!(files.contains(&"again".to_owned()) && files.contains(&"tools/arm64".to_owned()));
    assert_eq!(gets(&seen, "/v2/a/b/manifests/one"), 1);
    assert!(built.stderr.contains(&format!("Pulling {host}/a/b:one\n")), "{}", built.stderr);
    let asked = seen.lock().unwrap().len();
    fixture.build(&text);
    assert_eq!(seen.lock().unwrap().len(), asked, "it is in the store");
    fixture.build_with(&text, &["--pull"]).ok();
    assert!(seen.lock().unwrap().len() > asked, "it may be another now");
    assert_eq!(gets(&seen, "/v2/a/b/manifests/one"), 1, "and it is not");
    // The store has the name, as after a pull.
    assert!(fixture.layout().resolve(&format!("{host}/a/b:one")).unwrap().is_some());
}

#[test]
fn what_cannot_be_pulled_is_said_once() {
    let fixture = Fixture::new();
    let (host, seen) = registry();
    let context = fixture.path("context").display().to_string();
    let failed = fixture.build_with(&format!("FROM {host}/a/b:none\n"), &[]);
    assert_eq!(
        failed.error(),
        format!(
            "img-build: {context}/Dockerfile:1: step 1/1: no image \"{host}/a/b:none\" in the store, and it was not pulled: \
             get http://{host}/v2/a/b/manifests/none: 404 Not Found"
        )
    );
    assert_eq!(gets(&seen, "/v2/a/b/manifests/none"), 1);
    let nobody = fixture.build_with("FROM 127.0.0.1:1/x\n", &[]);
    assert!(nobody.error().ends_with(": Connection refused"), "{}", nobody.stderr);
    assert!(nobody.stderr.ends_with("\nhint: img-load -t 127.0.0.1:1/x FILE takes it from a file\n"));
    let id = fixture.build_with("FROM sha256:0123456789ab\n", &[]);
    assert!(id.error().contains("sha256:0123456789ab"), "{}", id.stderr);
}

#[test]
fn a_platform_is_chosen() {
    let fixture = Fixture::new();
    let (host, _) = registry();
    let of = |text: &str, arguments: &[&str]| {
        let built = fixture.build_with(text, arguments).ok();
        let configuration = built.configuration();
        let files = files(&fixture, &built);
        (configuration["architecture"].as_str().unwrap().to_owned(), files)
    };
    let has = |files: &[&str]| files.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let plain = format!("FROM {host}/a/b:multi\n");
    assert_eq!(of(&plain, &[]), ("amd64".to_owned(), has(&["amd64"])));
    // The store has the index, but not yet this image.
    let arm = format!("FROM --platform=linux/arm64 {host}/a/b:multi\n");
    assert_eq!(of(&arm, &[]), ("arm64".to_owned(), has(&["arm64"])));
    assert_eq!(of(&plain, &[]).0, "amd64");
    assert_eq!(of(&plain, &["--platform", "linux/arm64"]), ("arm64".to_owned(), has(&["arm64"])));
    // If the store has the image only for another platform, this machine's is pulled.
    let other = Fixture::new();
    other.build_with(&plain, &["--platform", "linux/arm64"]).ok();
    assert_eq!(other.build(&plain).configuration()["architecture"], "amd64");
    let single = format!("FROM {host}/a/b:arm64\n");
    other.build_with(&format!("{single}LABEL a=b\n"), &["-t", &format!("{host}/a/b:amd64")]).ok();
    let text = format!("FROM {host}/a/b:amd64\n");
    assert_eq!(
        other.build(&text).configuration()["architecture"],
        "arm64",
        "what stands under a name is taken"
    );
    let asked = other.build_with(&text, &["--platform", "linux/amd64"]).ok();
    assert_eq!(asked.configuration()["architecture"], "amd64");
    // A tool for this machine makes something for the other platform.
    let cross = format!(
        "FROM --platform=$BUILDPLATFORM busybox AS tool\nARG TARGETPLATFORM TARGETARCH BUILDARCH\n\
         RUN echo $TARGETPLATFORM $TARGETARCH $BUILDARCH > /made\nFROM {host}/a/b:multi\nCOPY --from=tool /made /\n"
    );
    let built = fixture.build_with(&cross, &["--platform", "linux/arm64/v8"]).ok();
    assert_eq!(built.configuration()["architecture"], "arm64");
    let made = &fixture.layers(&built, 1)[0]["made"];
    assert_eq!(made, "644 0:0 linux/arm64 arm64 amd64");
    assert_eq!(of("FROM scratch\nCOPY Dockerfile /\n", &["--platform", "linux/s390x"]).0, "s390x");
    let none = fixture.build_with(&plain, &["--platform", "linux/s390x"]);
    assert!(
        none.error().ends_with(" has no image for linux/s390x: it has linux/amd64, linux/arm64"),
        "{}",
        none.stderr
    );
    let wrong = fixture.build_with("FROM --platform=none busybox\n", &[]);
    assert!(wrong.error().contains("\"none\" is not a platform: "), "{}", wrong.stderr);
}
