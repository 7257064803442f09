//! `RUN --mount`: caches that several mounts share, the order of mounts, and what makes a step run again.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{fs, time::Duration};

use common::{Built, Fixture, names};

/// The output of the last RUN, which must not come from the cache.
fn build(fixture: &Fixture, dockerfile: &str, arguments: &[&str]) -> Built {
    fixture.write("Dockerfile", dockerfile);
    let mut command = fixture.command();
    command.args(["-t", "built"]).args(arguments).arg(fixture.path("context"));
    // A build that waits for itself would wait for ever.
    Built::new(command.timeout(Duration::from_secs(120)).output().unwrap())
}

#[test]
fn two_mounts_of_one_cache_in_a_step_are_one_directory() {
    for sharing in ["locked", "private", "shared"] {
        let fixture = Fixture::new();
        let text = format!(
            "FROM busybox\nRUN --mount=type=cache,id=c,target=/a,sharing={sharing} \
             --mount=type=cache,id=c,target=/b,sharing={sharing} echo {sharing} > /a/x; cat /b/x > /seen\n"
        );
        let built = build(&fixture, &text, &[]).ok();
        assert_eq!(fixture.layers(&built, 1)[0]["seen"], format!("644 0:0 {sharing}"));
    }
}

#[test]
fn locks_of_caches_are_taken_in_one_order() {
    let fixture = Fixture::new();
    let text = |first: &str, second: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/{first},sharing=locked \
             --mount=type=cache,target=/{second},sharing=locked echo {first} {second}\n"
        )
    };
    build(&fixture, &text("one", "two"), &[]).ok();
    let caches = fixture.root().join("cache/mounts");
    let locks: Vec<_> = names(&caches)
        .into_iter()
        .filter(|name| name.ends_with(".lock"))
        .map(|name| caches.join(name))
        .collect();
    let [first, second] = locks.as_slice() else { panic!("{locks:?}") };
    for (at, (one, other)) in [("one", "two"), ("two", "one")].into_iter().enumerate() {
        let user = fs::File::open(first).unwrap();
        user.lock().unwrap();
        fixture
            .write("Dockerfile", format!("{}# {at}\nRUN true\n", text(one, other).replace("echo", "printf")));
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("img-build"))
            .args(["--network", "none", "-q", "-t", "built"])
            .arg(fixture.path("context"))
            .env("STAVE_ROOT", fixture.root())
            .env("STAVE_RUN", fixture.path("run"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let waits = format!("-> FLOCK  ADVISORY  WRITE {} ", child.id());
        while !fs::read_to_string("/proc/locks").unwrap().contains(&waits) {
            assert_eq!(child.try_wait().unwrap(), None, "it must wait for the first lock");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(
            fs::File::open(second).unwrap().try_lock().is_ok(),
            "it holds no lock behind the one that it waits for"
        );
        drop(user);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_cache_is_found_by_its_target_as_it_is_written() {
    let fixture = Fixture::new();
    let write = "FROM busybox\nWORKDIR /one\nRUN --mount=type=cache,target=./c/ echo 1 > c/x\n";
    build(&fixture, write, &[]).ok();
    let text = "FROM busybox\nWORKDIR /two\nRUN --mount=type=cache,target=c cp c/x /seen\n\
                RUN --mount=type=cache,id=c,target=/d cp /d/x /named\n\
                RUN --mount=type=cache,target=/c cp /c/x /wrong || true\n";
    let built = build(&fixture, text, &[]).ok();
    let layers = fixture.layers(&built, 2);
    assert_eq!((&*layers[0]["seen"], &*layers[1]["named"]), ("644 0:0 1", "644 0:0 1"));
    assert_eq!(layers[2].get("wrong"), None);
}

#[test]
fn a_cache_starts_with_what_its_context_has_now() {
    let fixture = Fixture::new();
    let other = fixture.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("x"), "1").unwrap();
    let named = format!("other={}", other.display());
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c,from=other cat /c/x > /seen\n";
    let seen = |expected: &str| {
        let built = build(&fixture, text, &["--build-context", &named]).ok();
        assert_eq!(fixture.layers(&built, 1)[0]["seen"], format!("644 0:0 {expected}"));
        built
    };
    seen("1");
    fs::write(other.join("x"), "2").unwrap();
    assert_eq!(seen("2").cached(), 0);
    assert_eq!(seen("2").cached(), 1);
}

#[test]
fn mounts_below_mounts_are_visible_in_any_order() {
    let fixture = Fixture::new();
    fixture.write("in/inner/f", "inner");
    let secret = fixture.path("secret");
    fs::write(&secret, "hidden").unwrap();
    let inner = "--mount=type=bind,source=in/inner,target=/m/inner";
    let hidden = "--mount=type=secret,id=s,target=/m/s";
    let outer = "--mount=type=tmpfs,target=/m";
    let secret = format!("id=s,src={}", secret.display());
    for mounts in [[inner, hidden, outer], [outer, inner, hidden], [hidden, outer, inner]] {
        let text = format!("FROM busybox\nRUN {} cat /m/inner/f /m/s > /seen\n", mounts.join(" "));
        let built = build(&fixture, &text, &["--secret", &secret]).ok();
        assert_eq!(fixture.layers(&built, 1)[0]["seen"], "644 0:0 innerhidden", "{mounts:?}");
    }
}

#[test]
fn scratch_is_the_empty_image_also_as_a_source() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nCOPY --from=scratch / /copied/\nRUN --mount=from=scratch,target=/m ls -A /m | wc -l > /seen\n\
                RUN --mount=type=cache,from=scratch,target=/m ls -A /m | wc -l > /seen2\n";
    let built = build(&fixture, text, &["--pull=never"]).ok();
    let layers = fixture.layers(&built, 1);
    assert_eq!((&*layers[1]["seen"], &*layers[2]["seen2"]), ("644 0:0 0", "644 0:0 0"));
}

#[test]
fn a_step_is_known_by_the_part_of_a_stage_that_it_mounts() {
    let fixture = Fixture::new();
    let text = |other: &str, part: &str| {
        format!(
            "FROM busybox AS made\nRUN mkdir /part; echo {part} > /part/x; echo {other} > /other\nFROM busybox\n\
             RUN --mount=from=made,source=/part,target=/m cat /m/x > /seen\n"
        )
    };
    let cached = |text: &str, cached: usize, seen: &str| {
        let built = build(&fixture, text, &[]).ok();
        assert_eq!(built.cached(), cached, "{}", built.stderr);
        assert_eq!(fixture.layers(&built, 1)[0]["seen"], format!("644 0:0 {seen}"));
    };
    cached(&text("1", "1"), 0, "1");
    cached(&text("2", "1"), 1, "1");
    cached(&text("2", "1"), 2, "1");
    cached(&text("2", "2"), 0, "2");
    let mode = text("2", "2").replace("/other\n", "/other; chmod 700 /part\n");
    cached(&mode, 0, "2");
}

#[test]
fn the_value_of_a_variable_is_one_value() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nARG T=/a,ro\nRUN --mount=type=tmpfs,target=$T echo > /a,ro/x && test ! -e /a && echo ok > /seen\n";
    let built = build(&fixture, text, &[]).ok();
    assert_eq!(fixture.layers(&built, 1)[0]["seen"], "644 0:0 ok");
}

#[test]
fn a_mount_point_behind_a_link_leaves_nothing() {
    let fixture = Fixture::new();
    fs::write(fixture.path("secret"), "s").unwrap();
    let text = "FROM busybox\nRUN mkdir -p /run /var && ln -s /run /var/run && ln -s /none /x\n\
                RUN --mount=type=secret,id=s,target=/var/run/secrets/s --mount=type=tmpfs,target=/x/y \
                cat /run/secrets/s > /seen && echo > /x/y/z\n";
    let secret = format!("id=s,src={}", fixture.path("secret").display());
    let built = build(&fixture, text, &["--secret", &secret]).ok();
    let layer = &fixture.layers(&built, 1)[1];
    assert_eq!(layer.keys().collect::<Vec<_>>(), ["seen"]);
}

#[test]
fn a_wrong_mount_of_a_stage_that_is_not_built_is_no_error() {
    let fixture = Fixture::new();
    let text = "FROM busybox AS other\nRUN --mount=type=none true\nFROM busybox\n";
    build(&fixture, text, &[]).ok();
    let built = build(&fixture, text, &["--target", "other"]);
    assert!(built.error().ends_with(":2: unsupported mount type \"none\""), "{}", built.error());
}

#[test]
fn what_is_mounted_read_only_cannot_be_changed() {
    let fixture = Fixture::new();
    let secret = fixture.path("secret");
    fs::write(&secret, "hidden").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    let change = |mount: &str| {
        let text = format!("FROM busybox\nRUN --mount={mount} echo changed > /m/x && cat /m/x > /seen\n");
        let built = build(&fixture, &text, &["--secret", &secret]);
        let seen = (built.status == 0).then(|| fixture.layers(&built, 1)[0]["seen"].clone());
        (seen, built.stderr)
    };
    let changed = Some("644 0:0 changed".to_owned());
    for (mount, writable) in [
        ("type=tmpfs,target=/m", true),
        ("type=tmpfs,target=/m,ro", false),
        ("type=tmpfs,target=/m,size=1m,readonly=true", false),
        ("type=secret,id=s,target=/m/x", false),
        ("type=secret,id=s,target=/m/x,rw", true),
    ] {
        let (seen, stderr) = change(mount);
        assert_eq!(seen, changed.clone().filter(|_| writable), "{mount}: {stderr}");
        assert_eq!(stderr.contains("Read-only file system"), !writable, "{mount}: {stderr}");
    }
    assert_eq!(fs::read_to_string(fixture.path("secret")).unwrap(), "hidden");
}

#[test]
fn a_mounted_directory_has_its_own_mode_each_time() {
    let fixture = Fixture::new();
    fixture.write("d/f", "f");
    let text = "FROM busybox\nRUN --mount=source=d,target=/m stat -c %a /m > /seen\n";
    let seen = |mode: u32, cached: usize| {
        let directory = fixture.path("context/d");
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let built = build(&fixture, text, &[]).ok();
        assert_eq!(built.cached(), cached, "{mode:o}");
        assert_eq!(fixture.layers(&built, 1)[0]["seen"], format!("644 0:0 {mode:o}"));
    };
    seen(0o711, 0);
    seen(0o755, 0);
    seen(0o711, 1);
}
