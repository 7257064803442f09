//! Makes one system call of a tool fail, and judges how the tool handles it.

mod container;
mod step;
mod store;

use std::{collections::BTreeSet, fs, ops::ControlFlow};

use testkit::{Outcome, Sandbox, Snapshot};

use crate::killing::{self, Moment};

pub(crate) use container::Container;
pub(crate) use step::Step;
pub(crate) use store::Store;

/// The calls that fail: those that change something.
const CHANGES: &str = "mkdir,mkdirat,mknod,mknodat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlink,symlinkat,link,\
    linkat,ftruncate,fallocate,write,pwrite64,writev,copy_file_range,sendfile,fchmod,fchmodat,fchown,fchownat,utimensat,\
    setxattr,lsetxattr,fsetxattr,fsync,fdatasync,syncfs,mount,umount2,fsopen,fsconfig,fsmount,move_mount,open_tree,\
    mount_setattr,pivot_root,unshare,setns,clone,clone3,fork,vfork,socket,sendto,sendmsg,recvfrom,recvmsg,execve,kill,\
    pidfd_open,pidfd_send_signal,flock,open,openat,openat2,getdents64";

/// Those that examine the state, and those that talk to other processes. They fail only with [`Share::All`]: how many
/// there are differs from machine to machine, and so would a sample.
const OTHERS: &str = "poll,ppoll,connect,bind,listen,accept,accept4,getsockopt,setsockopt,getsockname,socketpair,pipe2,\
    dup,dup2,dup3,fcntl,stat,lstat,fstat,newfstatat,statx,statfs,fstatfs,readlink,readlinkat,read,pread64,getxattr,lgetxattr,fgetxattr,faccessat,faccessat2,access,ioctl,bpf,\
    epoll_create1,epoll_ctl,memfd_create";

/// The errors, with their texts in the C library and in the tools.
const ERRORS: [(&str, [&str; 2]); 5] = [
    ("EIO", ["Input/output error", "I/O error"]),
    ("ENOSPC", ["No space left on device", "No space left on device"]),
    ("ENOMEM", ["Cannot allocate memory", "Out of memory"]),
    ("EPERM", ["Operation not permitted", "Operation not permitted"]),
    ("EMFILE", ["Too many open files", "Too many open files"]),
];

/// How many of the faults are tried.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// A few calls, always the same ones.
    Sample,
    /// Each call with each error.
    All,
}

/// A call that fails, and its error.
struct Fault {
    call: Moment,
    /// Whether each of the runs without faults made this call. The number of the kernel's answers and of the
    /// threads' calls varies.
    always: bool,
    error: &'static str,
    words: [&'static str; 2],
}

impl Fault {
    /// The prefix that makes the call fail, and records that it did.
    fn prefix(&self) -> String {
        let (call, when) = &self.call;
        format!(
            "timeout 60 strace -f -qq -o trace -e trace={call} -e inject={call}:error={}:when={when}",
            self.error
        )
    }

    /// Whether the line gives the fault's reason, or an accepted other reason. The C library's resolver does
    /// not say why it found no address, and its threads do not distinguish a lack of memory from a lack of
    /// threads. The command of a RUN prints its own errors.
    fn is_told_by(&self, line: &str) -> bool {
        let others = ["the host has no address", "start a thread: Try again"];
        self.words.iter().any(|words| line.contains(words))
            || others.iter().any(|other| line.ends_with(other))
            || line.contains(" returned a non-zero code: ")
    }
}

/// The result of a run with a fault.
struct Run {
    outcome: Outcome,
    /// How often the call failed, in all processes together.
    injected: usize,
    /// Whether the document could not be written.
    of_output: bool,
    /// Whether the error message could not be written either: calls are counted for each thread separately.
    is_mute: bool,
}

/// What is wrong with the document of a run that failed: nothing, if it says that this tool did.
fn untold(sandbox: &Sandbox, file: &str, tool: &str) -> &'static str {
    let told = sandbox.sh(&format!("jq -e .error.tool {file}")).stdout;
    if told.trim() == format!("\"{tool}\"") { "" } else { "no error in the document\n" }
}

/// The judgement after unwind, which must leave the host as it was before.
fn after_unwind(
    sandbox: &Sandbox,
    before: &Snapshot,
    run: &Run,
    mut complaint: String,
    unwound: &Outcome,
) -> ControlFlow<String, String> {
    if unwound.status != 0 {
        complaint += &format!("then unwind: {}\n", unwound.stderr);
    }
    let left = sandbox.difference(before);
    match left.is_empty() && unwound.status == 0 {
        true => ControlFlow::Continue(complaint),
        false => ControlFlow::Break(format!("{complaint}said: {}\nleft:\n{left}", run.outcome.stderr)),
    }
}

/// A tool that is run again and again in the same state.
trait Trial {
    /// The tool.
    fn tool(&self) -> &'static str;
    /// The description of the run, for messages.
    fn name(&self) -> String;
    fn sandbox(&self) -> Sandbox;
    /// Prepares each run.
    fn ready(&self, sandbox: &Sandbox);
    /// The script that runs the tool with this prefix.
    fn script(&self, prefix: &str) -> String;
    /// Whether this error is not tried with the tool.
    fn is_skipped(&self, _error: &str) -> bool {
        false
    }
    /// The exit statuses of a failure.
    fn failed(&self) -> &'static [i32] {
        &[1]
    }
    /// Undoes what a run without faults made.
    fn clean(&self, sandbox: &Sandbox);
    /// What is wrong after a run with a fault. A break if the sandbox cannot be used any more.
    fn judge(&self, sandbox: &Sandbox, before: &Snapshot, run: &Run) -> ControlFlow<String, String>;
}

/// What is wrong with the tool's error message. Empty if nothing is.
fn wrongly_told(fault: &Fault, run: &Run, trial: &impl Trial) -> String {
    let (Run { outcome, injected, .. }, tool) = (run, trial.tool());
    if run.is_mute {
        return String::new();
    }
    let own = |line: &&str| match tool {
        // It shows the instruction, and the output of its command.
        "img-build" => line.starts_with("img-build: ") || line.starts_with("hint: "),
        // It shows what it has restored, and at the end how many containers it could not repair.
        "net-repair" => !line.contains(": restored: ") && !line.ends_with(" could not be repaired"),
        _ => true,
    };
    let (hints, lines): (Vec<_>, Vec<_>) =
        outcome.stderr.lines().filter(own).partition(|line| line.starts_with("hint: "));
    let complaint = if outcome.status != 0 && !trial.failed().contains(&outcome.status) {
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

/// How often a fault is tried if every run should reach it.
const TRIES: usize = 5;

/// Makes calls of the tool fail, one after the other.
fn fails(trial: &impl Trial, share: Share) {
    let mut sandbox = trial.sandbox();
    let mut before = sandbox.snapshot();
    // Things that the first run makes once are no longer among the calls.
    trial.ready(&sandbox);
    sandbox.sh(&trial.script("")).ok();
    trial.clean(&sandbox);
    let mut faults = faults(share, trial, &sandbox);
    if let (Share::All, Some((part, of))) = (share, part()) {
        faults = faults.into_iter().skip(part - 1).step_by(of).collect();
    }
    let (mut complaints, mut absent) = (Vec::new(), Vec::new());
    for fault in &faults {
        let ((call, when), error, name) = (&fault.call, fault.error, trial.name());
        let run = run(trial, &sandbox, fault);
        let told = wrongly_told(fault, &run, trial);
        let judged = trial.judge(&sandbox, &before, &run);
        let (ControlFlow::Continue(judgement) | ControlFlow::Break(judgement)) = &judged;
        if !told.is_empty() || !judgement.is_empty() {
            complaints.push(format!("{name}: {error} from call {when} of {call}: {told}{judgement}"));
        }
        match run.injected {
            0 if fault.always => complaints.push(format!("{name}: no run came to call {when} of {call}")),
            0 => absent.push(format!("{error} from call {when} of {call}")),
            _ => {}
        }
        if judged.is_break() {
            sandbox = trial.sandbox();
            before = sandbox.snapshot();
        }
    }
    eprintln!(
        "{}: {} faults, {} of them at calls that not every run makes, which did not come: {absent:?}",
        trial.name(),
        faults.len(),
        absent.len()
    );
    assert!(
        complaints.is_empty(),
        "{} of {} runs:\n{}",
        complaints.len(),
        faults.len(),
        complaints.join("\n")
    );
    assert!(absent.len() < faults.len(), "none of {} calls failed", faults.len());
}

/// `STAVE_PART=2/10` runs the second of ten parts of all faults. Each part has a share of every tool's calls.
fn part() -> Option<(usize, usize)> {
    let text = std::env::var("STAVE_PART").ok()?;
    let part = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let part = part.filter(|(part, of)| (1..=*of).contains(part));
    Some(part.unwrap_or_else(|| panic!("STAVE_PART is like 2/10, not {text:?}")))
}

/// Runs the tool with a fault. Tries again if the run did not reach the call although every run should.
fn run(trial: &impl Trial, sandbox: &Sandbox, fault: &Fault) -> Run {
    let mut tries = 0;
    loop {
        trial.ready(sandbox);
        let _ = fs::remove_file(sandbox.directory().join("trace"));
        let outcome = sandbox.sh(&trial.script(&fault.prefix()));
        let trace = fs::read_to_string(sandbox.directory().join("trace")).unwrap();
        let injected = trace.lines().filter(|line| line.contains("INJECTED"));
        let of_output = injected.clone().any(|line| line.contains(" write(1,"));
        let is_mute = injected.clone().any(|line| line.contains(" write(2,"));
        let run = Run { outcome, injected: injected.count(), of_output, is_mute };
        tries += 1;
        if run.injected > 0 || run.outcome.status != 0 || !fault.always || tries == TRIES {
            return run;
        }
        trial.clean(sandbox);
    }
}

/// The calls of the tool that can fail, each with its errors. A sample has only calls that every run makes.
fn faults(share: Share, trial: &impl Trial, sandbox: &Sandbox) -> Vec<Fault> {
    let calls = if share == Share::Sample { CHANGES.to_owned() } else { format!("{CHANGES},{OTHERS}") };
    let recorded: [BTreeSet<Moment>; 3] = std::array::from_fn(|_| {
        trial.ready(sandbox);
        let moments = moments(&killing::calls(sandbox, &calls, |prefix| trial.script(prefix)));
        trial.clean(sandbox);
        moments
    });
    let every: BTreeSet<Moment> = recorded.iter().flatten().cloned().collect();
    let is_always = |call: &Moment| recorded.iter().all(|moments| moments.contains(call));
    let mut moments: Vec<(Moment, bool)> =
        every.into_iter().map(|call| (call.clone(), is_always(&call))).collect();
    if share == Share::Sample {
        moments.retain(|(_, always)| *always);
    }
    assert!(moments.len() >= 8, "too few to be true: {moments:?}");
    let step = if share == Share::Sample { moments.len().div_ceil(SAMPLE) } else { 1 };
    let chosen = moments.into_iter().enumerate().skip(step / 2).step_by(step);
    chosen
        .flat_map(|(at, (call, always))| {
            let errors = if share == Share::All { &ERRORS[..] } else { &ERRORS[at % ERRORS.len()..][..1] };
            errors.iter().filter(|(error, _)| !trial.is_skipped(error)).map(move |&(error, words)| Fault {
                call: call.clone(),
                always,
                error,
                words,
            })
        })
        .collect()
}

/// The calls of a run at which a fault can be observed.
fn moments(calls: &[(Moment, String)]) -> BTreeSet<Moment> {
    let cannot = |(name, when): &Moment, arguments: &str| match name.as_str() {
        // strace itself makes the first.
        "execve" => *when == 1,
        // If the error message cannot be written, it cannot be checked.
        "write" => arguments.starts_with("2,"),
        // A document that cannot be read is wrong input, with a status of its own (bad_input.rs).
        "read" => arguments.starts_with("0,"),
        // Rust's start, which aborts without it, and its checks in a debug build, which have no effect.
        "poll" => arguments.starts_with("[{fd=0, events=0}"),
        "fcntl" => arguments.contains("F_GETFD"),
        _ => false,
    };
    let mute: BTreeSet<&Moment> = calls
        .iter()
        .filter(|(moment, arguments)| cannot(moment, arguments))
        .map(|(moment, _)| moment)
        .collect();
    calls.iter().map(|(moment, _)| moment).filter(|moment| !mute.contains(moment)).cloned().collect()
}

/// How many calls of a tool fail in a sample.
const SAMPLE: usize = 4;
