//! A monitor beside a process in namespaces. Needs root and Debian's busybox-static.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    cell::Cell,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use monitor::{Connection, Event, Input, Keeper, Log, MonitorOperation, Next, Outcome, Place, Probe, Source};
use oci_spec::runtime::Spec;
use operation::{Operation, Scope};
use runtime::{
    Identity, Running, Streams,
    spec::{Overrides, from_image},
};
use testkit::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// Writes exit statuses to a file, and restarts the process until it has run `runs` times.
struct Counter {
    file: PathBuf,
    runs: usize,
    spec: Spec,
}

impl Keeper for Counter {
    fn ended(&mut self, _: Identity, status: Option<i32>) -> Next {
        let before = fs::read_to_string(&self.file).unwrap_or_default();
        fs::write(&self.file, format!("{before}{status:?}\n")).unwrap();
        match before.lines().count() + 1 < self.runs {
            true => Next::Again(Duration::from_millis(10)),
            false => Next::Leave,
        }
    }

    fn again(&mut self, streams: Streams<'_>) -> Result<Running, Next> {
        Ok(runtime::start(&self.spec, streams).unwrap().release().unwrap())
    }

    fn is_wanted(&mut self) -> bool {
        true
    }

    fn is_paused(&mut self) -> bool {
        false
    }

    fn probe(&mut self) -> Option<Probe> {
        None
    }

    fn ask(&mut self, _: Identity, _: &OwnedFd, _: &mut String) -> Option<Running> {
        None
    }

    fn answered(&mut self, _: Identity, _: &Outcome) {}
}

fn rootfs() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        testkit::require_root();
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "etc", "proc", "dev", "sys"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "echo", "test", "head", "md5sum"] {
            std::os::unix::fs::symlink("busybox", dir.path().join("bin").join(applet)).unwrap();
        }
        dir
    });
    made.path()
}

struct Case {
    _dir: tempfile::TempDir,
    scope: Scope,
    operation: MonitorOperation,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().join("root"), run_dir: dir.path().join("run") };
        fs::create_dir(&scope.run_dir).unwrap();
        let mut operation = MonitorOperation { monitored: "web".into() };
        operation.apply(&scope).unwrap();
        Self { _dir: dir, scope, operation }
    }

    fn place(&self) -> Place {
        Place::open(&self.scope.run_dir, "web").unwrap()
    }

    fn log(&self) -> Log {
        Log { path: self.scope.run_dir.join("log"), limit: None, files: Log::FILES, indexed: true }
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log().path).unwrap_or_default()
    }

    fn counter(&self, script: &str, terminal: bool, runs: usize) -> Counter {
        let overrides = Overrides {
            rootfs: rootfs().canonicalize().unwrap(),
            args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            terminal,
            ..Overrides::default()
        };
        let spec = from_image(None, &overrides).unwrap();
        Counter { file: self.scope.run_dir.join("ends"), runs, spec }
    }

    fn launch(&self, keeper: &mut Counter, input: Input) -> Identity {
        let spec = keeper.spec.clone();
        let supervised =
            monitor::launch(self.place(), &spec, Some(self.log()), (input, false), keeper).unwrap();
        let identity = supervised.identity();
        supervised.release().unwrap();
        identity
    }

    fn until_ended(&self, ends: &str) {
        wait_for("the end", LIMIT, || {
            fs::read_to_string(self.scope.run_dir.join("ends")).is_ok_and(|found| found == ends)
        });
    }

    /// The pid of the monitor.
    fn monitor_of(identity: Identity) -> i32 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", identity.pid)).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn streams_are_told_apart_and_it_starts_again() {
    let case = Case::new();
    case.launch(&mut case.counter("echo out; echo err >&2; exit 7", false, 2), Input::None);
    case.until_ended("Some(7)\nSome(7)\n");
    assert_eq!(case.logged(), "out\nerr\nout\nerr\n");
    let index = fs::read_to_string(case.scope.run_dir.join("log.index")).unwrap();
    let letters: Vec<&str> = index.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(letters, ["o", "e", "o", "e"]);
    // With a terminal there is one stream.
    let case = Case::new();
    case.launch(&mut case.counter("echo out; echo err >&2", true, 1), Input::None);
    case.until_ended("Some(0)\n");
    assert_eq!(case.logged(), "out\r\nerr\r\n");
}

#[test]
fn who_attaches_sees_output_and_types() {
    let case = Case::new();
    case.launch(&mut case.counter("read line; echo got $line; echo err >&2; exit 5", false, 1), Input::Open);
    let connection = Connection::open(&case.place()).unwrap().unwrap();
    connection.attach(true).unwrap();
    assert_eq!(connection.next().unwrap(), Event::Attached { terminal: false });
    assert_eq!(connection.input(b"it\n").unwrap(), 3);
    assert_eq!(connection.next().unwrap(), Event::Output(Source::Stdout, b"got it\n".into()));
    assert_eq!(connection.next().unwrap(), Event::Output(Source::Stderr, b"err\n".into()));
    assert_eq!(connection.next().unwrap(), Event::Ended(Some(5)));
    assert_eq!(connection.next().unwrap(), Event::Gone);
    case.until_ended("Some(5)\n");
    assert!(Connection::open(&case.place()).unwrap().is_none(), "it goes with its last user");
}

#[test]
fn a_killed_monitor_loses_nothing_that_another_one_finds() {
    let case = Case::new();
    let mut keeper =
        case.counter("i=0; while [ $i -lt 20 ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 9", false, 1);
    let identity = case.launch(&mut keeper, Input::None);
    wait_for("output", LIMIT, || case.logged().contains('1'));
    let monitor = Identity::of(Case::monitor_of(identity)).unwrap();
    let process = monitor.open().unwrap().unwrap();
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
    wait_for("its end", LIMIT, || !monitor.is_alive().unwrap());
    assert!(identity.is_alive().unwrap());
    let take_over = |keeper: &mut Counter| {
        monitor::take_over(case.place(), identity, Some(case.log()), Input::None, keeper).unwrap()
    };
    assert!(take_over(&mut keeper));
    assert!(!take_over(&mut keeper), "there is one");
    wait_for("the end", LIMIT, || fs::exists(case.scope.run_dir.join("ends")).unwrap());
    let ended = fs::read_to_string(case.scope.run_dir.join("ends")).unwrap();
    assert!(["Some(9)\n", "None\n"].contains(&ended.as_str()), "{ended}: known since Linux 6.15");
    let expected: String = (0..20).map(|number| format!("{number}\n")).collect();
    assert_eq!(case.logged(), expected);
}

/// A process has the FIFOs of its container open, and may lock them.
#[test]
fn a_container_cannot_take_the_place_of_its_monitor() {
    let case = Case::new();
    let mut keeper = case.counter("sleep 100", false, 1);
    let identity = case.launch(&mut keeper, Input::Open);
    let streams = ["stdin", "stdout", "stderr"].map(|stream| {
        let path = case.scope.run_dir.join(format!("streams/web.{stream}"));
        let stream = fs::File::options().read(true).write(true).open(path).unwrap();
        stream.try_lock().unwrap();
        stream
    });
    let monitor = Identity::of(Case::monitor_of(identity)).unwrap();
    let process = monitor.open().unwrap().unwrap();
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
    wait_for("its end", LIMIT, || !monitor.is_alive().unwrap());
    assert!(monitor::take_over(case.place(), identity, Some(case.log()), Input::Open, &mut keeper).unwrap());
    drop(streams);
    identity.kill().unwrap();
    case.operation.undo(&case.scope).unwrap();
}

/// A stopped monitor counts as present, however many clients ask, and no client waits for it.
#[test]
fn a_monitor_that_is_stopped_is_there() {
    let case = Case::new();
    let identity = case.launch(&mut case.counter("sleep 100", false, 1), Input::None);
    assert!(Connection::has_peer(&case.place()).unwrap());
    let monitor = Identity::of(Case::monitor_of(identity)).unwrap().open().unwrap().unwrap();
    rustix::process::pidfd_send_signal(&monitor, rustix::process::Signal::STOP).unwrap();
    for _ in 0..40 {
        assert!(Connection::has_peer(&case.place()).unwrap());
    }
    rustix::process::pidfd_send_signal(&monitor, rustix::process::Signal::CONT).unwrap();
    identity.kill().unwrap();
    case.operation.undo(&case.scope).unwrap();
}

#[test]
fn the_end_of_a_clients_input_ends_that_of_the_process() {
    let case = Case::new();
    case.launch(&mut case.counter("cat; echo over", false, 1), Input::Ends);
    let connection = Connection::open(&case.place()).unwrap().unwrap();
    connection.attach(true).unwrap();
    assert_eq!(connection.next().unwrap(), Event::Attached { terminal: false });
    assert_eq!(connection.input(b"typed\n").unwrap(), 6);
    assert!(connection.end_input().unwrap());
    case.until_ended("Some(0)\n");
    assert_eq!(case.logged(), "typed\nover\n");
    case.operation.undo(&case.scope).unwrap();
    // One that stays open does not end.
    let case = Case::new();
    let identity = case.launch(&mut case.counter("read line; echo got $line; cat", false, 1), Input::Open);
    let connection = Connection::open(&case.place()).unwrap().unwrap();
    connection.attach(true).unwrap();
    assert!(connection.end_input().unwrap());
    assert_eq!(connection.input(b"more\n").unwrap(), 5);
    wait_for("the output", LIMIT, || case.logged() == "got more\n");
    assert!(identity.is_alive().unwrap());
    identity.kill().unwrap();
    case.until_ended("Some(137)\n");
    case.operation.undo(&case.scope).unwrap();
}

#[test]
fn what_is_typed_waits_for_a_process_that_is_busy() {
    let case = Case::new();
    // More than the FIFO and the socket hold.
    let script = "while ! test -e /tmp/go; do sleep 0.01; done; head -c 4000000 | md5sum";
    let go = rootfs().join("tmp/go");
    fs::create_dir_all(go.parent().unwrap()).unwrap();
    case.launch(&mut case.counter(script, false, 1), Input::Open);
    let connection = Connection::open(&case.place()).unwrap().unwrap();
    connection.attach(true).unwrap();
    assert_eq!(connection.next().unwrap(), Event::Attached { terminal: false });
    let typed: Vec<u8> = (0..4_000_000_u32).map(|number| b'a' + (number % 23) as u8).collect();
    let passed = Cell::new(connection.input(&typed).unwrap());
    assert!(passed.get() < typed.len(), "it has room for {} bytes", passed.get());
    // Another client is answered all the same.
    let other = Connection::open(&case.place()).unwrap().unwrap();
    other.attach(false).unwrap();
    assert_eq!(other.next().unwrap(), Event::Attached { terminal: false });
    fs::write(&go, "").unwrap();
    wait_for("room", LIMIT, || {
        passed.set(passed.get() + connection.input(&typed[passed.get()..]).unwrap());
        passed.get() == typed.len()
    });
    case.until_ended("Some(0)\n");
    fs::remove_file(&go).unwrap();
    let file = case.scope.run_dir.join("typed");
    fs::write(&file, &typed).unwrap();
    let expected = std::process::Command::new("md5sum").stdin(fs::File::open(file).unwrap()).output();
    assert_eq!(case.logged().as_bytes(), expected.unwrap().stdout);
}

#[test]
fn undo_ends_it_and_takes_its_files() {
    let case = Case::new();
    let identity = case.launch(&mut case.counter("sleep 100", false, 1), Input::Open);
    let monitor = Identity::of(Case::monitor_of(identity)).unwrap();
    identity.kill().unwrap();
    case.operation.undo(&case.scope).unwrap();
    wait_for("its end", LIMIT, || !monitor.is_alive().unwrap());
    let left: Vec<String> = fs::read_dir(&case.scope.run_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("web."))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    case.operation.undo(&case.scope).unwrap();
}

#[test]
fn it_needs_little_memory() {
    let case = Case::new();
    let identity = case.launch(&mut case.counter("sleep 100", false, 1), Input::None);
    let path = format!("/proc/{}/smaps_rollup", Case::monitor_of(identity));
    let private = || -> u64 {
        let text = fs::read_to_string(&path).unwrap();
        let kinds = text.lines().filter(|line| line.starts_with("Private_"));
        kinds.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    wait_for("at most 1.5 MiB of private memory", LIMIT, || private() <= 1536);
    identity.kill().unwrap();
    case.operation.undo(&case.scope).unwrap();
}
