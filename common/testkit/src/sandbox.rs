//! A host and an outside world, in namespaces.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Snapshot, fixture};

/// The host's own address on the link to the outside world.
pub const HOST: &str = "192.0.2.1";
/// The address of the client outside.
pub const OUTSIDE: &str = "192.0.2.2";

/// The program of the sandbox's pid 1: it connects the two worlds, reports that, and reaps processes until
/// its input closes. That happens at the latest when the test's process ends.
const INIT: &str = r#"
set -e
mount --make-rprivate /
# What others have mounted just now in a folder of theirs, and unmount while we look.
awk '$5 ~ "^/(var/)?tmp/" { print $5 }' /proc/self/mountinfo | tac | xargs -r umount -l
mount -t tmpfs tmpfs /run
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
rmdir /run/cgroup
mkdir /run/stave
touch /run/outside
unshare --net=/run/outside true
ip link add out0 type veth peer name eth0 netns /run/outside
ip address add 192.0.2.1/24 dev out0
ip link set lo up
ip link set out0 addrgenmode none up
ip route add default via 192.0.2.2
nsenter --net=/run/outside sh -ec '
    ip link set lo up
    ip address add 192.0.2.2/24 dev eth0
    ip link set eth0 addrgenmode none up'
echo ready
while read -r _; do :; done
"#;

/// Fails the test if it does not run as root.
///
/// # Panics
/// Without root.
pub fn require_root() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().nth(1);
    assert_eq!(
        effective,
        Some("0"),
        "this test needs root (namespaces, mounts, links): run scripts/test as root"
    );
}

/// The directory with the tools of the profile that the test was built in.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).expect("a test is in target/<profile>/deps").to_owned()
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The outcome of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The script, for messages.
    pub script: String,
    /// Exit status; 128 + N if a signal killed the script.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    fn new(script: &str, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            script: script.to_owned(),
            status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The standard output of a command that must succeed.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        self.exits(0).stdout
    }

    /// The outcome itself, of a command that must exit with this status.
    ///
    /// # Panics
    /// If it exited with another status.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        let Self { script, stdout, stderr, .. } = &self;
        assert_eq!(self.status, status, "exit status of: {script}\n-- stdout\n{stdout}\n-- stderr\n{stderr}");
        self
    }

    /// The standard output, as JSON, of a command that must succeed.
    ///
    /// # Panics
    /// When it failed, or when the output is not JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
    }
}

/// A private host with an outside world.
#[derive(Debug)]
pub struct Sandbox {
    init: Child,
    directory: TempDir,
}

impl Sandbox {
    /// A new sandbox without images.
    ///
    /// # Panics
    /// Without root, or if the namespaces cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        require_root();
        let directory = tempfile::Builder::new().prefix("stave-test-").tempdir().unwrap();
        let mut init = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", INIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux)");
        let mut line = String::new();
        BufReader::new(init.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the sandbox did not come up");
        let sandbox = Self { init, directory };
        fs::create_dir(sandbox.root()).unwrap();
        sandbox
    }

    /// A new sandbox with the image `busybox` (see [`fixture::busybox`]).
    ///
    /// # Panics
    /// As [`Sandbox::new`], or if `img-load` fails.
    #[track_caller]
    pub fn with_busybox() -> Self {
        let sandbox = Self::new();
        sandbox.load("busybox", &fixture::busybox());
        sandbox
    }

    /// Loads a tar of a root file system, or an archive, as the image `name`. The document is `name.json` in the
    /// sandbox's directory, where scripts run: `layer-apply < busybox.json | …`.
    ///
    /// # Panics
    /// When `img-load` fails.
    #[track_caller]
    pub fn load(&self, name: &str, archive: &[u8]) {
        self.sh_with(&format!("img-load -q -t {name} - > {name}.json"), archive).ok();
    }

    /// The sandbox's own directory, in which its commands run. It is removed with the sandbox.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `STAVE_ROOT`.
    pub fn root(&self) -> PathBuf {
        self.directory().join("root")
    }

    /// The sandbox's `/run`, as a path for the test's process.
    pub fn run(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run", self.pid()))
    }

    /// The pid of the sandbox's pid 1 outside of the sandbox.
    pub fn pid(&self) -> u32 {
        // `unshare --fork` has one child: pid 1 of the sandbox.
        let unshare = self.init.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().parse().expect("the sandbox's pid 1 is gone")
    }

    /// A command for `program` on the host of the sandbox. The caller adds arguments.
    pub fn command(&self, program: &str) -> Command {
        self.enter(&["--net", "--mount", "--pid"], program)
    }

    fn enter(&self, namespaces: &[&str], program: &str) -> Command {
        let path = format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid().to_string()])
            .args(namespaces)
            .arg(format!("--wdns={}", self.directory().display()))
            .args(["--", program])
            .env("PATH", path)
            .env("STAVE_ROOT", self.root())
            .env("STAVE_RUN", "/run/stave");
        command
    }

    /// Runs a script with `/bin/sh` on the host of the sandbox.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Outcome {
        self.sh_with(script, b"")
    }

    /// Like [`Sandbox::sh`], with this standard input.
    #[track_caller]
    pub fn sh_with(&self, script: &str, input: &[u8]) -> Outcome {
        self.feed(self.command("/bin/sh").args(["-c", script]), script, input)
    }

    /// Runs a script with `/bin/sh` in the outside world.
    #[track_caller]
    pub fn outside(&self, script: &str) -> Outcome {
        let mut command = self.command("nsenter");
        command.args(["--net=/run/outside", "/bin/sh", "-c", script]);
        self.feed(&mut command, script, b"")
    }

    #[track_caller]
    fn feed(&self, command: &mut Command, script: &str, input: &[u8]) -> Outcome {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter (util-linux)");
        let mut stdin = child.stdin.take().unwrap();
        let output = thread::scope(|scope| {
            // The command may end without reading its input.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output()
        });
        Outcome::new(script, output.unwrap())
    }

    /// Runs a script with `/bin/sh` in the sandbox's mounts and directories, but in the machine's network, to
    /// fetch packages. The script must not make links or rules.
    #[track_caller]
    pub fn sh_connected(&self, script: &str) -> Outcome {
        let mut command = self.enter(&["--mount", "--pid"], "/bin/sh");
        self.feed(command.args(["-c", script]), script, b"")
    }

    /// Fetches the body of a page on the host of the sandbox. Tries for three seconds, because a new server
    /// may not listen yet.
    ///
    /// # Panics
    /// If there is no answer in that time.
    #[track_caller]
    pub fn fetch(&self, url: &str) -> String {
        patient(|| self.sh(&format!("curl --silent --show-error --fail --max-time 2 {url}")))
    }

    /// Fetches a page like [`Sandbox::fetch`], but as the client outside.
    ///
    /// # Panics
    /// If there is no answer in three seconds.
    #[track_caller]
    pub fn fetch_outside(&self, url: &str) -> String {
        patient(|| self.outside(&format!("curl --silent --show-error --fail --max-time 2 {url}")))
    }

    /// Asserts that the sandbox is as before.
    ///
    /// # Panics
    /// If it is not, with the things that were left behind or lost.
    #[track_caller]
    pub fn assert_as(&self, before: &Snapshot) {
        let difference = self.difference(before);
        assert!(difference.is_empty(), "left behind (+) or lost (-):\n{difference}");
    }

    /// What was left behind (`+`) or lost (`-`). Waits for up to ten seconds until the difference is empty,
    /// because the kernel removes processes and network namespaces with a delay.
    pub fn difference(&self, before: &Snapshot) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let difference = before.difference(&self.snapshot());
            if difference.is_empty() || Instant::now() > end {
                return difference;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that a tool could leave behind.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.release_ports();
        let cgroups = self.cgroups();
        // `--kill-child` kills pid 1. That ends everything in its pid namespace, and then the mounts
        // disappear.
        drop(self.init.stdin.take());
        let _ = self.init.kill();
        let _ = self.init.wait();
        cgroups.iter().for_each(|path| remove_cgroup(path));
    }
}

impl Sandbox {
    /// Unwinds containers with published ports that a test did not remove, because the ports are held outside
    /// of the sandbox.
    fn release_ports(&self) {
        for record in self.records().iter().filter(|record| record.to_string().contains("\"port-hold\"")) {
            let id = record["id"].as_str().unwrap_or_default();
            // A tool that a failed test left may hold the lock.
            let _ = self.command("timeout").args(["5", "unwind", id]).output();
        }
    }

    /// The cgroups of containers that a test did not remove. Cgroups belong to the machine, not to the
    /// sandbox.
    fn cgroups(&self) -> Vec<PathBuf> {
        let records = self.records();
        let names = records.iter().filter_map(|record| {
            Some(format!("{}.{}", record["id"].as_str()?, record["instance"].as_str()?))
        });
        let tops = ["/sys/fs/cgroup/stave", "/sys/fs/cgroup/unified/stave"];
        names
            .flat_map(|name| tops.map(|top| Path::new(top).join(&name)))
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Sandbox {
    /// The records of existing containers. Empty if the test has ended the sandbox.
    fn records(&self) -> Vec<Value> {
        let unshare = self.init.id();
        let children =
            fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
        let run = format!("/proc/{}/root/run/stave", children.trim());
        let records = fs::read_dir(run).into_iter().flatten().flatten();
        // Only regular files: to open a FIFO would wait for its other side.
        let records = records.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        records.filter_map(|record| serde_json::from_slice(&fs::read(record.path()).ok()?).ok()).collect()
    }
}

/// Removes a cgroup. Waits for up to two seconds, because its processes are about to end.
fn remove_cgroup(path: &Path) {
    let end = Instant::now() + Duration::from_secs(2);
    while fs::remove_dir(path).is_err() && path.is_dir() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn patient(mut attempt: impl FnMut() -> Outcome) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let outcome = attempt();
        if outcome.status == 0 || Instant::now() > end {
            return outcome.ok();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_outside_reach_each_other_and_nothing_else() {
        let sandbox = Sandbox::new();
        sandbox.sh("busybox ping -c 1 -W 1 192.0.2.2").ok();
        sandbox.outside("busybox ping -c 1 -W 1 192.0.2.1").ok();
        assert_eq!(sandbox.sh("ls /sys/class/net | tr '\\n' ' '").ok(), "lo out0 ");
        assert_eq!(sandbox.sh("echo a >&2; exit 7").exits(7).stderr, "a\n");
        assert_eq!(sandbox.sh("kill -9 $$").status, 137);
        assert_eq!(sandbox.sh_with("cat", b"x").ok(), "x");
    }

    #[test]
    fn whatever_runs_in_it_ends_with_it() {
        let sandbox = Sandbox::new();
        let directory = sandbox.directory().to_owned();
        sandbox.sh("sleep 987 > /dev/null 2>&1 & mkdir m; mount -t tmpfs tmpfs m").ok();
        let inside = fs::read_dir(format!("/proc/{}/root/proc", sandbox.pid())).unwrap().count();
        assert!(inside > 0);
        drop(sandbox);
        assert!(!directory.exists());
    }
}
