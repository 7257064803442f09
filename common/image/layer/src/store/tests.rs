use std::{cell::Cell, fs};

use super::*;

/// A store with one unpacked layer, and the layer's DiffID.
fn store() -> (tempfile::TempDir, Store, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("file"), "content").unwrap();
    let diff_id = Digest::of(b"layer");
    store.adopt(&upper, &diff_id).unwrap();
    (dir, store, diff_id)
}

fn is_found(store: &Store, diff_id: &Digest) -> bool {
    let below = Below::open(&[] as &[&Path]).unwrap();
    store.find(diff_id, &below, Format::Directory, false).unwrap().is_some()
}

#[test]
fn a_layer_goes_with_all_that_is_its_own() {
    let (dir, store, diff_id) = store();
    for left in [format!(".{}.json", diff_id.hex()), format!("{}.0123456789abcdef.json", diff_id.hex())] {
        fs::write(dir.path().join("layers").join(left), "{").unwrap();
    }
    assert!(store.remove(&diff_id, || Ok::<_, Error>(true)).unwrap());
    assert_eq!(store.paths(&diff_id).unwrap(), [] as [PathBuf; 0]);
}

/// A container starts while the lock of its layer is awaited, or while the layer is being removed.
#[test]
fn a_layer_stays_for_whoever_came_to_use_it() {
    let (_dir, store, diff_id) = store();
    for answers in [&[false][..], &[true, false]] {
        let before = store.paths(&diff_id).unwrap();
        let asked = Cell::new(0);
        let unused = || {
            let nth = asked.replace(asked.get() + 1);
            assert_eq!(is_found(&store, &diff_id), nth == 0, "nobody finds it from the second time on");
            Ok::<_, Error>(answers[nth])
        };
        assert!(!store.remove(&diff_id, unused).unwrap());
        assert_eq!(asked.get(), answers.len());
        assert_eq!(store.paths(&diff_id).unwrap(), before);
        assert!(is_found(&store, &diff_id));
    }
}
