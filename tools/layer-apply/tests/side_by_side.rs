//! Layers that are unpacked in parallel.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use archive::{Entry, Kind};
use common::{Store, apply, archive, directory, file, list, tar};

fn blobs(archives: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    archives.iter().map(|archive| (&archive[..], &archive[..])).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A layer that does not list its files' directory, so that the layers below are read.
fn looks_below(name: &str, size: usize) -> Vec<u8> {
    archive(&[file(&format!("d/{name}"), &vec![7; size])])
}

#[test]
fn a_layer_that_looks_below_waits_for_what_is_there() {
    // The lower layers take longer.
    let (large, larger) = (vec![1; 20 << 20], vec![2; 40 << 20]);
    let link = Entry { link: b"d".into(), ..Entry::new(Kind::Symlink, "link") };
    let first =
        archive(&[file("large", &larger), (Entry { mode: 0o1751, ..directory("d") }, b""), (link, b"")]);
    let second = archive(&[file("large", &large), file("d/x", b"x")]);
    let layers = apply(&[first, second, tar(&["link/y"]), tar(&["d/.wh.x"])]);
    for index in 0..4 {
        assert_eq!(mode(&layers[index].join("d")), 0o1751, "layer {index}");
    }
    assert_eq!(list(&layers[2]), ["d/", "d/y"], "the link was followed");
    assert_eq!(list(&layers[3]), ["d/", "d/x (wh)"], "there is something to hide");
}

#[test]
fn images_with_their_layers_in_other_orders_do_not_wait_for_each_other() {
    for _ in 0..5 {
        let store = Store::new();
        let layers = [looks_below("a", 2 << 20), looks_below("b", 1 << 20), looks_below("c", 1)];
        let turned: Vec<_> = layers.iter().rev().cloned().collect();
        let twice = [layers[1].clone(), layers[0].clone(), layers[1].clone(), layers[1].clone()];
        let documents = [&layers[..], &turned, &twice].map(|layers| store.image(&blobs(layers)).to_string());
        std::thread::scope(|scope| {
            for document in documents.iter().chain(&documents) {
                let mut command = store.command();
                scope.spawn(move || {
                    command
                        .timeout(Duration::from_secs(60))
                        .write_stdin(document.as_str())
                        .assert()
                        .success();
                });
            }
        });
    }
}

#[test]
fn one_layer_that_fails_ends_the_others() {
    let store = Store::new();
    let good = archive(&[file("large", &vec![1; 30 << 20]), file("d/x", b"x")]);
    let layers =
        [looks_below("a", 1), tar(&["../out"]), looks_below("b", 1 << 20), good.clone(), looks_below("c", 1)];
    let run = store.run(&store.image(&blobs(&layers)), &[]);
    let digest = oci::Digest::of(&layers[1]);
    assert_eq!(run.status, 1);
    assert_eq!(
        run.stderr,
        format!(
            "layer-apply: layer {digest}: entry \"../out\": name with \"..\" that leads out of the root\n"
        )
    );
    let names = std::fs::read_dir(store.layers()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(
        names.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")),
        "nothing half-done is left"
    );
    // Complete layers can be used.
    let rest = [layers[0].clone(), good];
    assert_eq!(mode(&store.apply(&rest)[1].join("d")), 0o755);
}
