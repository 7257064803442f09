//! The commands of `scripts/stave` for images, as Docker users try them.
#![allow(clippy::unwrap_used)]

mod host;

use host::Host;

#[test]
fn commands_of_images() {
    let host = Host::new();
    host.prints("tag busybox other:2", "");
    host.prints("images -q --no-trunc other", host.0.sh("img-ls --ids --no-trunc busybox").ok().trim_end());
    assert!(host.stave("images").ok().starts_with("REPOSITORY   TAG "));
    assert!(host.stave("history busybox").ok().starts_with("IMAGE"));
    let short = host.stave("images -q busybox").ok();
    assert!(host.stave("history -q busybox").ok().starts_with(&short));
    host.prints("history -H=false --format '{{.Size}}' busybox | grep -vc '[^0-9]'", "1");
    assert!(host.stave("images --digests busybox").ok().starts_with("REPOSITORY   TAG       DIGEST "));
    host.prints("images 'o*' --format '{{.Repository}}'", "other");
    host.prints("save -o other.tar other:2", "");
    host.prints("image rm other:2", "");
    let loaded = host.stave("load -i other.tar");
    assert_eq!((loaded.stderr.as_str(), loaded.status), ("Loaded image: other:2\n", 0));
    // A name without a tag stands for all.
    host.prints("tag other:2 other:3", "");
    host.prints("save other | tar -xO manifest.json | jq -r '.[].RepoTags | length'", "2");
    host.prints("rmi --no-prune other:3", "");
    host.0.sh("mkdir files && echo hi > files/hi && tar -C files -cf files.tar .").ok();
    let id = host.stave("import -c 'ENV A=b' files.tar made:1").ok();
    assert_eq!(id, host.stave("images -q --no-trunc made").ok());
    host.prints("inspect -f '{{.Config.Env}}' made:1", "[A=b]");
    host.fails("import files.tar", 2, "stave: import takes a FILE, or -, and a NAME");
    host.fails("imges", 2, "stave: unknown command: imges (did you mean images?)");
    host.fails("zzz", 2, "stave: unknown command: zzz");
    assert_eq!(host.stave("image ls").ok(), host.stave("images").ok());
    host.prints("image inspect busybox | jq -r '.[0].image.reference'", "busybox:latest");
    host.fails("image run", 2, "stave: unknown command: image run");
    host.fails("container pull x", 2, "stave: unknown command: container pull");
    assert!(host.stave("version").ok().starts_with("stave "));
    let info = host.stave("info").ok();
    let value = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    assert_eq!(value("Containers"), Some("0"), "{info}");
    let images =
        host.stave("images -q").ok().lines().collect::<std::collections::BTreeSet<_>>().len().to_string();
    assert_eq!(value("Images"), Some(images.as_str()), "{info}");
    assert!(
        ["Server Version", "Kernel Version", "CPUs", "Total Memory"].iter().all(|name| value(name).is_some()),
        "{info}"
    );
    assert_eq!(host.stave("system info").ok(), info);
    let template = "{{.Images}} {{.Containers}} {{ .ContainersRunning }} {{.Driver}} {{.OSType}} {{.NCPU}}";
    let processors = value("CPUs").unwrap();
    host.prints(&format!("info --format '{template}'"), &format!("{images} 0 0 overlay linux {processors}"));
    let bytes = host.stave("system info -f '{{.MemTotal}}'").ok();
    assert!(bytes.trim().parse::<u64>().is_ok_and(|bytes| bytes > 1 << 20), "{bytes}");
    assert_eq!(host.stave("info -f '{{.KernelVersion}}'").ok().trim(), value("Kernel Version").unwrap());
    let version = host.stave("version").ok();
    host.prints(
        "version --format '{{.Client.Version}} {{.Server.Version}}'",
        &version.trim().replace("stave", version.trim().split(' ').nth(1).unwrap()),
    );
    host.prints("info --format x", "x");
    host.fails("info --format '{{.Swarm.NodeID}}'", 2, "stave: info --format has no field Swarm.NodeID");
    host.fails("version -f '{{json .}}'", 2, "stave: version --format has no field {{json .}}");
    host.fails("info --all", 2, "stave: info takes only --format: --all");
}

#[test]
fn the_cache_of_builds_is_removed_alone() {
    let host = Host::new();
    host.0.sh("mkdir c && printf 'FROM busybox\\nRUN true\\n' > c/Dockerfile").ok();
    host.stave("builder build -q --network none -t made c").ok();
    let count = "ls $STAVE_ROOT/cache/*.json | wc -l";
    assert_eq!(host.0.sh(count).ok(), "1\n");
    host.prints("builder prune -f --dry-run", "");
    assert_eq!(host.0.sh(count).ok(), "1\n");
    host.prints("builder prune -f", "");
    assert_eq!(host.0.sh("ls $STAVE_ROOT/cache | grep -c json || :").ok(), "0\n");
    host.prints("images -q made | wc -l", "1");
    host.fails("builder prune --filter label=a", 2, "stave: builder prune takes no --filter");
    host.fails("builder ls", 2, "stave: builder takes build and prune");
}

/// As with `docker run`.
#[test]
fn an_image_that_is_missing_comes_from_its_registry() {
    let host = Host::new();
    host.0.start_registry(5000, "data", serde_json::json!({}));
    host.0.sh("img-push busybox 127.0.0.1:5000/own/busybox:1 > /dev/null").ok();
    host.fails(
        "run --pull never 127.0.0.1:5000/own/busybox:1 true",
        125,
        "img-inspect: no image \"127.0.0.1:5000/own/busybox:1\" in the image store",
    );
    // What is missing is said once.
    let missing = host.stave("run 127.0.0.1:5000/own/none:1 true");
    let lines: Vec<_> = missing.stderr.lines().filter(|line| !line.starts_with("hint: ")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "Unable to find image '127.0.0.1:5000/own/none:1' locally");
    assert!(lines[1].starts_with("img-pull: "), "{lines:?}");
    let pulled = host.stave("run --rm 127.0.0.1:5000/own/busybox:1 echo hi");
    assert_eq!((pulled.stdout.as_str(), pulled.status), ("hi\n", 0), "{}", pulled.stderr);
    assert!(
        pulled.stderr.contains("Status: Downloaded newer image for 127.0.0.1:5000/own/busybox:1"),
        "{}",
        pulled.stderr
    );
    let again = host.stave("run --rm --pull always 127.0.0.1:5000/own/busybox:1 echo hi");
    assert!(again.stderr.contains("Status: Image is up to date for"), "{}", again.stderr);
    let none = host.stave("run --rm 127.0.0.1:5000/none true").exits(125);
    assert!(none.stderr.contains("img-pull: "), "{}", none.stderr);
    let name = "127.0.0.1:5000/own/busybox";
    host.0.sh(&format!("img-tag busybox {name}:2")).ok();
    host.prints(&format!("push -q -a {name} | sort"), &format!("{name}:1\n{name}:2"));
    host.prints(&format!("pull -q {name}:1 --platform linux/amd64"), &format!("{name}:1"));
    host.prints(&format!("pull -aq {name} | sort"), &format!("{name}:1\n{name}:2"));
    host.fails(&format!("pull -a {name}:1"), 2, "stave: -a takes one name without a tag");
    host.fails("run --pull no busybox true", 125, "stave: --pull is always, missing or never: no");
}
