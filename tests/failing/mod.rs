//! Lets one system call of a tool fail, and judges what the tool makes of it.

mod container;
mod store;

use std::{fs, ops::ControlFlow};

use testkit::{Outcome, Sandbox, Snapshot};

use crate::killing::{self, Moment};

pub(crate) use container::Container;
pub(crate) use store::Store;

/// The calls that fail: those that change something, and those that find out what there is.
const CALLS: &str = "mkdir,mkdirat,mknod,mknodat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlink,symlinkat,link,\
    linkat,ftruncate,fallocate,write,pwrite64,writev,copy_file_range,sendfile,fchmod,fchmodat,fchown,fchownat,utimensat,\
    setxattr,lsetxattr,fsetxattr,fsync,fdatasync,syncfs,mount,umount2,fsopen,fsconfig,fsmount,move_mount,open_tree,\
    mount_setattr,pivot_root,unshare,setns,clone,clone3,fork,vfork,socket,sendto,sendmsg,recvfrom,recvmsg,execve,kill,\
    pidfd_open,pidfd_send_signal,flock,open,openat,openat2,getdents64";

/// The errors, and the words for each in the C library and in the tools.
const ERRORS: [(&str, [&str; 2]); 5] = [
    ("EIO", ["Input/output error", "I/O error"]),
    ("ENOSPC", ["No space left on device", "No space left on device"]),
    ("ENOMEM", ["Cannot allocate memory", "Out of memory"]),
    ("EPERM", ["Operation not permitted", "Operation not permitted"]),
    ("EMFILE", ["Too many open files", "Too many open files"]),
];

/// How much of it is done.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// A few calls, always the same ones.
    Sample,
    /// Each call with each error.
    All,
}

/// A call that fails, and with what.
struct Fault {
    call: Moment,
    error: &'static str,
    words: [&'static str; 2],
}

impl Fault {
    /// The prefix that makes it fail, and writes down that it did.
    fn prefix(&self) -> String {
        let (call, when) = &self.call;
        format!(
            "timeout 60 strace -f -qq -o trace -e trace={call} -e inject={call}:error={}:when={when}",
            self.error
        )
    }

    /// The C library's resolver does not tell why it found no address.
    fn is_told_by(&self, line: &str) -> bool {
        self.words.iter().any(|words| line.contains(words)) || line.ends_with("the host has no address")
    }
}

/// What a run with a fault came to.
struct Run {
    outcome: Outcome,
    /// How often the call failed, in all processes together.
    injected: usize,
    /// Whether it was the document that could not be written.
    of_output: bool,
}

/// A tool that is run again and again in the same state.
trait Trial {
    /// The tool.
    fn tool(&self) -> &'static str;
    /// How it is run, for messages.
    fn name(&self) -> String;
    fn sandbox(&self) -> Sandbox;
    /// Comes before each run.
    fn ready(&self, sandbox: &Sandbox);
    /// Runs the tool behind this prefix.
    fn script(&self, prefix: &str) -> String;
    /// The status of a failure.
    fn failed(&self) -> i32 {
        1
    }
    /// Takes back what a run made in peace.
    fn clean(&self, sandbox: &Sandbox);
    /// What is wrong after a run with a fault; a break when the sandbox can be used no more.
    fn judge(&self, sandbox: &Sandbox, before: &Snapshot, run: &Run) -> ControlFlow<String, String>;
}

/// What is wrong with how a tool says that it failed; empty if nothing is.
fn wrongly_told(fault: &Fault, run: &Run, trial: &impl Trial) -> String {
    let (Run { outcome, injected, .. }, tool) = (run, trial.tool());
    // img-build shows the instruction, and what its command says.
    let own =
        |line: &&str| tool != "img-build" || line.starts_with("img-build: ") || line.starts_with("hint: ");
    let (hints, lines): (Vec<_>, Vec<_>) =
        outcome.stderr.lines().filter(own).partition(|line| line.starts_with("hint: "));
    let complaint = if outcome.status != 0 && outcome.status != trial.failed() {
        format!("status {}", outcome.status)
    } else if lines.len() > *injected || hints.len() > lines.len() {
        "too many lines".to_owned()
    } else if lines.iter().any(|line| !line.starts_with(&format!("{tool}: ")) && tool != "unwind") {
        "not its own line".to_owned()
    } else if outcome.status != 0 && lines.is_empty() {
        "no line".to_owned()
    } else if outcome.status != 0 && !outcome.stderr.lines().any(|line| fault.is_told_by(line)) {
        "another cause".to_owned()
    } else {
        return String::new();
    };
    format!("{complaint}, status {}:\n{}", outcome.status, outcome.stderr)
}

/// Lets calls of the tool fail, one after the other.
fn fails(trial: &impl Trial, share: Share) {
    let mut sandbox = trial.sandbox();
    let mut before = sandbox.snapshot();
    // What the first run makes once and for all is no more among the calls.
    trial.ready(&sandbox);
    sandbox.sh(&trial.script("")).ok();
    trial.clean(&sandbox);
    trial.ready(&sandbox);
    let faults = faults(share, &sandbox, |prefix| trial.script(prefix));
    trial.clean(&sandbox);
    let (mut complaints, mut failed) = (Vec::new(), 0);
    for fault in &faults {
        trial.ready(&sandbox);
        let _ = fs::remove_file(sandbox.directory().join("trace"));
        let outcome = sandbox.sh(&trial.script(&fault.prefix()));
        let trace = fs::read_to_string(sandbox.directory().join("trace")).unwrap();
        let injected = trace.lines().filter(|line| line.contains("INJECTED"));
        let of_output = injected.clone().any(|line| line.contains(" write(1,"));
        let run = Run { outcome, injected: injected.count(), of_output };
        failed += usize::from(run.injected > 0);
        let told = wrongly_told(fault, &run, trial);
        let judged = trial.judge(&sandbox, &before, &run);
        let (ControlFlow::Continue(judgement) | ControlFlow::Break(judgement)) = &judged;
        if !told.is_empty() || !judgement.is_empty() {
            let ((call, when), error, name) = (&fault.call, fault.error, trial.name());
            complaints.push(format!("{name}: {error} from call {when} of {call}: {told}{judgement}"));
        }
        if judged.is_break() {
            sandbox = trial.sandbox();
            before = sandbox.snapshot();
        }
    }
    assert!(
        complaints.is_empty(),
        "{} of {} runs:\n{}",
        complaints.len(),
        faults.len(),
        complaints.join("\n")
    );
    // Threads, and answers of the kernel, do not come in the same number each time.
    assert!(failed > 0, "none of {} calls failed", faults.len());
}

/// The calls of the tool that can fail, each with its errors.
fn faults(share: Share, sandbox: &Sandbox, script: impl Fn(&str) -> String) -> Vec<Fault> {
    let calls = killing::calls(sandbox, CALLS, script);
    // strace makes the first execve itself. What cannot be said cannot be looked at.
    let cannot = |(name, when): &Moment, arguments: &str| {
        name == "execve" && *when == 1 || name == "write" && arguments.starts_with("2,")
    };
    let mut moments: Vec<Moment> = calls
        .iter()
        .filter(|(moment, _)| {
            !calls.iter().any(|(other, arguments)| other == moment && cannot(other, arguments))
        })
        .map(|(moment, _)| moment.clone())
        .collect();
    moments.sort();
    moments.dedup();
    assert!(moments.len() >= 8, "too few to be true: {moments:?}");
    let step = if share == Share::Sample { moments.len().div_ceil(SAMPLE) } else { 1 };
    let chosen = moments.into_iter().enumerate().skip(step / 2).step_by(step);
    chosen
        .flat_map(|(at, call)| {
            let errors = if share == Share::All { &ERRORS[..] } else { &ERRORS[at % ERRORS.len()..][..1] };
            errors.iter().map(move |&(error, words)| Fault { call: call.clone(), error, words })
        })
        .collect()
}

/// How many calls of a tool fail in the sample.
const SAMPLE: usize = 4;
