//! A name with a digest is for one image.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

#[test]
fn a_list_that_gives_the_name_to_another_image_is_not_believed() {
    let sandbox = Sandbox::with_busybox();
    let pinned = format!("localhost:5000/x@sha256:{}", "a".repeat(64));
    let name = "\"org.opencontainers.image.ref.name\"";
    sandbox
        .sh(&format!(
            "cd $STAVE_ROOT/images && for list in index.json .recent.json; do
                [ ! -e $list ] || jq -c '(.. | objects | select(has({name}))[{name}]) = \"{pinned}\"' $list > new && mv new $list
            done && grep -q {pinned} index.json"
        ))
        .ok();
    let failed = sandbox.sh(&format!("img-pull -q --retries 0 {pinned}")).exits(1);
    assert!(failed.stderr.starts_with("img-pull: get http://localhost:5000/v2/: "), "{failed:?}");
    sandbox.sh(&format!("img-inspect {pinned}")).exits(1);
}
