//! Flags and build arguments of `docker build`.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::Fixture;

#[test]
fn flags_that_ask_for_what_happens_anyway() {
    let fixture = Fixture::new();
    let accepted =
        ["--load", "--rm", "--rm=true", "--force-rm", "--provenance=false", "--sbom=false", "--call=build"];
    for flag in accepted {
        fixture.build_with("FROM scratch\n", &[flag]).ok();
    }
    for (flag, why) in [
        ("--provenance", "attestations are not made: only false is possible"),
        ("--provenance=mode=max", "attestations are not made: only false is possible"),
        ("--sbom=true", "attestations are not made: only false is possible"),
        ("--rm=false", "a step leaves no container; write --keep-failed to keep that of a failed one"),
        ("--call=check", "write --lint"),
        ("--call=outline", "only build is possible; --dry-run lists the steps, and --lint likely mistakes"),
        ("--attest=type=sbom", "unexpected argument '--attest' found"),
    ] {
        let built = fixture.build_with("FROM scratch\n", &[flag]);
        assert_eq!(built.status, 2, "{flag}: {}", built.stderr);
        assert!(built.stderr.contains(why), "{flag}: {}", built.stderr);
    }
}

#[test]
fn switches_take_a_value() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n";
    let build = |arguments: &[&str]| {
        let built = fixture.build_with(text, &[&["--pull=never"], arguments].concat()).ok();
        (built.cached(), built.configuration()["rootfs"]["diff_ids"].as_array().unwrap().len())
    };
    assert_eq!(build(&["--load=true", "--force-rm=true", "--push=false", "--squash=false"]), (0, 3));
    assert_eq!(build(&["--no-cache=false"]), (2, 3));
    assert_eq!(build(&["--no-cache=true", "--squash=1"]), (0, 2));
    assert_eq!(build(&["--no-cache", "--no-cache=false"]), (2, 3));
    assert_eq!(fixture.build_with(text, &["-q=true", "--pull=false"]).ok().stderr, "");
    assert!(!fixture.build_with(text, &["--quiet=false"]).ok().stderr.is_empty());
    let wrong = fixture.build_with(text, &["--no-cache=maybe"]);
    assert!(wrong.stderr.contains("unexpected value 'maybe' for '--no-cache' found"), "{}", wrong.stderr);
    // It asks the registry, which is not there.
    let asked = fixture.build_with("FROM 127.0.0.1:1/a\n", &["--pull=true"]);
    assert!(asked.error().contains("127.0.0.1:1"), "{}", asked.stderr);
}

#[test]
fn the_checks_have_another_flag() {
    let fixture = Fixture::new();
    let built = fixture.build_with("FROM scratch\n", &["--check"]);
    let expected = "img-build: no document on standard input: did the previous command fail?\n\
                    hint: the checks of a Dockerfile, as of docker build --check: --lint\n";
    assert_eq!(built.stderr, expected);
}

#[test]
fn a_push_needs_a_registry_in_the_name() {
    let fixture = Fixture::new();
    fixture.write("Dockerfile", "FROM scratch\n");
    let name = "127.0.0.1:1/a:latest";
    let mut command = fixture.command();
    let output = command.args(["--push", "-t", name]).arg(fixture.path("context")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    let mut command = fixture.command();
    let explained =
        command.args(["--push", "-t", name, "--explain"]).arg(fixture.path("context")).output().unwrap();
    let explained = String::from_utf8_lossy(&explained.stderr) + String::from_utf8_lossy(&explained.stdout);
    assert!(explained.contains(&format!("buildah push {name} {name}")), "{explained}");
}

#[test]
fn steps_of_some_stages_do_not_use_the_cache() {
    let fixture = Fixture::new();
    let text = "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM busybox AS two\nRUN echo two > /two\n\
                FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let one = |arguments: &[&str]| {
        let built = fixture.build_with(text, arguments).ok();
        (fixture.layers(&built, 1)[0]["one"].clone(), built.cached())
    };
    let (first, _) = one(&[]);
    assert_eq!(one(&[]), (first.clone(), 4));
    let (second, cached) = one(&["--no-cache-filter", "ONE"]);
    assert_ne!(second, first);
    assert_eq!(cached, 1, "the second stage; the last one stands on another layer");
    assert_eq!(one(&[]), (second, 4), "what was made last is kept");
    let wrong = fixture.build_with(text, &["--no-cache-filter=one,twu"]);
    let expected = "img-build: no stage \"twu\", whose steps would not use the cache (did you mean two?)";
    assert_eq!(wrong.error(), expected);
}

#[test]
fn build_arguments_for_the_builder() {
    let fixture = Fixture::new();
    let hostname = "FROM busybox\nRUN hostname > /name; cat /etc/hosts > /hosts\n";
    let built = fixture.build_with(hostname, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=own"]).ok();
    let layer = &fixture.layers(&built, 1)[0];
    assert_eq!(layer["name"], "644 0:0 own");
    assert!(layer["hosts"].contains("127.0.1.1\town"), "{}", layer["hosts"]);
    let usual = fixture.build(hostname);
    assert_eq!((usual.cached(), &*fixture.layers(&usual, 1)[0]["name"]), (0, "644 0:0 stave-build"));

    let inline =
        fixture.build_with("FROM busybox\nRUN true\n", &["--build-arg", "BUILDKIT_INLINE_CACHE=1"]).ok();
    assert!(!inline.configuration()["stave.cache"].as_array().unwrap().is_empty());

    let cache = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c ls /c > /seen; touch /c/$N\n";
    let seen = |name: &str, namespace: &str| {
        let arguments = [format!("N={name}"), format!("BUILDKIT_CACHE_MOUNT_NS={namespace}")];
        let built =
            fixture.build_with(cache, &["--build-arg", &arguments[0], "--build-arg", &arguments[1]]).ok();
        assert!(!built.stderr.contains("were not consumed"), "{}", built.stderr);
        fixture.layers(&built, 1)[0]["seen"].clone()
    };
    assert_eq!(seen("a", "one"), "644 0:0");
    assert_eq!(seen("b", "two"), "644 0:0");
    assert_eq!(seen("c", "one"), "644 0:0 a");

    let unknown = fixture.build_with("FROM scratch\n", &["--build-arg", "BUILDKIT_SYNTAX=x"]).ok();
    assert!(
        unknown.stderr.contains("One or more build-args [BUILDKIT_SYNTAX] were not consumed"),
        "{}",
        unknown.stderr
    );
}

/// The excerpt marks the word to correct.
#[test]
fn the_wrong_word_is_marked() {
    let fixture = Fixture::new();
    for (instruction, word) in [
        ("RUN --mount=type=cahce,target=/x true", "cahce"),
        ("RUN --mount=type=cache,tarrget=/x true", "tarrget"),
        ("RUN --mount=type=cache,target=/x,sharing=lock true", "lock"),
        ("COPY --chmod=64a Dockerfile /", "64a"),
        ("COPY --from=$X / /", "--from"),
        ("ONBUILD FROM x", "FROM"),
        ("HEALTHCHECK --interval=1us CMD x", "--interval"),
        ("FROM --platform=none busybox", "none"),
    ] {
        let built = fixture.build_with(&format!("FROM busybox\n{instruction}\n"), &[]);
        let before = " ".repeat(instruction.rfind(word).unwrap());
        let marked = format!(">>> {instruction}\n     |     {before}{}\n", "^".repeat(word.len()));
        assert!(built.stderr.contains(&marked), "{}", built.stderr);
    }
}

#[test]
fn a_variable_that_is_missing_in_from_is_named_before_the_error() {
    let fixture = Fixture::new();
    let name = fixture.path("context/Dockerfile").display().to_string();
    for (text, missing, error) in [
        (
            "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox\n",
            "2: UndefinedArgInFrom: FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)",
            "\"linux/\" is not a platform",
        ),
        ("FROM $NONE\n", "1: UndefinedArgInFrom: FROM argument 'NONE' is not declared", "base name"),
    ] {
        for flags in [&[][..], &["--lint"]] {
            let built = fixture.build_with(text, flags);
            let (first, rest) = built.stderr.split_once('\n').unwrap();
            assert_eq!(first, format!("[Warning] {name}:{missing}"));
            assert!(rest.contains(error) && built.status == 1, "{}", built.stderr);
        }
        let skipped = fixture.build_with(&format!("# check=skip=UndefinedArgInFrom\n{text}"), &[]);
        assert!(!skipped.stderr.contains("[Warning]"), "{}", skipped.stderr);
    }
}

#[test]
fn one_platform_of_one_build() {
    let fixture = Fixture::new();
    let text = "FROM scratch\n";
    let plain = fixture.build(text).configuration();
    assert_eq!(fixture.build_with(text, &["--platform=local"]).ok().configuration(), plain);
    let other = fixture.build_with("FROM busybox\n", &["--pull=never", "--platform=linux/s390x"]);
    let error = "the store has \"busybox\" for linux/amd64, and not for linux/s390x";
    assert!(other.error().ends_with(error), "{}", other.stderr);
    assert!(
        other.stderr.ends_with("hint: get it first: img-pull --platform linux/s390x busybox\n"),
        "{}",
        other.stderr
    );
}

#[test]
fn several_platforms_of_one_build() {
    let fixture = Fixture::new();
    fixture.write("f", "f");
    let text = "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
                FROM scratch\nCOPY f /\nCOPY --from=make /arch /\n";
    let (out, id, metadata) = (fixture.path("out"), fixture.path("id"), fixture.path("metadata"));
    let output = format!("type=local,dest={}", out.display());
    let (tar, archive) = (fixture.path("tar"), fixture.path("oci"));
    let outputs =
        [("tar", &tar), ("oci", &archive)].map(|(kind, path)| format!("type={kind},dest={}", path.display()));
    let platforms = ["--platform=linux/amd64,linux/arm/v7", "--platform=linux/amd64"];
    let flags = [&platforms[..], &["-o", &output, "-o", &outputs[0], "-o", &outputs[1]]].concat();
    let files = ["--iidfile", id.to_str().unwrap(), "--metadata-file", metadata.to_str().unwrap()];
    let built = fixture.build_with(text, &[&flags[..], &files].concat()).ok();
    for (directory, arch) in [("linux_amd64", "amd64\n"), ("linux_arm_v7", "arm\n")] {
        assert_eq!(std::fs::read_to_string(out.join(directory).join("arch")).unwrap(), arch);
    }
    let mut names: Vec<String> = tar::Archive::new(std::fs::File::open(tar).unwrap())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.retain(|name| name.contains('/'));
    assert_eq!(names, ["linux_amd64/arch", "linux_amd64/f", "linux_arm_v7/arch", "linux_arm_v7/f"]);
    let layout = fixture.layout();
    let index = layout.find("built").unwrap();
    let hex = index.digest().to_string();
    let blob = format!("blobs/sha256/{}", hex.strip_prefix("sha256:").unwrap());
    let saved = tar::Archive::new(std::fs::File::open(archive).unwrap())
        .entries()
        .unwrap()
        .any(|entry| entry.unwrap().path().unwrap().ends_with(&blob));
    assert!(saved, "the archive has the index");
    assert_eq!(std::fs::read_to_string(id).unwrap(), index.digest().to_string());
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], index.digest().to_string());
    let entries = layout.read_json::<serde_json::Value>(&index).unwrap()["manifests"].clone();
    let platforms: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect();
    let arm = serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v7"});
    assert_eq!(platforms, [serde_json::json!({"architecture": "amd64", "os": "linux"}), arm]);
    assert_eq!(built.document["image"]["descriptor"]["digest"], entries[0]["digest"]);
    assert_eq!(built.document["image"]["reference"], "built:latest");
    // The images have no entry of their own: only the base and the index are in the list.
    assert_eq!(layout.list().unwrap().len(), 2);
    // Each is the image that a build for it alone makes.
    let alone = fixture.build_with(text, &["--platform=linux/arm/v7"]).ok();
    assert_eq!(alone.document["image"]["descriptor"]["digest"], entries[1]["digest"]);
}

/// The archive has the index even if none of its images is for this machine.
#[test]
fn platforms_of_other_machines() {
    let fixture = Fixture::new();
    let elsewhere = format!("type=oci,dest={}", fixture.path("elsewhere").display());
    fixture.build_with("FROM scratch\n", &["--platform=windows/amd64,linux/s390x", "-o", &elsewhere]).ok();
    let mut archive = tar::Archive::new(std::fs::File::open(fixture.path("elsewhere")).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let list = entries.find(|entry| entry.path().unwrap().ends_with("index.json")).unwrap();
    let list: serde_json::Value = serde_json::from_reader(list).unwrap();
    let kinds: Vec<_> = list["manifests"].as_array().unwrap().iter().map(|one| &one["mediaType"]).collect();
    assert_eq!(kinds, ["application/vnd.oci.image.index.v1+json"]);
}

#[test]
fn for_several_platforms_the_dockerfile_is_read_once() {
    let fixture = Fixture::new();
    let mut command = fixture.command();
    command.args(["--platform=linux/amd64,linux/arm64", "-t", "two", "-"]);
    command.write_stdin("FROM scratch\nLABEL a=b\n").assert().success();
    let layout = fixture.layout();
    let index = layout.read_json::<serde_json::Value>(&layout.find("two").unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn what_several_platforms_cannot_have() {
    let fixture = Fixture::new();
    let platforms = "--platform=linux/amd64,linux/arm64";
    let built = fixture.build_with("FROM scratch\n", &[platforms, "-o", "type=docker,dest=t"]);
    let error = "-o type=docker,dest=FILE has one image: with several platforms, write type=oci,dest=FILE";
    assert!(built.error().ends_with(error), "{}", built.stderr);
    // One that fails leaves no name of the other.
    let broken = "FROM busybox AS amd64\nFROM nosuch AS arm64\nFROM $TARGETARCH\n";
    let built = fixture.build_with(&format!("ARG TARGETARCH\n{broken}"), &[platforms, "--pull=never"]);
    assert_eq!(built.status, 1);
    assert_eq!(fixture.layout().list().unwrap().len(), 1, "{}", built.stderr);
}
