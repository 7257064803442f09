//! Dockerfiles, contexts and base images that try to get more than they may.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use common::{Built, Fixture};
use serde_json::json;

/// Builds with at most 512 MiB of memory.
fn build(fixture: &Fixture, text: &str) -> Built {
    build_in(512, fixture, text)
}

/// Builds with at most this much memory, in MiB.
fn build_in(memory: usize, fixture: &Fixture, text: &str) -> Built {
    fixture.write("Dockerfile", text);
    let limited = Command::new("sh")
        .args(["-c", &format!("ulimit -v {} && exec \"$@\"", memory << 10), "sh"])
        .arg(assert_cmd::cargo::cargo_bin!("img-build"))
        .args(["--network", "none", "--quiet", "-t", "built"])
        .arg(fixture.path("context"))
        .env("STAVE_ROOT", fixture.root())
        .env("STAVE_RUN", fixture.path("run"))
        .env_remove("SOURCE_DATE_EPOCH")
        .output();
    Built::new(limited.unwrap())
}

/// Asserts that the build fails with one line (and a hint), and ends: exponential growth would not end. On an
/// idle machine it takes at most 10 s.
#[track_caller]
fn refused(fixture: &Fixture, text: &str, error: &str) {
    let begin = Instant::now();
    let built = build(fixture, text);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(built.error().contains(error), "{}", built.stderr);
}

#[test]
fn expansion_ends() {
    let fixture = Fixture::new();
    let doubled: String = (0..40).map(|_| "ENV A=$A$A\n").collect();
    refused(
        &fixture,
        &format!("FROM busybox\nENV A=0123456789\n{doubled}"),
        "substitutions make more than 1 MiB",
    );
    let quoted: String = (0..40).map(|_| "ENV A=\"$A$A\"\n").collect();
    refused(
        &fixture,
        &format!("FROM busybox\nENV A=0123456789\n{quoted}"),
        "substitutions make more than 1 MiB",
    );
    let arguments: String = (0..40).map(|_| "ARG A=$A$A\n").collect();
    refused(
        &fixture,
        &format!("ARG A=0123456789\n{arguments}FROM busybox\n"),
        "substitutions make more than 1 MiB",
    );
    let nested = format!("{}x{}", "${A:-".repeat(10_000), "}".repeat(10_000));
    refused(&fixture, &format!("FROM busybox\nENV B={nested}\n"), "substitutions are nested too deeply");
}

#[test]
fn a_dockerfile_is_no_larger_than_it_may_be() {
    let fixture = Fixture::new();
    refused(&fixture, &"# comment\n".repeat(10_000_000), "file too large");
    refused(
        &fixture,
        &format!("FROM busybox\n{}", "ENV a=b\n".repeat(100_000)),
        ": more than 4000 instructions",
    );
    refused(
        &fixture,
        &format!("FROM busybox\nEXPOSE \\\n{}", "# x\n".repeat(3_000_000)),
        "EXPOSE requires at least one argument",
    );
    fixture.write(".dockerignore", "x\n".repeat(10_000_000));
    refused(&fixture, "FROM busybox\nCOPY Dockerfile /\n", "file too large");
}

#[test]
fn a_configuration_is_no_larger_than_tools_read() {
    let fixture = Fixture::new();
    let large = "x".repeat(1 << 20);
    let too_large = "the image's configuration, with its history, has more than 4 MiB";
    let copies: String = (0..2000).map(|n| format!("ENV B{n}=$A\n")).collect();
    refused(&fixture, &format!("FROM busybox\nENV A={}\n{}", &large[1..], copies), too_large);
    // Half of it is in the history, and half in the settings.
    let labels: String = (0..3).map(|n| format!("LABEL l{n}={large}\n")).collect();
    refused(&fixture, &format!("FROM busybox\n{labels}"), too_large);
    let arguments: String = (0..2000).map(|n| format!("ARG B{n}=$A\n")).collect();
    refused(
        &fixture,
        &format!("ARG A={}\n{}FROM busybox\n", &large[1..], arguments),
        "substitutions make more than 1 MiB",
    );
}

#[test]
fn many_settings_take_no_time_each() {
    let fixture = Fixture::new();
    let begin = Instant::now();
    let line = "x".repeat(1600);
    let labels: String = (0..1000).map(|n| format!("LABEL l{n}={line}\n")).collect();
    let built = build(&fixture, &format!("FROM busybox\n{labels}"));
    assert_eq!(built.status, 0, "{}", built.stderr);
    // Minutes, if each step wrote the whole configuration.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn archives_that_grow() {
    let fixture = Fixture::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(64 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    fixture.write("bomb.tar.gz", encoder.finish().unwrap());
    refused(&fixture, "FROM busybox\nADD bomb.tar.gz /\n", "unpack \"bomb.tar.gz\": ");
}

/// A base image whose directories are links that lead out of it.
fn base(fixture: &Fixture, links: &[(&str, &str)]) {
    let tar = testkit::rootfs(|tree| {
        let busybox = fs::read("/bin/busybox").unwrap();
        testkit::file(tree, "bin/busybox", 0o755, &busybox);
        testkit::symlink(tree, "bin/sh", "busybox");
        for (name, target) in links {
            testkit::symlink(tree, name, target);
        }
    });
    fixture.load("links", &tar, json!({}));
}

#[test]
fn links_in_a_base_lead_nowhere_outside() {
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("kept"), "kept").unwrap();
    let outside = format!("../../../../../..{}", host.display());
    let all =
        [("etc", &*outside), ("dev", &*outside), ("out", &*outside), ("proc", &*outside), ("sys", &*outside)];
    base(&fixture, &all);
    fixture.write("f", "f");
    for step in [
        "RUN /bin/busybox true",
        "RUN --mount=type=tmpfs,target=/out/deep/er /bin/busybox touch /out/deep/er/x",
        "RUN --mount=type=bind,target=/out /bin/busybox true",
        "RUN --mount=type=cache,target=/out/cache /bin/busybox touch /out/cache/x",
        "RUN --mount=type=secret,id=s,target=/out/secret /bin/busybox true",
        "RUN /bin/busybox touch /out/made; /bin/busybox rm -rf /out/kept",
        "COPY f /out/f",
        "WORKDIR /out/work",
    ] {
        // The step may work inside the image, or fail with one line. It never reaches the host.
        let built = fixture.build_with(&format!("FROM links\n{step}\n"), &["--secret", "id=s,env=PATH"]);
        assert!(built.status == 0 || built.error().starts_with("img-build: "), "{step}: {}", built.stderr);
        assert_eq!(common::names(&host), ["kept"], "{step}");
        assert_eq!(fs::read_to_string(host.join("kept")).unwrap(), "kept", "{step}");
    }
}

#[test]
fn no_descriptor_of_the_build_is_a_working_directory() {
    // CVE-2024-21626.
    let fixture = Fixture::new();
    for number in 3..12 {
        let text = format!(
            "FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN cat ../../../../../../..{}\n",
            fixture.write("f", "host's own").display()
        );
        let built = fixture.build_with(&text, &[]);
        assert!(!built.stderr.contains("host's own\n"), "{}", built.stderr);
    }
}

#[test]
fn the_source_of_a_mount_stays_inside() {
    // CVE-2024-1753 and CVE-2024-23651: the source is a link.
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("kept"), "kept").unwrap();
    let outside = format!("../../../../../..{}", host.display());
    base(&fixture, &[("out", &*outside), ("root", "/")]);
    symlink(&host, fixture.path("context").join("link")).unwrap();
    let see = |mount: &str| {
        fixture.build_with(
            &format!("FROM busybox\nRUN --mount={mount},target=/m ls /m; ls /m/kept && echo ESCAPED; true\n"),
            &[],
        )
    };
    for mount in [
        "type=bind,from=links,source=/out,rw",
        "type=bind,from=links,source=/root/out",
        "type=bind,source=link",
        "type=cache,from=links,source=/out",
        "type=cache,from=links,source=/../../out",
    ] {
        let built: Built = see(mount);
        assert!(!built.stderr.contains("\nESCAPED\n"), "{mount}: {}", built.stderr);
        assert_eq!(common::names(&host), ["kept"], "{mount}");
    }
    let copied = fixture.build_with("FROM busybox\nCOPY link/kept /\n", &[]);
    assert!(copied.error().contains("file not found in build context"), "{}", copied.stderr);
}

/// A directory of the host with a file, and the way to it from a directory of a container.
fn outside(fixture: &Fixture) -> (std::path::PathBuf, String) {
    let host = fixture.path("host");
    fs::create_dir_all(host.join("m")).unwrap();
    fs::write(host.join("kept"), "kept").unwrap();
    let way = format!("../../../../../..{}", host.display());
    (host, way)
}

#[test]
fn a_part_of_a_shared_cache_is_not_mounted() {
    // CVE-2024-23651: a stage beside this one could make it a link while it is mounted.
    let fixture = Fixture::new();
    let built = fixture.build_with("FROM busybox\nRUN --mount=type=cache,source=d,target=/m true\n", &[]);
    assert!(built.error().contains("'source' of a cache mount needs 'from'"), "{}", built.stderr);
}

#[test]
fn a_mount_point_that_becomes_a_link_is_not_removed_outside() {
    // CVE-2024-23652: the build makes /d/m for the mount, and the command puts a link to the host into its way.
    let fixture = Fixture::new();
    let (host, way) = outside(&fixture);
    let text =
        format!("FROM busybox\nRUN --mount=type=tmpfs,target=/d/m mv /d /e && ln -s {way} /d && ls -l /\n");
    let built = fixture.build_with(&text, &[]).ok();
    assert!(built.stderr.contains(&way), "{}", built.stderr);
    assert_eq!(common::names(&host), ["kept", "m"]);
}

#[test]
fn a_mount_point_that_changes_meanwhile_stays_inside() {
    // Another build swaps a directory of a shared cache for a link to the host while mount points are made there.
    let fixture = Fixture::new();
    let (host, way) = outside(&fixture);
    let swap = format!(
        "FROM busybox\nRUN --mount=type=cache,id=s,target=/c while test ! -e /c/over; do \
         ln -sfn {way} /c/x; rm -rf /c/x; mkdir -p /c/x; rm -rf /c/x; done\n"
    );
    let other = fixture.write("swap", swap);
    let mut swapping = Command::new(assert_cmd::cargo::cargo_bin!("img-build"))
        .args(["--network", "none", "--quiet", "-f"])
        .args([&other, &fixture.path("context")])
        .env("STAVE_ROOT", fixture.root())
        .env("STAVE_RUN", fixture.path("run"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for number in 0..6 {
        let text = format!(
            "FROM busybox\nRUN --mount=type=cache,id=s,target=/c --mount=type=tmpfs,target=/c/x/new \
             echo {number} > /c/x/new/f; echo > /c/x/made; true\n"
        );
        // A mount point that vanishes in between is an error.
        let built = fixture.build_with(&text, &[]);
        assert!(built.status == 0 || built.error().contains("/c/x/new"), "{}", built.stderr);
        assert_eq!(common::names(&host), ["kept", "m"]);
    }
    fixture.build("FROM busybox\nRUN --mount=type=cache,id=s,target=/c echo > /c/over\n");
    assert!(swapping.wait().unwrap().success());
}

#[test]
fn a_dockerfile_gives_itself_no_privileges() {
    // CVE-2024-23653: what needs an entitlement is refused before anything runs, also where a base asks for it.
    let fixture = Fixture::new();
    let ran = fixture.path("context").join("ran");
    for step in ["RUN --security=insecure touch /m/ran", "ONBUILD RUN --security=insecure touch /m/ran"] {
        let base = fixture.build_with(&format!("FROM busybox\n{step}\n"), &[]);
        let built = match base.status {
            0 => fixture.build_with("FROM built\nRUN --mount=type=bind,target=/m,rw true\n", &[]),
            _ => base,
        };
        assert!(
            built.error().contains("security mode \"insecure\" is not allowed"),
            "{step}: {}",
            built.stderr
        );
    }
    // The host's network is for those whom the caller permits it.
    let host = "RUN --network=host test -e /sys/class/net/lo";
    fixture.build_with(&format!("FROM busybox\nONBUILD {host}\n"), &[]).ok();
    let refused = "network.host is not allowed: `--allow network.host` permits it";
    for (text, flags, error) in [
        (format!("FROM busybox\n{host}\n"), &[][..], refused),
        ("FROM built\n".to_owned(), &["--network", "none"], refused),
        (format!("FROM busybox\n{host}\n"), &["--allow", "network.host"], ""),
    ] {
        let built = fixture.build_with(&text, flags);
        assert_eq!(built.status == 0, error.is_empty(), "{text}: {}", built.stderr);
        assert!(built.stderr.contains(error), "{text}: {}", built.stderr);
    }
    // Nor does a frontend that the file names: none is started.
    let text = "# syntax=example.invalid/evil\nFROM busybox\nRUN ! grep -q 1fffffffff /proc/self/status\n";
    fixture.build_with(text, &[]).ok();
    assert!(!ran.exists());
}

#[test]
fn what_a_command_prints_takes_no_memory() {
    let fixture = Fixture::new();
    let built = build_in(64, &fixture, "FROM busybox\nRUN head -c 80000000 /dev/zero; echo end; false\n");
    assert!(built.error().contains("returned a non-zero code: 1"), "{}", built.error());
    assert!(built.stderr.len() > 80_000_000 && built.stderr.contains("\0end\n"));
}

#[test]
#[ignore = "it takes long: --all runs it"]
fn a_million_files() {
    let fixture = Fixture::new();
    for directory in 0..1000 {
        let directory = fixture.path("context").join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        (0..1000).for_each(|file| drop(fs::File::create(directory.join(format!("{file}"))).unwrap()));
    }
    let built = build(&fixture, "FROM scratch\nCOPY d1 d2 /\n").ok();
    assert!(!built.document.is_null());
    build(&fixture, "FROM scratch\nCOPY . /\n").ok();
}

#[test]
fn a_pipe_in_place_of_an_ignore_file_is_not_waited_for() {
    for name in [".dockerignore", "Dockerfile.dockerignore"] {
        let fixture = Fixture::new();
        fixture.write("Dockerfile", "FROM scratch\nCOPY . /\n");
        let path = fixture.path("context").join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut command = fixture.command();
        command.args(["-q", "-t", "built"]).arg(fixture.path("context")).timeout(Duration::from_secs(60));
        let built = Built::new(command.output().unwrap());
        let error = format!("read {path:?}: it is not a regular file");
        assert!(built.error().ends_with(&error), "{}", built.stderr);
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        fixture.build("FROM scratch\nCOPY . /\n");
    }
}
