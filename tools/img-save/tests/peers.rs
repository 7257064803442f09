//! Interoperation with skopeo, umoci, podman and docker, both ways, with archives and with the store itself.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

/// A store, and private stores of podman and docker.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        testkit::require_root();
        // podman derives an image's name from the path, and the name must be lower case.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stave-peers-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bench = Self { dir: tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().unwrap() };
        let rootfs = testkit::rootfs(|tree| {
            testkit::directory(tree, "bin");
            testkit::file(tree, "bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
            testkit::symlink(tree, "bin/sh", "busybox");
        });
        fs::write(bench.path("rootfs.tar"), rootfs).unwrap();
        bench.tool("img-load", &["-t", "base:1", "rootfs.tar"]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The image `name` in the store, in the form of containers/image: `oci:` and the path.
    fn store(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.path("root/images").display())
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Value {
        let output = self.run(name, arguments);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Runs a tool or a peer in the directory. It must succeed.
    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let ours = testkit::binaries().join(name);
        let program = if ours.exists() { ours } else { Path::new(name).to_owned() };
        let mut command = Command::new(program);
        command.current_dir(self.dir.path());
        command.env("STAVE_ROOT", self.path("root")).env("STAVE_RUN", self.path("run"));
        if name == "podman" {
            command.arg("--root").arg(self.path("podman")).arg("--runroot").arg(self.path("podman-run"));
            command.args(["--storage-driver", "vfs"]);
        }
        let output = command.args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {errors}");
        output
    }

    fn text(&self, name: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.run(name, arguments).stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let list = self.tool("img-ls", &[]);
        let images = list["images"].as_array().unwrap().clone();
        let mut names: Vec<_> = images
            .iter()
            .flat_map(|image| image["references"].as_array().unwrap().clone())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn id(&self, name: &str) -> String {
        self.tool("img-history", &[name])["id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn skopeo_and_umoci_work_on_the_store_itself() {
    let bench = Bench::new();
    let full = "docker.io/library/base:1";
    bench.run("skopeo", &["copy", "-q", &bench.store(full), &bench.store("localhost/copy:2")]);
    bench.run("skopeo", &["copy", "-q", &bench.store(full), &bench.store("short")]);
    let image = format!("{}:{full}", bench.path("root/images").display());
    bench.run("umoci", &["tag", "--image", &image, "umoci:3"]);
    bench.run("umoci", &["config", "--image", &image, "--tag", "umoci:4", "--config.cmd", "/bin/sh"]);
    let expected = ["base:1", "localhost/copy:2", "short:latest", "umoci:3", "umoci:4"];
    assert_eq!(bench.names(), expected);
    assert_eq!(bench.id("short"), bench.id("base:1"));
    assert_ne!(bench.id("umoci:4"), bench.id("base:1"));

    // The peers see what Stave does with their images.
    bench.tool("img-tag", &["umoci:4", "ours:5"]);
    bench.tool("img-rm", &["umoci:3", "short"]);
    let layout = bench.path("root/images").display().to_string();
    let mut tags: Vec<_> =
        bench.text("umoci", &["ls", "--layout", &layout]).lines().map(str::to_owned).collect();
    tags.sort();
    assert_eq!(tags, [full, "docker.io/library/ours:5", "localhost/copy:2", "umoci:4"]);
    bench.run("umoci", &["gc", "--layout", &layout]);
    bench.run("umoci", &["unpack", "--image", &format!("{layout}:docker.io/library/ours:5"), "bundle"]);
    assert!(bench.path("bundle/rootfs/bin/busybox").exists());
    let id = bench.text("podman", &["pull", "-q", &bench.store(full)]);
    bench.run("podman", &["push", "-q", id.trim(), &bench.store("localhost/podman:6")]);
    assert_eq!(bench.id("localhost/podman:6"), format!("sha256:{}", id.trim()));
    assert_eq!(bench.tool("img-gc", &["--grace", "0"])["blobs"], serde_json::json!([]));
}

#[test]
fn podman_and_skopeo_read_and_write_both_archives() {
    let bench = Bench::new();
    let id = bench.id("base:1");
    for (format, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        bench.tool("img-save", &["base:1", "--format", format, "-o", "ours.tar"]);
        let printed = bench.run("img-save", &["base:1", "--format", format, "-o", "-"]).stdout;
        assert!(printed == fs::read(bench.path("ours.tar")).unwrap() && !bench.path("-").exists());
        bench.run("podman", &["load", "-q", "-i", "ours.tar"]);
        let loaded =
            bench.text("podman", &["image", "inspect", "docker.io/library/base:1", "--format", "{{.Id}}"]);
        assert_eq!(loaded.trim(), &id[7..]);

        let name = format!("localhost/{transport}:1");
        bench.run("podman", &["tag", "docker.io/library/base:1", &name]);
        bench.run("podman", &["save", "-q", "--format", transport, "-o", "theirs.tar", &name]);
        let image = bench.tool("img-load", &["theirs.tar"]);
        assert_eq!(image["image"]["reference"], name);
        // podman compresses layers for an OCI archive, but the image stays the same.
        assert_eq!(bench.id(&name), id);
        fs::remove_file(bench.path("theirs.tar")).unwrap();
        let target = format!("{transport}:{}:docker.io/a/{transport}:2", bench.path("theirs.tar").display());
        bench.run("skopeo", &["copy", "-q", &bench.store("docker.io/library/base:1"), &target]);
        assert_eq!(bench.tool("img-load", &["theirs.tar"])["image"]["reference"], format!("a/{transport}:2"));
        fs::remove_file(bench.path("theirs.tar")).unwrap();
        bench.run("podman", &["rmi", "-a", "-f"]);
    }
}

/// Runs dockerd in its own network namespace, with its own `/run`.
const DOCKER: &str = r#"
mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up
export DOCKER_HOST=unix://$PWD/docker.sock
dockerd --iptables=false --bridge=none --storage-driver=vfs -H $DOCKER_HOST --data-root $PWD/docker \
    --exec-root $PWD/docker-run --pidfile $PWD/docker.pid >docker.log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
for _ in $(seq 150); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
set -e
docker load -q -i oci.tar
docker image inspect --format 'as {{.Id}}' gzip:1
docker rmi gzip:1
docker load -q -i ours.tar
docker run --rm --network none base:1 /bin/busybox echo it runs
docker tag base:1 other/name:2
docker save base:1 other/name:2 zstd:1 gzip:1 -o theirs.tar
"#;

#[test]
fn docker_reads_and_writes_archives() {
    let bench = Bench::new();
    bench.run("zstd", &["-q", "rootfs.tar"]);
    bench.run("gzip", &["-k", "rootfs.tar"]);
    bench.tool("img-load", &["-t", "zstd:1", "rootfs.tar.zst"]);
    bench.tool("img-load", &["-t", "gzip:1", "rootfs.tar.gz"]);
    let names = ["base:1", "zstd:1", "gzip:1"];
    bench.tool("img-save", &[&names[..], &["--format", "docker", "-o", "ours.tar"]].concat());
    bench.tool("img-save", &["gzip:1", "-o", "oci.tar"]);
    let output = bench.text("unshare", &["-n", "-m", "sh", "-c", DOCKER]);
    assert!(output.contains(&format!("as {}", bench.id("gzip:1"))), "{output}");
    assert!(output.contains("Loaded image: base:1") && output.contains("it runs"), "{output}");
    let id = bench.id("base:1");
    bench.tool("img-rm", &["-f", names[0], names[1], names[2]]);
    bench.tool("img-load", &["theirs.tar"]);
    assert_eq!(bench.names(), ["base:1", "gzip:1", "other/name:2", "zstd:1"]);
    assert_eq!(bench.id("other/name:2"), id);
}
