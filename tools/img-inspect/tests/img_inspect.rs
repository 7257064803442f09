//! img-inspect as a process.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use assert_cmd::cargo::cargo_bin_cmd;
use oci::{Layout, spec};

/// A store with the image `web:latest`, which has no layers.
fn store(root: &std::path::Path) -> spec::Descriptor {
    let layout = Layout::open_or_create(root.join("images")).unwrap();
    let configuration = spec::ImageConfigurationBuilder::default()
        .architecture(spec::Arch::Amd64)
        .os(spec::Os::Linux)
        .rootfs(spec::RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().unwrap())
        .build()
        .unwrap();
    let configuration = layout.write_json(spec::MediaType::ImageConfig, &configuration).unwrap();
    let manifest = spec::ImageManifestBuilder::default()
        .schema_version(2_u32)
        .config(configuration)
        .layers(Vec::new())
        .build()
        .unwrap();
    let manifest = layout.write_json(spec::MediaType::ImageManifest, &manifest).unwrap();
    layout.tag(&"web".parse().unwrap(), &manifest).unwrap();
    manifest
}

#[test]
fn starts_a_document_by_name_and_by_id() {
    let root = tempfile::tempdir().unwrap();
    let manifest = store(root.path());
    let inspect = |name: &str| {
        let mut command = cargo_bin_cmd!("img-inspect");
        command.arg("--root").arg(root.path()).arg(name).assert()
    };
    let id = manifest.digest().digest().to_owned();
    for name in ["web", "web:latest", "docker.io/library/web:latest", &id, &id[..12]] {
        let assert = inspect(name).success().stderr("");
        let output = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        assert!(output.contains(r#""image":{"reference":"web:latest","descriptor":"#), "{name}: {output}");
        assert!(output.contains(&id), "{name}: {output}");
    }
    inspect("db").code(1).stderr(
        "img-inspect: no image \"db\" in the image store\n\
         hint: img-ls lists the images; img-pull fetches one from a registry\n",
    );
}
