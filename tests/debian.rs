//! The main use on real input: Debian, apt-get in a Dockerfile, and a web server behind a published port.
//!
//! Packages come through the machine's own network, as for a user. Everything else happens in a sandbox.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use testkit::{HOST, Outcome, Sandbox};

/// A Dockerfile as people write it at first.
const UNCHANGED: &str = "FROM debian
RUN apt-get install emacs
RUN apt-get install apache2
CMD [\"/bin/bash\"]
";

const APACHE: &str = "RUN apt-get update && apt-get install -y --no-install-recommends apache2\n";
const EMACS: &str = "RUN apt-get update && apt-get install -y --no-install-recommends emacs-nox\n";

/// A minimal Debian as a tar, made once for all tests and runs.
fn debian() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("debian.tar");
        if !path.exists() {
            let beside = path.with_extension("new.tar");
            let made = Command::new("mmdebstrap")
                .args(["--quiet", "--variant=minbase", "bookworm"])
                .arg(&beside)
                .output();
            let made = made.expect("mmdebstrap is missing: apt-get install mmdebstrap");
            assert!(made.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
            fs::rename(beside, &path).unwrap();
        }
        path
    };
    MADE.get_or_init(make).clone()
}

/// A sandbox with the image `debian:latest`.
fn sandbox() -> Sandbox {
    let debian = debian();
    let sandbox = Sandbox::new();
    sandbox.sh(&format!("img-load -q -t debian {} > debian.json", debian.display())).ok();
    sandbox
}

/// Builds an image of this Dockerfile, with the machine's network.
fn build(sandbox: &Sandbox, name: &str, dockerfile: &str) -> Outcome {
    let context = sandbox.directory().join(name);
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    sandbox.sh_connected(&format!("img-build --network host -t {name} {name} > {name}.json"))
}

/// Builds FROM debian with these instructions, twice; the second time everything comes from the cache. Then runs
/// apache2 from the image and fetches its page.
fn serves(sandbox: &Sandbox, instructions: &[&str]) {
    let dockerfile = format!("FROM debian\n{}CMD [\"/bin/bash\"]\n", instructions.concat());
    let steps = instructions.len() + 2;
    let first = build(sandbox, "web", &dockerfile).exits(0).stderr;
    for (at, line) in dockerfile.lines().enumerate() {
        let step = format!("Step {}/{steps} : {line}\n", at + 1);
        assert!(first.contains(&step), "{step} is not in\n{first}");
    }
    assert!(!first.contains("Using cache"), "{first}");
    let document = sandbox.sh("cat web.json").json();
    let layers = document["image"]["configuration"]["rootfs"]["diff_ids"].as_array().unwrap().len();
    assert_eq!(layers, 1 + instructions.len(), "every RUN is a layer");

    let second = build(sandbox, "web", &dockerfile).exits(0).stderr;
    assert_eq!(second.matches("Using cache").count(), instructions.len() + 1, "{second}");
    let again = sandbox.sh("cat web.json").json();
    assert_eq!(again["image"]["descriptor"], document["image"]["descriptor"]);

    let before = sandbox.snapshot();
    let network = "netns-bridge | veth-pair | portmap -p 10080:80";
    let apache = "ns-exec -d -- sh -c 'echo new > /written; exec apache2ctl -D FOREGROUND'";
    sandbox
        .sh(&format!("layer-apply --id web < web.json | union-mount | {network} | {apache} > run.json"))
        .ok();
    let page = sandbox.fetch_outside(&format!("http://{HOST}:10080/"));
    assert!(page.contains("Apache2 Debian Default Page"), "{page}");
    assert!(sandbox.fetch("http://127.0.0.1:10080/").contains("Apache2 Debian Default Page"));
    sandbox.sh("test -e root/containers/web/upper/written && ! find root/layers -name written | grep .").ok();
    sandbox.sh("unwind < run.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_unchanged_dockerfile_fails_as_docker_shows_it() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let outcome = build(&sandbox, "unchanged", UNCHANGED).exits(1);
    for line in [
        "Step 1/4 : FROM debian\n",
        "Step 2/4 : RUN apt-get install emacs\n",
        "E: Unable to locate package emacs\n",
    ] {
        assert!(outcome.stderr.contains(line), "{line:?} is not in\n{}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("Step 3/4"), "{}", outcome.stderr);
    let error = &sandbox.sh("cat unchanged.json").json()["error"];
    assert_eq!(error["tool"], "img-build");
    let message = error.to_string();
    assert!(message.contains("apt-get install emacs") && message.contains("100"), "{message}");
    sandbox.assert_as(&before);
}

#[test]
fn emacs_and_apache_are_installed_and_apache_answers() {
    serves(&sandbox(), &[EMACS, APACHE]);
}
