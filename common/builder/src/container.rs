//! A container of what a failed RUN left. Stave's own tools make it, and `unwind` removes it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Stdio,
};

use serde_json::json;

use crate::{error::Cause, executor::Left, network::tool};

/// Where the mounts of the machine are: a build may have gone into a mount namespace of its own.
#[derive(Debug)]
pub struct Outside(File);

impl Outside {
    /// The mount namespace of this process, as it is now.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn here() -> Result<Self, Cause> {
        let path = Path::new("/proc/self/ns/mnt");
        File::open(path).map(Self).map_err(Cause::system("open", path))
    }

    /// Goes back to it, and to its root directory. This process has one thread.
    fn enter(&self) -> Result<(), Cause> {
        let failed = |errno: nix::errno::Errno| io::Error::from(errno);
        nix::sched::setns(&self.0, nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(failed)
            .map_err(Cause::system("enter mount namespace", Path::new("/proc/self/ns/mnt")))
    }
}

/// Makes the container, outside of the build. Returns its document. From then on signals wait: who has the document can remove the
/// container, and the process that is to write it ends soon.
///
/// # Errors
/// When a tool is missing or fails; that says why itself.
pub fn of_failed(left: &Left, outside: &Outside, root: &Path, run_dir: &Path) -> Result<Vec<u8>, Cause> {
    outside.enter()?;
    operation::interrupt::block()
        .map_err(io::Error::from)
        .map_err(|source| Cause::Tool { tool: "layer-apply", source })?;
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let id = format!("failed-{}-{:x}", std::process::id(), time.as_nanos());
    let image = json!({"descriptor": left.descriptor, "configuration": left.configuration});
    let document = json!({"stave": 1, "id": id, "image": image}).to_string();
    let rootless = if left.rootless { &["--rootless"][..] } else { &[] };
    let document = pass("layer-apply", rootless, document.as_bytes(), root, run_dir)?;
    let volumes: Vec<&str> = left.volumes.iter().flat_map(|volume| ["--volume", volume]).collect();
    pass("union-mount", &volumes, &document, root, run_dir).inspect_err(|_| {
        // It has a step, and nobody will have its document.
        remove(&document, root, run_dir);
    })
}

/// Removes a container whose document nobody will have. Where that fails, `unwind` says why.
pub fn remove(document: &[u8], root: &Path, run_dir: &Path) {
    let _ = pass("unwind", &["--quiet"], document, root, run_dir);
}

/// Runs one tool on a document, and returns what it makes of it.
fn pass(
    name: &'static str,
    arguments: &[&str],
    document: &[u8],
    root: &Path,
    run_dir: &Path,
) -> Result<Vec<u8>, Cause> {
    let failed = |source| Cause::Tool { tool: name, source };
    let mut command = tool(name, root, run_dir)?;
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // It reads its input to the end before it writes anything.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(document));
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => written.map(|()| output.stdout).map_err(failed),
        false => Err(failed(io::Error::other("it failed"))),
    }
}
