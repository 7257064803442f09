//! Runs union-mount as a process, on handmade layers. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::{Value, json};

struct Fixture {
    directory: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Fixture {
    fn new(layers: usize) -> Self {
        testkit::require_root();
        let directory = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> =
            (0..layers).map(|n| directory.path().join(format!("root/layers/{n:064x}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join("which"), n.to_string()).unwrap();
        }
        Self { directory, layers }
    }

    fn document(&self, volumes: &Value) -> Value {
        let digest = format!("sha256:{:064x}", 1);
        let descriptor =
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": 1});
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|directory| json!({"descriptor": descriptor, "diffID": digest, "directory": directory}))
            .collect();
        let configuration = json!({
            "architecture": "amd64", "os": "linux", "config": {"Volumes": volumes},
            "rootfs": {"type": "layers", "diff_ids": []}
        });
        json!({"stave": 1, "id": "web", "image": {"descriptor": descriptor, "configuration": configuration}, "layers": layers})
    }

    fn run(&self, arguments: &[&str], document: &Value) -> (i32, Value, String) {
        let output = cargo_bin_cmd!("union-mount")
            .args(arguments)
            .arg("--root")
            .arg(self.directory.path().join("root"))
            .arg("--run-dir")
            .arg(self.directory.path().join("run"))
            .write_stdin(document.to_string())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), document, stderr)
    }

    fn container(&self) -> PathBuf {
        self.directory.path().join("root/containers/web")
    }

    #[track_caller]
    fn undo(&self, document: &Value) -> Value {
        let (status, document, stderr) = self.run(&["--undo"], document);
        assert_eq!(status, 0, "{stderr}");
        assert!(!self.container().exists());
        assert!(self.layers.iter().all(|layer| layer.exists()));
        assert_eq!(fs::read_dir(self.directory.path().join("run/locks")).unwrap().count(), 0);
        document
    }
}

#[test]
fn the_last_layer_is_on_top_and_writes_stay_above() {
    let fixture = Fixture::new(3);
    let top = fixture.layers.last().unwrap();
    fs::set_permissions(top, fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(top, Some(12), Some(34)).unwrap();
    let document = fixture.document(&json!({}));
    let (status, mounted, stderr) = fixture.run(&[], &document);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let rootfs = PathBuf::from(mounted["rootfs"]["path"].as_str().unwrap());
    assert_eq!(rootfs, fixture.container().join("rootfs"));
    assert_eq!(fs::read_to_string(rootfs.join("which")).unwrap(), "2");
    let root = fs::metadata(&rootfs).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o750, 12, 34));
    fs::write(rootfs.join("which"), "mine").unwrap();
    assert_eq!(fs::read_to_string(top.join("which")).unwrap(), "2");
    assert_eq!(mounted["rootfs"]["lower"].as_array().unwrap().len(), 1 + 3);

    let (status, failed, stderr) = fixture.run(&[], &document);
    assert_eq!(status, 1);
    assert!(stderr.starts_with("union-mount: container \"web\" exists: "), "{stderr}");
    assert_eq!(failed["error"]["tool"], "union-mount");
    let undone = fixture.undo(&mounted);
    assert_eq!(undone["rootfs"], Value::Null);
    assert_eq!(undone["steps"], json!([]));
    fixture.undo(&undone);
}

#[test]
fn any_number_of_layers_read_only_or_not() {
    for (layers, arguments) in
        [(0, &[][..]), (0, &["--read-only"]), (1, &["--read-only"]), (2, &["--read-only"]), (200, &[])]
    {
        let fixture = Fixture::new(layers);
        let (status, mounted, stderr) = fixture.run(arguments, &fixture.document(&json!({})));
        assert_eq!(status, 0, "{layers} layers: {stderr}");
        let written = fs::write(fixture.container().join("rootfs/new"), "");
        assert_eq!(written.is_err(), arguments == ["--read-only"]);
        fixture.undo(&mounted);
    }
}

#[test]
fn volumes_of_the_host_and_of_the_image() {
    let fixture = Fixture::new(1);
    fs::create_dir_all(fixture.layers[0].join("data/below")).unwrap();
    fs::write(fixture.layers[0].join("data/below/seed"), "seed").unwrap();
    let host = fixture.directory.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "host").unwrap();
    let volume = format!("{}:/srv/host:ro", host.display());
    let document = fixture.document(&json!({"/data": {}, "/empty": {}, "/srv/host/": {}}));
    let (status, mounted, stderr) = fixture.run(&["-v", &volume], &document);
    assert_eq!(status, 0, "{stderr}");
    let rootfs = fixture.container().join("rootfs");
    assert_eq!(fs::read_to_string(rootfs.join("data/below/seed")).unwrap(), "seed");
    fs::write(rootfs.join("data/new"), "").unwrap();
    assert!(!fixture.container().join("upper/data/new").exists());
    assert!(fixture.container().join("volumes/0/new").exists());
    assert_eq!(fs::read_dir(rootfs.join("empty")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(rootfs.join("srv/host/file")).unwrap(), "host");
    assert!(fs::write(rootfs.join("srv/host/x"), "").is_err());
    fixture.undo(&mounted);
    assert!(host.join("file").exists());

    let (status, failed, stderr) = fixture.run(&["-v", "/nonexistent:/x"], &fixture.document(&json!({})));
    assert_eq!(
        (status, stderr.as_str()),
        (1, "union-mount: find volume \"/nonexistent\": No such file or directory\n")
    );
    assert_eq!(failed["error"]["message"], "find volume \"/nonexistent\"");
    assert!(!fixture.container().exists());
}

#[test]
fn read_only_with_volumes_that_the_image_has_no_place_for() {
    let fixture = Fixture::new(2);
    fs::create_dir_all(fixture.layers[0].join("data")).unwrap();
    fs::write(fixture.layers[0].join("data/seed"), "seed").unwrap();
    let host = fixture.directory.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "host").unwrap();
    let volume = |source: &Path, target: &str| format!("{}:{target}", source.display());
    let arguments = [
        "--read-only",
        "--durable",
        "-v",
        &volume(&host, "/new/deep"),
        "-v",
        &volume(&host.join("file"), "/etc/x/file:ro"),
    ];
    let document = fixture.document(&json!({"/data": {}, "/none/below": {}}));
    let (status, mounted, stderr) = fixture.run(&arguments, &document);
    assert_eq!((status, &*stderr), (0, ""));
    assert_eq!(mounted["rootfs"]["readonly"], true);
    let rootfs = fixture.container().join("rootfs");
    // As with `docker run --read-only -v`, only volumes are writable.
    for path in ["new/deep/x", "data/x", "none/below/x"] {
        fs::write(rootfs.join(path), "").unwrap();
    }
    assert!(host.join("x").exists());
    assert_eq!(fs::read_to_string(rootfs.join("data/seed")).unwrap(), "seed");
    assert_eq!(fs::read_to_string(rootfs.join("etc/x/file")).unwrap(), "host");
    for path in ["x", "new/x", "none/x", "etc/x/file", "which"] {
        assert_eq!(fs::write(rootfs.join(path), "").unwrap_err().raw_os_error(), Some(30), "{path}");
    }
    assert_eq!(fixture.run(&["--check"], &mounted).0, 0);
    for path in ["new/deep", "data", "none/below", "etc/x/file", ""] {
        mount::unmount(&rootfs.join(path)).unwrap();
    }
    let (status, _, stderr) = fixture.run(&["--check"], &mounted);
    assert!(status == 1 && stderr.contains("missing: read-only "), "{stderr}");
    let (status, mounted, stderr) = fixture.run(&["--repair"], &mounted);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(fixture.run(&["--check"], &mounted).0, 0);
    fs::write(rootfs.join("new/deep/x"), "").unwrap();
    assert!(fs::write(rootfs.join("x"), "").is_err());
    fixture.undo(&mounted);
    assert!(host.join("file").exists());
}

#[test]
fn a_volume_of_an_image_may_be_deep_and_full_of_links() {
    let fixture = Fixture::new(1);
    let deep = vec!["d"; 1900].join("/");
    fs::create_dir_all(fixture.layers[0].join("data").join(&deep)).unwrap();
    fs::write(fixture.layers[0].join("data").join(&deep).join("seed"), "seed").unwrap();
    for number in 0..2000 {
        let path = fixture.layers[0].join(format!("data/{number}"));
        fs::write(&path, "").unwrap();
        fs::hard_link(&path, path.with_extension("twin")).unwrap();
    }
    let (status, mounted, stderr) = fixture.run(&[], &fixture.document(&json!({"/data": {}})));
    assert_eq!((status, stderr.as_str()), (0, ""));
    let [one, other] =
        ["7", "7.twin"].map(|name| fs::metadata(fixture.container().join("volumes/0").join(name)));
    assert_eq!(one.unwrap().ino(), other.unwrap().ino());
    let copy = fixture.container().join("volumes/0").join(&deep).join("seed");
    assert_eq!(fs::read_to_string(copy).unwrap(), "seed");
    fixture.undo(&mounted);
}

#[test]
fn links_of_the_image_lead_no_volume_out_of_it() {
    let fixture = Fixture::new(1);
    let host = fixture.directory.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "secret").unwrap();
    for (name, target) in
        [("data", host.clone()), ("srv", Path::new("../../../..").join(host.strip_prefix("/").unwrap()))]
    {
        std::os::unix::fs::symlink(target, fixture.layers[0].join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/proc/self/root", fixture.layers[0].join("magic")).unwrap();
    let given = fixture.directory.path().join("given");
    fs::create_dir(&given).unwrap();
    let volume = |target: &str| format!("{}:{target}", given.display());
    let document = fixture.document(&json!({"/data": {}}));
    let (status, mounted, stderr) =
        fixture.run(&["-v", &volume("/srv/x"), "-v", &volume("/magic/etc/x")], &document);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let inside = fixture.container().join("rootfs").join(host.strip_prefix("/").unwrap());
    fs::write(inside.join("new"), "").unwrap();
    assert!(fixture.container().join("volumes/0/new").exists(), "the image's volume is mounted in it");
    assert!(!inside.join("secret").exists());
    let names =
        |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(&host), ["secret"]);
    assert!(!Path::new("/etc/x").exists());
    fixture.undo(&mounted);
    assert_eq!(names(&host), ["secret"]);
}

#[test]
fn what_is_missing_is_named() {
    let fixture = Fixture::new(1);
    let (status, _, stderr) = fixture.run(&[], &json!({"stave": 1}));
    assert_eq!((status, stderr.as_str()), (1, "union-mount: no `layers`: run layer-apply first\n"));
    fs::remove_dir_all(&fixture.layers[0]).unwrap();
    let (status, _, stderr) = fixture.run(&[], &fixture.document(&json!({})));
    let expected = format!(
        "union-mount: look at layer {:?}: No such file or directory\nhint: run layer-apply again: it unpacks what is missing\n",
        fixture.layers[0]
    );
    assert_eq!((status, stderr), (1, expected));
}

#[test]
fn explained_checked_and_repaired() {
    let fixture = Fixture::new(1);
    let document = fixture.document(&json!({}));
    let output = cargo_bin_cmd!("union-mount")
        .args(["--explain", "--root", "/r", "--run-dir", "/s"])
        .write_stdin(document.to_string())
        .output()
        .unwrap();
    let layer = fixture.layers[0].display();
    let expected = format!(
        "install -d -m 0700 /r/containers/web\n\
         install -d -m 0755 /r/mount-points/dev /r/mount-points/etc /r/mount-points/proc /r/mount-points/sys\n\
         touch /r/mount-points/etc/hostname /r/mount-points/etc/hosts /r/mount-points/etc/resolv.conf\n\
         install -d -m 0755 /r/containers/web/upper\n\
         install -d -m 0700 /r/containers/web/work\ninstall -d -m 0700 /r/containers/web/rootfs\n\
         mount -t overlay stave:web -o lowerdir={layer}:/r/mount-points,upperdir=/r/containers/web/upper,\
         workdir=/r/containers/web/work,redirect_dir=off,index=off,metacopy=off,volatile,nodev /r/containers/web/rootfs\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(!Path::new("/r").exists());

    let (_, mounted, _) = fixture.run(&["--durable"], &document);
    assert_eq!(fixture.run(&["--check"], &mounted).0, 0);
    mount::unmount(&fixture.container().join("rootfs")).unwrap();
    let (status, _, stderr) = fixture.run(&["--check"], &mounted);
    assert!(status == 1 && stderr.contains("missing: mount"), "{stderr}");
    let (status, mounted, stderr) = fixture.run(&["--repair"], &mounted);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(fixture.run(&["--check"], &mounted).0, 0);
    fixture.undo(&mounted);
}

/// The kernel refuses a volatile top that was mounted before. While the machine keeps running,
/// nothing in it is lost.
#[test]
fn a_volatile_top_is_repaired_in_the_same_boot_alone() {
    let fixture = Fixture::new(1);
    let (_, mounted, _) = fixture.run(&[], &fixture.document(&json!({})));
    let rootfs = fixture.container().join("rootfs");
    fs::write(rootfs.join("written"), "before").unwrap();
    // A process has the mount in its own mount namespace, until its input ends.
    let mut holder = std::process::Command::new("unshare");
    let mut holder =
        holder.args(["--mount", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let own = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    while own(holder.id()) == own(std::process::id()) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    mount::unmount(&rootfs).unwrap();
    let (status, _, stderr) = fixture.run(&["--repair"], &mounted);
    let expected = format!(
        "union-mount: mount overlay on {rootfs:?}: process {} still has it mounted\nhint: end it first, or `unwind` the container\n",
        holder.id()
    );
    assert_eq!((status, stderr), (1, expected));
    drop(holder.stdin.take());
    holder.wait().unwrap();

    // As after a crash: the record is gone, and the other record is of another boot.
    let [record, aside] = ["web.json", "aside"].map(|name| fixture.directory.path().join("run").join(name));
    fs::rename(&record, &aside).unwrap();
    let kept = fixture.container().join("record.json");
    let mut of_another_boot: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(of_another_boot["boot"], boot.trim());
    of_another_boot["boot"] = "of another boot".into();
    let before = &mut of_another_boot["document"];
    let operations = before["steps"][0]["operations"].as_array_mut().unwrap();
    let overlay = operations.iter_mut().find(|operation| operation["op"] == "overlay-mount").unwrap();
    assert_eq!(overlay["boot"], boot.trim());
    overlay["boot"] = "of another boot".into();
    let before = before.clone();
    fs::write(&kept, of_another_boot.to_string()).unwrap();
    let (status, _, stderr) = fixture.run(&["--repair"], &before);
    let upper = fixture.container().join("upper");
    let expected = format!(
        "union-mount: mount overlay on {rootfs:?}: {upper:?} was mounted before the machine was restarted, and may be half written\n\
         hint: `unwind` removes the container with all that it wrote; with `--durable` its top survives a crash\n"
    );
    assert_eq!((status, stderr), (1, expected));
    assert!(fixture.container().join("work/work/incompat/volatile").exists());
    assert_eq!(fs::read_to_string(upper.join("written")).unwrap(), "before");

    fs::rename(&aside, &record).unwrap();
    let (status, repaired, stderr) = fixture.run(&["--repair"], &mounted);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(rootfs.join("written")).unwrap(), "before");
    assert_eq!(fixture.run(&["--check"], &repaired).0, 0);
    fixture.undo(&repaired);
}
