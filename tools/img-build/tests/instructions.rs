//! Every instruction, by its effect on the configuration or on a layer.

mod common;

use common::{Fixture, files};
use serde_json::json;

#[test]
fn what_people_see() {
    let fixture = Fixture::new();
    let first = fixture.build("FROM busybox\nRUN echo hello\nCMD [\"/bin/sh\"]\n");
    let lines: Vec<_> = first.stderr.lines().collect();
    assert_eq!(lines[0], "Step 1/3 : FROM busybox");
    assert_eq!(lines[2], "Step 2/3 : RUN echo hello");
    assert_eq!(lines[3], "hello");
    assert!(lines[4].starts_with(" ---> ") && lines[4].len() == 18, "{:?}", lines[4]);
    assert_eq!(lines[5], "Step 3/3 : CMD [\"/bin/sh\"]");
    let id = lines[6].strip_prefix(" ---> ").unwrap();
    assert_eq!(lines[7], format!("Successfully built {id}"));
    assert_eq!(lines[8], "Successfully tagged built:latest");
    assert_eq!(first.document["image"]["reference"], "built:latest");

    let second = fixture.build("FROM busybox\nRUN echo hello\nCMD [\"/bin/sh\"]\n");
    assert_eq!(second.cached(), 2);
    assert!(!second.stderr.contains("\nhello\n"));
    assert_eq!(second.document, first.document, "the same build gives the same image");
    assert_eq!(fixture.build_with("FROM busybox\nRUN echo hello\n", &["-q"]).ok().stderr, "");
}

/// The PATH of an image that has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn configuration() {
    let fixture = Fixture::new();
    let config = fixture.config(
        "FROM busybox\nARG V=1\nENV A=x B=\"$A-${V}\" PATH=/p:$PATH\nENV C $A y\nLABEL l=\"a b\" m=$V\nEXPOSE 80 53/udp\nVOLUME /v \
         /w\nUSER nobody\nWORKDIR /bin\nWORKDIR ../tmp\nSTOPSIGNAL SIGINT\nMAINTAINER me\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"a\"]\n",
    );
    let own = &config["config"];
    assert_eq!(own["Env"], json!([format!("PATH=/p:{PATH}"), "A=x", "B=-1", "C=x y"]));
    assert_eq!(own["Labels"], json!({"l": "a b", "m": "1"}));
    assert_eq!(own["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(own["Volumes"], json!({"/v": {}, "/w": {}}));
    assert_eq!(own["User"], "nobody");
    assert_eq!(own["WorkingDir"], "/tmp");
    assert_eq!(own["StopSignal"], "SIGINT");
    assert_eq!(own["Entrypoint"], json!(["/bin/echo"]));
    assert_eq!(own["Cmd"], json!(["a"]));
    assert_eq!(config["author"], "me");
    let history: Vec<_> =
        config["history"].as_array().unwrap().iter().map(|entry| entry["created_by"].clone()).collect();
    assert_eq!(history[1], "ARG V=1");
    assert_eq!(history[3], "ENV C=x y");
    assert_eq!(*history.last().unwrap(), "CMD [\"a\"]");
    assert!(config["history"][1]["empty_layer"].as_bool().unwrap());
    assert_eq!(
        config["rootfs"]["diff_ids"].as_array().unwrap().len(),
        1,
        "directories that are there need no layer"
    );
}

#[test]
fn what_only_docker_has_stands_in_the_configuration() {
    let fixture = Fixture::new();
    fixture.build("FROM busybox\nSHELL [\"/bin/ash\", \"-ec\"]\nHEALTHCHECK --interval=5s CMD true\nONBUILD RUN echo on > /on\nRUN echo $0 > /shell\n");
    let layout = fixture.layout();
    let raw = layout.image(&layout.find("built").unwrap(), None).unwrap().raw_configuration;
    assert_eq!(raw["config"]["Shell"], json!(["/bin/ash", "-ec"]));
    assert_eq!(
        raw["config"]["Healthcheck"],
        json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64})
    );
    assert_eq!(raw["config"]["OnBuild"], json!(["RUN echo on > /on"]));
    fixture.command().args(["-t", "base"]).arg(fixture.path("context")).assert().success();
    let document = fixture.build("FROM busybox\nHEALTHCHECK NONE\n").document;
    assert_eq!(document["image"]["configuration"]["config"]["Healthcheck"], json!({"Test": ["NONE"]}));
    let child = fixture.build("FROM base\n");
    assert!(child.stderr.contains("# Executing 1 build trigger"), "{}", child.stderr);
    assert_eq!(fixture.layers(&child, 2), [files([("on", "644 0:0 on")])]);
    let raw = layout.image(&layout.find("built").unwrap(), None).unwrap().raw_configuration;
    assert_eq!(raw["config"].get("OnBuild"), None);
}

#[test]
fn run() {
    let fixture = Fixture::new();
    let built = fixture.build(
        "FROM busybox\nARG A=arg\nENV E=env\nRUN echo $A $E $HOME > /a; rm /www/index.html; mkdir /d && chmod 777 /d\nUSER nobody\n\
         WORKDIR /d\nRUN [\"/bin/sh\", \"-c\", \"id -u > u; pwd >> u\"]\nRUN <<EOF\necho one > one\necho $E >> one\nEOF\n\
         RUN cat <<A > two && cat <<B >> two\n$E\nA\nlast\nB\nRUN <<X\n#!/bin/cat\nnot a shell\nX\n",
    );
    assert!(built.stderr.contains("#!/bin/cat\nnot a shell\n"), "{}", built.stderr);
    let layers = fixture.layers(&built, 1);
    let user = "65534:65534";
    assert_eq!(
        layers[0],
        files([
            ("a", "644 0:0 arg env /root"),
            ("d/", "777 0:0"),
            ("www/", "755 0:0"),
            ("www/.wh.index.html", "0 0:0")
        ])
    );
    assert_eq!(layers[1]["d/u"], format!("644 {user} 65534\n/d"));
    assert_eq!(layers[2]["d/one"], format!("644 {user} one\nenv"));
    assert_eq!(layers[3]["d/two"], format!("644 {user} env\nlast"));
    let history = &built.configuration()["history"];
    assert_eq!(
        history[3]["created_by"],
        "RUN |1 A=arg /bin/sh -c echo $A $E $HOME > /a; rm /www/index.html; mkdir /d && chmod 777 /d"
    );
}

#[test]
fn a_step_leaves_nothing_of_its_surroundings() {
    let fixture = Fixture::new();
    let built = fixture.build(
        "FROM busybox\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null && ls /proc/self /sys /dev/shm\n",
    );
    assert_eq!(fixture.layers(&built, 1), [files([])]);
    std::fs::create_dir(fixture.path("context/etc")).unwrap();
    std::os::unix::fs::symlink("../run/x/resolv.conf", fixture.path("context/etc/resolv.conf")).unwrap();
    let link = "FROM busybox\nCOPY etc /etc\nRUN cat /etc/resolv.conf > /dev/null\n";
    assert_eq!(fixture.layers(&fixture.build(link), 2), [files([])]);
    assert_eq!(common::names(&fixture.root().join("build")), [""; 0]);
}

#[test]
fn copy_and_add() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    fixture.write("dir/b", "2");
    fixture.write("dir/sub/c", "3");
    fixture.write("dir/skipped", "4");
    fixture.write(".dockerignore", "**/skipped\n");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_uid(7);
    header.set_gid(8);
    tar.append_data(&mut header, "in/x", &b"x"[..]).unwrap();
    fixture.write("t.tar.gz", tar.into_inner().unwrap().finish().unwrap());
    let built = fixture.build(
        "FROM busybox\nARG D=/d\nWORKDIR /w\nCOPY a .\nCOPY --chown=nobody:9 --chmod=600 a $D/\nCOPY dir /d\nADD t.tar.gz /u/\n\
         COPY t.tar.gz /u/\nCOPY <<EOF <<'RAW' /h/\n$D\nEOF\n$D\nRAW\nADD dir/b a /m/\n",
    );
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[0], files([("w/", "755 0:0")]));
    assert_eq!(layers[1], files([("w/", "755 0:0"), ("w/a", "644 0:0 1")]));
    assert_eq!(layers[2], files([("d/", "600 65534:9"), ("d/a", "600 65534:9 1")]));
    assert_eq!(
        layers[3],
        files([("d/", "600 65534:9"), ("d/b", "644 0:0 2"), ("d/sub/", "755 0:0"), ("d/sub/c", "644 0:0 3")])
    );
    assert_eq!(layers[4], files([("u/", "755 0:0"), ("u/in/", "755 0:0"), ("u/in/x", "600 7:8 x")]));
    assert_eq!(layers[6], files([("h/", "755 0:0"), ("h/EOF", "644 0:0 /d"), ("h/RAW", "644 0:0 $D")]));
    assert_eq!(layers[7], files([("m/", "755 0:0"), ("m/a", "644 0:0 1"), ("m/b", "644 0:0 2")]));
}

#[test]
fn a_stage_inherits_the_arguments_of_the_stage_that_it_stands_on() {
    let fixture = Fixture::new();
    let built = fixture.build(
        "ARG G=global\nFROM busybox AS one\nARG A=a\nARG G\nFROM one AS two\nARG A=$A-two\nRUN echo $A $G > /two\n\
         FROM busybox\nCOPY --from=two /two /\nRUN echo [$A$G] > /other\n",
    );
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[0], files([("two", "644 0:0 a-two global")]));
    assert_eq!(layers[1], files([("other", "644 0:0 []")]));
}

#[test]
fn from_scratch() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    let built = fixture.build("FROM scratch\nCOPY a /x/\nENV A=b\n");
    assert_eq!(fixture.layers(&built, 0), [files([("x/", "755 0:0"), ("x/a", "644 0:0 1")])]);
    let empty = fixture.build("FROM scratch\nLABEL a=b\n");
    assert_eq!(fixture.layers(&empty, 0), []);
}

#[test]
fn stages() {
    let fixture = Fixture::new();
    fixture.load("other", &testkit::rootfs(|tree| testkit::file(tree, "o", 0o640, b"other")), json!({}));
    let text = "ARG BASE=busybox\nFROM $BASE AS one\nRUN echo 1 > /one && chown nobody /one\nFROM one AS unused\nRUN false\n\
                FROM busybox AS two\nCOPY --from=one /one /copied\nCOPY --from=0 /one /link/\nCOPY --from=other /o /\nRUN --mount=from=one,source=/one,target=/m cat /m > /mounted\n";
    let built = fixture.build(text);
    assert_eq!(
        fixture.layers(&built, 1),
        [
            files([("copied", "644 65534:0 1")]),
            files([("link/", "755 0:0"), ("link/one", "644 65534:0 1")]),
            files([("o", "640 0:0 other")]),
            files([("mounted", "644 0:0 1")]),
        ]
    );
    assert!(built.stderr.contains("Step 2/8 : FROM $BASE AS one"), "{}", built.stderr);
    assert!(!built.stderr.contains("RUN false"));
    assert_eq!(fixture.build(text).cached(), 5);
    let one = fixture.build_with(text, &["--target", "one"]).ok();
    assert_eq!(fixture.layers(&one, 1), [files([("one", "644 65534:0 1")])]);
}

#[test]
fn mounts_of_run() {
    let fixture = Fixture::new();
    fixture.write("src/x", "x");
    let text = "FROM busybox\nRUN --mount=target=/src,source=src cat /src/x > /a && ! touch /src/y\n\
                RUN --mount=target=/src,source=src,rw touch /src/y && ls /src > /b\n\
                RUN --mount=type=cache,target=/c date +%N >> /c/log; wc -l < /c/log > /n\n\
                RUN --mount=type=tmpfs,target=/tmp/t touch /tmp/t/x && mount | grep -c ' /tmp/t type tmpfs' > /t\n";
    let built = fixture.build(text);
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[0], files([("a", "644 0:0 x")]));
    assert_eq!(layers[1], files([("b", "644 0:0 x\ny")]));
    assert_eq!(layers[2], files([("n", "644 0:0 1")]));
    assert_eq!(layers[3]["t"], "644 0:0 1");
    assert!(!fixture.path("context/src/y").exists());
    let anew = fixture.build_with(text, &["--no-cache"]).ok();
    assert_eq!(fixture.layers(&anew, 1)[2], files([("n", "644 0:0 1")]), "its caches were empty");
    let again = fixture.build(&text.replace("wc -l", "true; wc -l"));
    assert_eq!(
        fixture.layers(&again, 1)[2],
        files([("n", "644 0:0 2")]),
        "and those of before are as they were"
    );
}

#[test]
fn arguments_labels_and_time() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nARG A\nARG EPOCH\nRUN echo $A > /a; touch /t\n";
    let mut output = fixture.command();
    output
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .args(["-t", "built", "--build-arg", "A=given", "--build-arg", "NOBODY=x", "--label", "k=v"])
        .arg(fixture.path("context"));
    fixture.write("Dockerfile", text);
    let built = common::Built::new(output.output().unwrap()).ok();
    assert_eq!(fixture.layers(&built, 1)[0]["a"], "644 0:0 given");
    assert!(built.stderr.contains("[Warning] One or more build-args [NOBODY] were not consumed"));
    let configuration = built.configuration();
    assert_eq!(configuration["config"]["Labels"], json!({"k": "v"}));
    assert_eq!(configuration["created"], "2001-09-09T01:46:40Z");
    let again = output.arg("--no-cache").output().unwrap();
    let again = common::Built::new(again).ok();
    assert_eq!(again.document, built.document, "built anew, to the byte the same");
}

#[test]
fn the_name_of_a_document_leads_to_no_other_directory() {
    let fixture = Fixture::new();
    for name in ["/etc/zz", "../zz", "a/b"] {
        let text = format!("FROM busybox\nCOPY <<{name} /w/\nx\n{name}\n");
        let error = format!("a file cannot have the name {name:?} of the here-document");
        assert!(fixture.build_with(&text, &[]).error().ends_with(&error), "{name}");
    }
    let run = "FROM busybox\nRUN <</../etc/zz\n#!/bin/sh\necho $0 > /seen\n/../etc/zz\n";
    let built = fixture.build(run);
    assert_eq!(fixture.layers(&built, 1)[0]["seen"], "644 0:0 /dev/pipes/etc/zz");
}

/// debootstrap tests this, and gives up otherwise.
#[test]
fn device_nodes_of_a_step_work_as_far_as_its_cgroup_allows() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nRUN mknod /null c 1 3 && echo x > /null && echo works > /seen; \
                mknod /kmsg c 1 11; cat /kmsg > /log 2> /why; rm /null /kmsg; cat /why >> /seen\n";
    let built = fixture.build(text);
    let seen = &fixture.layers(&built, 1)[0];
    assert_eq!(seen["seen"], "644 0:0 works\ncat: can't open '/kmsg': Operation not permitted");
    assert_eq!(seen["log"], "644 0:0");
}

/// As bazel and nix make them.
#[test]
fn a_base_without_a_history_gets_one() {
    let fixture = Fixture::new();
    let layout = fixture.layout();
    let mut configuration = layout.image(&layout.find("busybox").unwrap(), None).unwrap().raw_configuration;
    let mut manifest =
        serde_json::to_value(layout.manifest(&layout.find("busybox").unwrap()).unwrap()).unwrap();
    configuration.as_object_mut().unwrap().remove("history");
    manifest["config"] =
        serde_json::to_value(layout.write_json(oci::spec::MediaType::ImageConfig, &configuration).unwrap())
            .unwrap();
    let manifest = layout.write_json(oci::spec::MediaType::ImageManifest, &manifest).unwrap();
    layout.tag(&"bare".parse().unwrap(), &manifest).unwrap();
    let configuration = fixture.config("FROM bare\nLABEL a=b\nCOPY Dockerfile /\n");
    let history = configuration["history"].as_array().unwrap();
    let texts: Vec<_> =
        history.iter().map(|entry| (entry["created_by"].as_str(), entry["empty_layer"] == true)).collect();
    let copy = history[2]["created_by"].as_str();
    assert!(copy.unwrap().starts_with("COPY "), "{history:?}");
    assert_eq!(texts, [(None, false), (Some("LABEL a=b"), true), (copy, false)]);
}

#[test]
fn the_history_of_a_command_has_its_arguments_as_they_were_declared() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nARG foo=bar\nARG bar=123\nARG foo=bar2\nARG none\nARG hidden=1\nENV hidden=2\nRUN true\n";
    let configuration = fixture.config(text);
    let last = configuration["history"].as_array().unwrap().last().unwrap()["created_by"].clone();
    assert_eq!(last, "RUN |4 foo=bar2 bar=123 none= hidden=2 /bin/sh -c true");
}

#[test]
fn a_terminal_is_not_at_the_mercy_of_a_dockerfile() {
    let fixture = Fixture::new();
    for form in ["plain", "tty"] {
        let built = fixture.build_with("FROM scratch\nLABEL a=\"\x1b[2Jb\"\n", &["--progress", form]).ok();
        assert!(built.stderr.contains(" [2Jb"), "{}", built.stderr);
        assert!(!built.stderr.contains("\x1b[2J"), "{}", built.stderr);
    }
}

#[test]
fn what_the_configuration_has_of_directories_and_triggers() {
    let fixture = Fixture::new();
    let configuration = fixture.config("FROM busybox\nWORKDIR /app/\nONBUILD RUN x\n");
    assert_eq!(configuration["config"]["WorkingDir"], "/app/");
    assert_eq!(configuration["config"]["OnBuild"], json!(["RUN x"]));
    let texts: Vec<_> =
        configuration["history"].as_array().unwrap().iter().map(|entry| &entry["created_by"]).collect();
    assert_eq!(texts, ["test", "WORKDIR /app/"], "an ONBUILD has no place in it");
    for (path, expected) in [("/a/../b/", "/b"), ("/a/./", "/a"), ("c/", "/c"), ("", "/")] {
        let text = format!("FROM busybox\nARG P={path}\nWORKDIR $P\nRUN pwd\n");
        assert_eq!(fixture.config(&text)["config"]["WorkingDir"], expected, "{path:?}");
    }
}

#[test]
fn directories_that_an_archive_does_not_list_belong_to_root() {
    let fixture = Fixture::new();
    fixture.write("a.tar", testkit::rootfs(|tree| testkit::file(tree, "deep/er/f", 0o600, b"x")));
    let built = fixture.build("FROM scratch\nADD --chown=5:6 --chmod=700 a.tar /new/out/\n");
    let expected = [
        ("new/", "755 5:6"),
        ("new/out/", "755 5:6"),
        ("new/out/deep/", "755 0:0"),
        ("new/out/deep/er/", "755 0:0"),
        ("new/out/deep/er/f", "600 5:6 x"),
    ];
    assert_eq!(fixture.layers(&built, 0), [files(expected)]);
}
