//! The files of an image as one archive.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

#[test]
fn what_upper_layers_remove_is_not_there() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir context && echo one > context/one && ln context/one context/two").ok();
    let text = "FROM busybox\nCOPY . /c/\nRUN rm -r /www && echo new > /new && chmod 4755 /new\n";
    std::fs::write(sandbox.directory().join("context/Dockerfile"), text).unwrap();
    sandbox.sh("img-build -q --network none -t built context > /dev/null").ok();
    let before = sandbox.sh("cat /proc/mounts; ls $STAVE_ROOT/build 2> /dev/null").stdout;
    sandbox.sh("img-export built | tar -t > names && img-export built > tar").ok();
    let names = sandbox.sh("cat names").ok();
    assert!(names.contains("c/one") && !names.contains("www") && !names.contains(".wh."), "{names}");
    let listed = sandbox.sh("tar -tvf tar | grep -E ' (new|c/two)'").ok();
    assert!(listed.contains("-rwsr-xr-x"), "{listed}");
    assert!(listed.contains("link to"), "hard links stay links: {listed}");
    // The same bytes again, and the same files as those of a container.
    sandbox.sh("img-export -o again built > report.json && cmp tar again").ok();
    assert_eq!(
        sandbox.sh("jq -r .diffID report.json").ok(),
        format!("sha256:{}", &sandbox.sh("sha256sum tar").ok()[..64]) + "\n"
    );
    sandbox.sh("img-export --compression zstd -o z built > /dev/null && zstd -dc z | cmp - tar").ok();
    assert_eq!(
        sandbox.sh("cat /proc/mounts; ls $STAVE_ROOT/build 2> /dev/null").stdout,
        before,
        "nothing is left"
    );
}

#[test]
fn marks_of_a_single_layer_are_no_files() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p context tree/d && echo 'FROM scratch\nENV A=1' > context/Dockerfile").ok();
    sandbox.sh("touch tree/d/.wh..wh..opq tree/d/.wh.gone tree/d/file && tar -C tree -cf layer.tar d").ok();
    sandbox
        .sh("img-build -q -t none context > /dev/null && img-edit --append layer.tar -t one none > /dev/null")
        .ok();
    assert_eq!(sandbox.sh("img-export one | tar -t").ok(), "d/\nd/file\n");
    sandbox.sh("img-edit --label =v one > /dev/null").exits(2);
}

#[test]
fn half_an_archive_is_never_left() {
    let sandbox = Sandbox::with_busybox();
    let failed = sandbox.sh("img-export -o out none").exits(1);
    assert!(failed.stderr.starts_with("img-export: "), "{failed:?}");
    sandbox.sh("test ! -e out").ok();
    sandbox.sh("img-export busybox > /dev/full").exits(1);
    sandbox.sh("img-export -o missing/out busybox").exits(1);
}
