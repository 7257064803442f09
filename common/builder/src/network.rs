//! The network of RUN: a network namespace of the build, with access to other networks. Stave's own tools
//! make it and record it as a container `build-…`. So it can be found and removed after a build that was
//! killed.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::FlockOperation;

use crate::error::Cause;

/// A network of a build. It is removed when the build ends in any way.
#[derive(Debug)]
pub(crate) struct Own {
    /// The namespace.
    pub(crate) path: PathBuf,
    /// The address at which RUN reaches the host.
    pub(crate) gateway: Option<IpAddr>,
    _removal: Removal,
}

/// A waiting `unwind`. It knows what to remove, and starts when its input ends. The kernel closes the input
/// when the build ends.
#[derive(Debug)]
struct Removal {
    unwind: Child,
    lock: PathBuf,
    _locked: File,
}

impl Own {
    /// Makes a network. First removes the networks of killed builds.
    ///
    /// # Errors
    /// When a tool is missing or fails. A tool that fails prints the reason itself.
    pub(crate) fn make(root: &Path, run_dir: &Path) -> Result<Self, Cause> {
        collect(root, run_dir)?;
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let id = format!("build-{}-{:x}", std::process::id(), time.as_nanos());
        let removal = Removal::prepare(root, run_dir, &id)?;
        let failed = |tool: &'static str| move |source| Cause::Network { tool, source };
        let mut bridge = tool("netns-bridge", root, run_dir)?;
        let bridge = bridge.args(["--null-input", "--id", &id]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut bridge = bridge.spawn().map_err(failed("netns-bridge"))?;
        let Some(document) = bridge.stdout.take() else {
            return Err(failed("netns-bridge")(io::ErrorKind::BrokenPipe.into()));
        };
        let mut pair = tool("veth-pair", root, run_dir)?;
        let pair = pair.stdin(document).stderr(Stdio::piped()).output().map_err(failed("veth-pair"))?;
        if !bridge.wait().map_err(failed("netns-bridge"))?.success() {
            // The tool has printed the reason, and veth-pair did nothing.
            return Err(Cause::NoNetwork);
        }
        let _ = io::stderr().write_all(&pair.stderr);
        let document: serde_json::Value = serde_json::from_slice(&pair.stdout).unwrap_or_default();
        match document["network"]["namespace"].as_str().filter(|_| pair.status.success()) {
            Some(path) => {
                let gateway = document["networks"][0]["bridge"]["gateway"].as_str();
                let gateway = gateway.and_then(|address| address.parse().ok());
                Ok(Self { path: path.into(), gateway, _removal: removal })
            }
            None => Err(Cause::NoNetwork),
        }
    }
}

impl Removal {
    /// Starts `unwind`, and takes the lock.
    fn prepare(root: &Path, run_dir: &Path, id: &str) -> Result<Self, Cause> {
        let mut unwind = tool("unwind", root, run_dir)?;
        // A signal from the terminal must end the build and not `unwind`.
        let unwind = unwind.arg("--quiet").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let failed = |source| Cause::Network { tool: "unwind", source };
        let mut unwind = unwind.spawn().map_err(failed)?;
        let written = match &mut unwind.stdin {
            // `unwind` finds everything else in the record.
            Some(input) => writeln!(input, "{}", serde_json::json!({"stave": 1, "id": id})),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let (lock, _locked) = hold_lock(run_dir, id)?;
        let removal = Self { unwind, lock, _locked };
        written.map_err(failed)?;
        Ok(removal)
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        drop(self.unwind.stdin.take());
        // If something is left, the lock's file stays, and the next build or img-gc tries again.
        if self.unwind.wait().is_ok_and(|status| status.success()) {
            let _ = fs::remove_file(&self.lock);
        }
    }
}

/// The command of another tool of Stave, in the directory of this program.
pub(crate) fn tool(name: &'static str, root: &Path, run_dir: &Path) -> Result<Command, Cause> {
    let own = std::env::current_exe().map_err(|source| Cause::Network { tool: name, source })?;
    let mut command = Command::new(own.with_file_name(name));
    command.arg("--no-config").arg("--root").arg(root).arg("--run-dir").arg(run_dir);
    Ok(command)
}

/// The path of the lock that a build holds while it has a network.
fn lock_of(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("locks").join(format!("{id}.build"))
}

/// Makes the lock's file. Nobody can see it before it is locked.
fn hold_lock(run_dir: &Path, id: &str) -> Result<(PathBuf, File), Cause> {
    let lock = lock_of(run_dir, id);
    let locks = run_dir.join("locks");
    operation::make_directories(&locks, 0o777).map_err(Cause::system("create", &locks))?;
    let beside = lock.with_extension("new");
    let locked = File::options().write(true).create_new(true).mode(0o600).open(&beside);
    let locked = locked.map_err(Cause::system("create", &beside))?;
    let held = rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive);
    held.map_err(Cause::system("lock", &beside))?;
    fs::rename(&beside, &lock).map_err(Cause::system("rename", &beside))?;
    Ok((lock, locked))
}

/// Removes the networks of killed builds. Returns their ids.
///
/// # Errors
/// When the directory of locks cannot be read.
pub fn collect(root: &Path, run_dir: &Path) -> Result<Vec<String>, Cause> {
    let mut removed = Vec::new();
    // Each lock is held until its network is removed, so that another process skips it.
    for (id, _held) in left(&run_dir.join("locks"))? {
        let mut unwind = tool("unwind", root, run_dir)?;
        let unwind = unwind.arg("--quiet").arg(&id).stdin(Stdio::null()).stdout(Stdio::null());
        match unwind.status() {
            Ok(status) if status.success() => {
                let _ = fs::remove_file(lock_of(run_dir, &id));
                removed.push(id);
            }
            // The tool has printed the reason. The next build or img-gc tries again.
            Ok(_) => {}
            Err(error) => operation::note(&format!("remove the network of {id}: start unwind: {error}")),
        }
    }
    Ok(removed)
}

/// The ids of networks of killed builds.
///
/// # Errors
/// When the directory of locks cannot be read.
pub fn forsaken(run_dir: &Path) -> Result<Vec<String>, Cause> {
    Ok(left(&run_dir.join("locks"))?.into_iter().map(|(id, _)| id).collect())
}

/// The ids of builds that no longer hold their locks, each with its lock.
fn left(locks: &Path) -> Result<Vec<(String, File)>, Cause> {
    let mut ids = Vec::new();
    let entries = match fs::read_dir(locks) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
        entries => entries.map_err(Cause::system("read", locks))?,
    };
    for entry in entries {
        let path = entry.map_err(Cause::system("read", locks))?.path();
        let is_of_build = path.extension().is_some_and(|extension| extension == "build");
        let Some(id) = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_of_build) else {
            continue;
        };
        let Ok(lock) = File::open(&path) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            ids.push((id.to_owned(), lock));
        }
    }
    Ok(ids)
}
