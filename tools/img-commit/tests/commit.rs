//! A container's changes as an image, which skopeo and umoci can read.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::{Sandbox, directory, file, rootfs};

/// The container's changes to its image.
const WORK: &str = "echo new > /added; rm /etc/gone; rm -r /old; mkdir /old; echo x > /old/only; \
                    echo changed >> /etc/kept; ln /added /linked; chmod 4711 /added; mkdir -m 700 /srv; echo in > /data/in/f";

/// A container `web` after these changes. Its document is web.json.
fn with_container(work: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let archive = rootfs(|tree| {
        for path in ["bin", "etc", "old"] {
            directory(tree, path);
        }
        file(tree, "bin/busybox", 0o755, &busybox);
        testkit::symlink(tree, "bin/sh", "busybox");
        file(tree, "etc/gone", 0o644, b"");
        file(tree, "etc/kept", 0o640, b"kept\n");
        file(tree, "old/hidden", 0o644, b"");
    });
    sandbox.load("base", &archive);
    let pipe = "mkdir -p volume && layer-apply --id web < base.json | union-mount -v $PWD/volume:/data/in";
    let run =
        format!("{pipe} | ns-exec --network none --document web.json -v $PWD/volume:/mnt/deep -- /bin/sh -c");
    let words = ["echo", "rm", "mkdir", "ln", "chmod", "true"];
    let functions: String =
        words.iter().map(|word| format!("{word}() {{ busybox {word} \"$@\"; }}; ")).collect();
    sandbox.sh(&format!("{run} '{functions}{work}'")).ok();
    sandbox
}

fn layers(sandbox: &Sandbox, image: &Value) -> Vec<PathBuf> {
    let blobs = sandbox.root().join("images/blobs/sha256");
    let digest = image["descriptor"]["digest"].as_str().unwrap();
    let manifest = std::fs::read(blobs.join(&digest[7..])).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| blobs.join(&layer["digest"].as_str().unwrap()[7..])).collect()
}

#[test]
fn files_whiteouts_and_opaque_directories() {
    let sandbox = with_container(WORK);
    let document = sandbox.sh("img-commit -q -t made < web.json").json();
    let (mut after, mut made) = (sandbox.sh("cat web.json").json(), document.clone());
    for document in [&mut after, &mut made] {
        document.as_object_mut().unwrap().remove("image");
    }
    assert_eq!(after, made, "nothing but the image changes");
    let layers = layers(&sandbox, &document["image"]);
    assert_eq!(layers.len(), 2);
    let list = sandbox.sh(&format!("tar tzf {} | sort", layers[1].display())).ok();
    let expected = [
        "added",
        "etc/",
        "etc/.wh.gone",
        "etc/kept",
        "linked",
        "old/",
        "old/.wh..wh..opq",
        "old/only",
        "srv/",
    ];
    assert_eq!(list.lines().collect::<Vec<_>>(), expected, "and nothing of what was only mounted on");
    // layer-diff makes the same layer, with the files' own times.
    sandbox.sh("layer-diff --compression none -o layer.tar < web.json").json();
    assert_eq!(sandbox.sh("tar tf layer.tar | sort").ok(), list);
    // By the container's id, from the record: the same layer.
    let by_id = sandbox.sh("img-commit -q web").json();
    assert_eq!(by_id["image"]["configuration"]["rootfs"], document["image"]["configuration"]["rootfs"]);
    assert_eq!(by_id["image"].get("reference"), None);

    let refused = sandbox.sh("SOURCE_DATE_EPOCH=1.5 img-commit -q -t later web").exits(1).stderr;
    assert_eq!(
        refused,
        "img-commit: read SOURCE_DATE_EPOCH \"1.5\": it is not a number of seconds since 1970\n"
    );

    // umoci unpacks what the container saw.
    let name = format!("{}:docker.io/library/made:latest", sandbox.root().join("images").display());
    sandbox.sh(&format!("umoci unpack --image {name} bundle 2> /dev/null")).ok();
    let seen = "cd bundle/rootfs && find . -not -path './bin*' | sort && cat added old/only etc/kept && stat -c '%a %h' added srv";
    assert_eq!(
        sandbox.sh(seen).ok(),
        ".\n./added\n./etc\n./etc/kept\n./linked\n./old\n./old/only\n./srv\nnew\nx\nkept\nchanged\n4711 2\n700 2\n"
    );
    // So does Stave, in a container made from the image.
    let again = "img-inspect made | layer-apply --id again | union-mount | ns-exec --network none --document again.json -- \
                 /bin/busybox cat /added /old/only; unwind again > /dev/null";
    assert_eq!(sandbox.sh(again).ok(), "new\nx\n");
    sandbox.sh("unwind web").ok();
}

#[test]
fn what_the_container_was_run_with() {
    let sandbox = Sandbox::with_busybox();
    let dockerfile = "FROM busybox\nENV A=1 B=2\nENTRYPOINT [\"/bin/busybox\"]\nCMD [\"ls\"]\nWORKDIR /w\nUSER 7\nLABEL x=y\n";
    sandbox.sh("mkdir context").ok();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    sandbox.sh("img-build -q -t base context > base.json").ok();
    for (flags, entrypoint, command, environment, directory, user) in [
        ("", json!(["/bin/busybox"]), json!(["ls"]), json!(["A=1", "B=2"]), "/w", "7"),
        ("-- echo hi", json!(["/bin/busybox"]), json!(["echo", "hi"]), json!(["A=1", "B=2"]), "/w", "7"),
        (
            "-e B=3 -e C=4 -w /tmp -u 0:0",
            json!(["/bin/busybox"]),
            json!(["ls"]),
            json!(["A=1", "B=3", "C=4"]),
            "/tmp",
            "0:0",
        ),
        ("--entrypoint /bin/true", json!(["/bin/true"]), Value::Null, json!(["A=1", "B=2"]), "/w", "7"),
        ("--entrypoint '' -- /bin/echo", Value::Null, json!(["/bin/echo"]), json!(["A=1", "B=2"]), "/w", "7"),
    ] {
        let pipe = format!(
            "layer-apply --id web < base.json | union-mount | ns-exec --network none --document web.json {flags}"
        );
        sandbox
            .sh(&format!("{pipe} > /dev/null && img-commit -q < web.json > made.json && unwind < web.json"))
            .ok();
        let made = sandbox.sh("cat made.json").json();
        let config = &made["image"]["configuration"]["config"];
        assert_eq!(config["Entrypoint"], entrypoint, "{flags}");
        assert_eq!(config["Cmd"], command, "{flags}");
        // Every image has the first variable.
        let variables = config["Env"].as_array().unwrap();
        assert!(variables[0].as_str().unwrap().starts_with("PATH="), "{flags}: {variables:?}");
        assert_eq!(json!(variables[1..]), environment, "{flags}");
        assert_eq!((&config["WorkingDir"], &config["User"]), (&json!(directory), &json!(user)), "{flags}");
        assert_eq!(config["Labels"], json!({"x": "y"}), "{flags}");
    }
}

#[test]
fn configuration_and_history() {
    let sandbox = with_container(WORK);
    let flags = r#"-t made:1 -t localhost:5000/other -a 'Me <me@example.org>' -m 'what is new' \
        -c 'CMD ["serve", "$HOME"]' -c 'ENTRYPOINT ["/bin/sh", "-c"]' -c 'ENV A=1 B="two words"' -c 'ENV C=$A' \
        -c 'EXPOSE 80 53/udp' -c 'LABEL x=y' -c 'USER 7:8' -c 'VOLUME /data' -c 'WORKDIR /srv' -c 'WORKDIR $B'"#;
    let id = sandbox.sh(&format!("img-commit {flags} web > made.json")).exits(0).stderr;
    // skopeo reads the configuration like any other.
    let images = sandbox.root().join("images");
    let inspect = format!("skopeo inspect --config --raw oci:{}:docker.io/library/made:1", images.display());
    let configuration = sandbox.sh(&inspect).json();
    assert_eq!(
        configuration["config"],
        json!({"Cmd": ["serve", "$HOME"], "Entrypoint": ["/bin/sh", "-c"], "Env": ["A=1", "B=two words", "C=1"],
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}}, "Labels": {"x": "y"}, "User": "7:8", "Volumes": {"/data": {}},
            "WorkingDir": "/srv/two words"})
    );
    assert_eq!(configuration["author"], "Me <me@example.org>");
    let history = configuration["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(
        (&history[1]["author"], &history[1]["comment"]),
        (&json!("Me <me@example.org>"), &json!("what is new"))
    );
    assert!(history[1]["created_by"].as_str().unwrap().starts_with("/bin/sh -c "), "{}", history[1]);
    assert_eq!(history[1].get("empty_layer"), None);
    assert_eq!(history[1]["created"], configuration["created"]);
    let digest = sandbox.sh("jq -r .image.descriptor.digest made.json").ok();
    for name in ["made:1", "localhost:5000/other", id.trim()] {
        assert_eq!(sandbox.sh(&format!("img-inspect {name} | jq -r .image.descriptor.digest")).ok(), digest);
    }
    assert!(sandbox.sh("img-history --table made:1").ok().contains("what is new"));

    // On top of the commit: a new ENTRYPOINT drops the image's CMD.
    let again = "img-inspect made:1 | layer-apply --id again | union-mount | img-commit -q -c 'ENTRYPOINT x' | tee new.json | unwind";
    assert_eq!(sandbox.sh(again).json()["steps"], json!([]), "what it passes on can be unwound");
    let document = sandbox.sh("cat new.json").json();
    let configuration = &document["image"]["configuration"];
    assert_eq!(configuration["config"].get("Cmd"), None);
    // Nothing was written, so there is no layer, and the history says so.
    assert_eq!(configuration["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(configuration["history"][2]["empty_layer"], true);
    sandbox.sh("unwind web").ok();
}

#[test]
fn what_cannot_be_committed() {
    let sandbox = with_container("true");
    let images = "cat $STAVE_ROOT/images/index.json";
    let before = sandbox.sh(images).ok();
    for (command, says) in [
        ("img-commit nobody", "no container \"nobody\" in /run/stave\nhint: container-ls lists them"),
        (
            "img-commit web -c 'RUN x'",
            "change \"RUN x\": not an instruction that changes an image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, \
             ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR",
        ),
        ("img-commit web -c 'EXPOSE x'", "change \"EXPOSE x\": invalid containerPort: x"),
        ("img-commit web -c 'FROM x'", "change \"FROM x\": FROM isn't allowed as an ONBUILD trigger"),
        (
            "layer-apply --id ro < base.json | union-mount --read-only | tee ro.json | img-commit",
            "`rootfs` is read-only: it has no upper directory to make a layer of",
        ),
        (
            "jq '.rootfs.upper=\"/nowhere\"' web.json | img-commit",
            "open \"/nowhere\": No such file or directory",
        ),
    ] {
        let outcome = sandbox.sh(command).exits(1);
        assert_eq!(outcome.stderr, format!("img-commit: {says}\n"), "{command}");
        let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(document["error"]["tool"], "img-commit", "{command}");
    }
    let wrong = sandbox.sh("img-commit -t A < web.json").exits(2);
    assert!(wrong.stderr.contains("it must be lower case"), "{}", wrong.stderr);
    assert_eq!(sandbox.sh(images).ok(), before, "and no image was added");
    // A missing layer of the image is noticed before anything is written.
    let missing = "jq -r '.layers[0].descriptor.digest' web.json | sed 's/.*://' | xargs -I{} rm $STAVE_ROOT/images/blobs/sha256/{}; \
                   img-commit web";
    let outcome = sandbox.sh(missing).exits(1);
    assert!(outcome.stderr.ends_with(" is not in the image store\n"), "{}", outcome.stderr);
    // A store that does not exist has no images.
    for flag in ["", "--explain"] {
        let empty = sandbox.sh(&format!("img-commit {flag} --root none web")).exits(1).stderr;
        assert_eq!(empty, "img-commit: no image \"base:latest\" in the image store\n");
    }
    assert_eq!(sandbox.sh("ls none").status, 2);
    let explained = sandbox.sh("img-commit --explain -t x -t y:2 -m 'a b' -c 'CMD x' web").ok();
    assert_eq!(
        explained,
        "# commands of other programs to the same effect:\n\
         docker commit --message 'a b' --change 'CMD x' web x:latest\ndocker tag x:latest y:2\n"
    );
    let says = sandbox.sh("img-commit --explain < ro.json").exits(1).stderr;
    assert_eq!(says, "img-commit: `rootfs` is read-only: it has no upper directory to make a layer of\n");
    sandbox.sh("unwind < ro.json; unwind web").ok();
}

#[test]
fn files_keep_their_times_if_that_is_wanted() {
    let sandbox = with_container("true");
    let upper = sandbox.sh("jq -r .rootfs.upper web.json").ok();
    let touch = format!("touch -d @1000000000 {0}/old; touch -d @2000000000 {0}/new", upper.trim());
    sandbox.sh(&touch).ok();
    let times = |command: &str| {
        let document = sandbox.sh(&format!("{command} < web.json")).json();
        let layer = layers(&sandbox, &document["image"]).pop().unwrap();
        let list = sandbox.sh(&format!("TZ=UTC tar tvzf {} --full-time", layer.display())).ok();
        let of = |name: &str| {
            let line =
                list.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap_or(&list).to_owned();
            line.split_whitespace().nth(3).unwrap().to_owned()
        };
        (of("old"), of("new"))
    };
    let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    assert_eq!(times("img-commit -q --keep-mtime"), pair("2001-09-09", "2033-05-18"));
    assert_eq!(
        times("SOURCE_DATE_EPOCH=1500000000 img-commit -q --keep-mtime"),
        pair("2001-09-09", "2017-07-14")
    );
    let (old, new) = times("img-commit -q");
    assert_eq!(old, new);
}
