//! Containers whose layers are EROFS images.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::Sandbox;

const APPLY: &str = "layer-apply --format erofs";

/// An image `web` with three layers on top of the image busybox. `web.json` is its document.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let dockerfile = "FROM busybox\nRUN echo one > /f && mkdir -p /d && echo d > /d/x && echo e > /d/y\n\
                      RUN rm /d/x && ln /f /g && echo two >> /f\nRUN rm -r /d && mkdir /d && echo z > /d/z\n";
    sandbox.sh("mkdir context").ok();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    sandbox.sh("img-build -q -t web context > web.json").ok();
    sandbox
}

#[test]
fn a_container_runs_writes_to_its_top_alone_and_leaves_nothing() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let images = "cd root/layers && sha256sum *.erofs";
    let command = "cat /f /g /d/*; echo mine > /f; cat /f; echo new > /d/new; ls /d";
    let script = format!("{APPLY} --id web < web.json | tee layers.json | union-mount | tee mounted.json");
    sandbox.sh(&format!("{script} > /dev/null")).ok();
    let sums = sandbox.sh(images).ok();
    assert_eq!(sums.lines().count(), 4);
    let run = format!("ns-exec --from mounted.json --document done.json -- sh -c '{command}'");
    assert_eq!(sandbox.sh(&run).ok(), "one\ntwo\none\ntwo\nz\nmine\nnew\nz\n");
    let document = sandbox.sh("cat done.json").json();
    let upper = document["rootfs"]["upper"].as_str().unwrap();
    assert_eq!(sandbox.sh(&format!("cd {upper} && find . -type f | sort")).ok(), "./d/new\n./f\n");
    assert_eq!(sandbox.sh(images).ok(), sums);
    // All files are on one file system, as with directories: `tar --one-file-system` sees every file.
    let rootfs = document["rootfs"]["path"].as_str().unwrap();
    assert_eq!(sandbox.sh(&format!("find {rootfs} -printf '%D\\n' | sort -u | wc -l")).ok(), "1\n");
    let mounted = "awk '$(NF-2) == \"erofs\"' /proc/self/mountinfo | wc -l";
    assert_eq!(sandbox.sh(mounted).ok(), "4\n");
    sandbox.sh("unwind < done.json > /dev/null").ok();
    assert_eq!(sandbox.sh(mounted).ok(), "0\n");
    // A pipe leaves the layers on purpose.
    sandbox.sh("rm -r root/layers/*.erofs*").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_mounts_are_explained_checked_and_repaired() {
    let sandbox = sandbox();
    let document = sandbox.sh(&format!("{APPLY} --id web < web.json | tee layers.json")).json();
    let images: Vec<&str> =
        document["layers"].as_array().unwrap().iter().map(|layer| layer["erofs"].as_str().unwrap()).collect();
    let explained = sandbox.sh("union-mount --explain < layers.json").ok();
    for image in &images {
        let name = image.rsplit('/').next().unwrap().trim_end_matches(".erofs");
        let target = format!("{}/containers/web/layers/{name}", sandbox.root().display());
        let line = format!("mount -t erofs -o ro,nodev {image} {target}");
        assert!(explained.lines().any(|found| found == line), "{line}\n{explained}");
    }
    assert!(explained.contains("xino=on"), "{explained}");
    let mounted = sandbox.sh("union-mount < layers.json | tee mounted.json").json();
    sandbox.sh("union-mount --check < mounted.json > /dev/null").ok();
    let (target, rootfs) =
        (mounted["rootfs"]["lower"][2].as_str().unwrap(), mounted["rootfs"]["path"].as_str().unwrap());
    sandbox.sh(&format!("umount {target}")).ok();
    let check = sandbox.sh("union-mount --check < mounted.json > /dev/null");
    assert_ne!(check.status, 0);
    assert!(check.stderr.contains(&format!("mount {target:?}")), "{}", check.stderr);
    sandbox.sh("union-mount --repair < mounted.json > /dev/null").ok();
    sandbox.sh("union-mount --check < mounted.json > /dev/null").ok();
    assert_eq!(sandbox.sh(&format!("cat {rootfs}/f")).ok(), "one\ntwo\n");
    sandbox.sh("unwind < mounted.json > /dev/null").ok();
    // A missing image, or a file that is not an image.
    sandbox.sh(&format!("jq -c 'del(.id, .steps)' layers.json > bare.json; mv {} kept", images[1])).ok();
    let missing = sandbox.sh("union-mount < bare.json > /dev/null").exits(1);
    let said = format!(
        "union-mount: look at layer {:?}: No such file or directory\nhint: run layer-apply again: it unpacks what is missing\n",
        images[1]
    );
    assert_eq!(missing.stderr, said);
    sandbox.sh(&format!("head -c 8192 /dev/zero > {}", images[1])).ok();
    let said = sandbox.sh("union-mount < bare.json > /dev/null").exits(1).stderr;
    assert!(
        said.starts_with(&format!(
            "union-mount: look at layer {:?}: it is not an EROFS image of a layer\n",
            images[1]
        )),
        "{said}"
    );
    assert!(!sandbox.root().join("containers").exists());
}

#[test]
fn what_it_wrote_becomes_an_image() {
    let sandbox = sandbox();
    let run = "ns-exec --document done.json -- sh -c 'echo more >> /f; rm /d/z; rm /bin/httpd'";
    sandbox.sh(&format!("{APPLY} --id web < web.json | union-mount | {run}")).ok();
    let diff = sandbox.sh("layer-diff --compression none -o diff.tar < done.json").json();
    assert_eq!(
        diff["entries"].as_u64().unwrap(),
        sandbox.sh("tar -tf diff.tar | wc -l").ok().trim().parse::<u64>().unwrap()
    );
    assert_eq!(sandbox.sh("tar -xOf diff.tar f").ok(), "one\ntwo\nmore\n");
    sandbox.sh("img-commit -q -t changed < done.json > changed.json && unwind < done.json > /dev/null").ok();
    let look = "ns-exec -- sh -c 'cat /f; ls /d; ls /bin/httpd 2>&1 | wc -l'";
    let of = |apply: &str| sandbox.sh(&format!("img-inspect changed | {apply} | union-mount | {look}")).ok();
    assert_eq!(of(APPLY), of("layer-apply"), "of directories it is the same");
    assert!(of(APPLY).starts_with("one\ntwo\nmore\n"));
}

#[test]
fn images_that_are_used_stay() {
    let sandbox = sandbox();
    let count = || sandbox.sh("ls root/layers | grep -c 'erofs$'").stdout.trim().to_owned();
    let document =
        sandbox.sh(&format!("{APPLY} --id web < web.json | union-mount | tee mounted.json")).json();
    sandbox.sh("img-rm -q web busybox > /dev/null && rm -rf root/cache").ok();
    let collect = "img-gc -q --grace 0s";
    assert_eq!(sandbox.sh(collect).json()["layers"], json!([]), "the container's record mentions them");
    sandbox.sh("mv /run/stave/web.json kept.json").ok();
    assert_eq!(sandbox.sh(collect).json()["layers"], json!([]), "so does the table of mounts");
    assert_eq!(count(), "4");
    sandbox.sh("mv kept.json /run/stave/web.json && unwind < mounted.json > /dev/null").ok();
    let explained = sandbox.sh("img-gc --explain --grace 0s").ok();
    let image = document["layers"][0]["erofs"].as_str().unwrap();
    assert!(explained.lines().any(|line| line.starts_with("rm -r ") && line.contains(image)), "{explained}");
    let removed: Value = sandbox.sh(collect).json();
    assert_eq!(removed["layers"].as_array().unwrap().len(), 4, "{removed}");
    assert_eq!(sandbox.sh("ls -A root/layers").ok(), ".lock\n");
}

#[test]
fn two_layers_of_the_same_content_are_mounted_once() {
    let sandbox = sandbox();
    let twice = "jq -c '.layers += [.layers[1]]'";
    let mounted =
        sandbox.sh(&format!("{APPLY} --id web < web.json | {twice} | union-mount | tee mounted.json")).json();
    assert_eq!(mounted["rootfs"]["lower"].as_array().unwrap().len(), 1 + 5);
    let count = "awk '$(NF-2) == \"erofs\"' /proc/self/mountinfo | wc -l";
    assert_eq!(sandbox.sh(count).ok(), "4\n");
    sandbox.sh("union-mount --check < mounted.json | unwind > /dev/null").ok();
    assert_eq!(sandbox.sh(count).ok(), "0\n");
}

#[test]
fn a_pipe_that_is_killed_anywhere_is_taken_back() {
    let sandbox = sandbox();
    sandbox
        .sh(&format!(
            "{APPLY} --id first < web.json > layers.json; jq -c 'del(.id, .steps)' layers.json > bare.json"
        ))
        .ok();
    sandbox.sh("unwind first > /dev/null").ok();
    let before = sandbox.snapshot();
    for number in 0..40 {
        let late = f64::from(number) / 10_000.0;
        let script = format!(
            "union-mount --id web < bare.json > /dev/null & sleep {late}; kill -KILL $!; wait $! 2> /dev/null; unwind web > /dev/null"
        );
        sandbox.sh(&script).ok();
        sandbox.assert_as(&before);
    }
}
