//! Makes a container of what a failed RUN left. Stave's own tools make the container, and `unwind` removes
//! it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::Stdio,
};

use serde_json::json;

use crate::{error::Cause, executor::Left, network::tool};

/// The machine's mount namespace. A build may have moved to a mount namespace of its own.
#[derive(Debug)]
pub struct Outside(File);

impl Outside {
    /// The mount namespace of this process, as it is now.
    ///
    /// # Errors
    /// When the namespace cannot be opened.
    pub fn here() -> Result<Self, Cause> {
        let path = Path::new("/proc/self/ns/mnt");
        File::open(path).map(Self).map_err(Cause::system("open", path))
    }

    /// Returns to the namespace, and to its root directory. The process must have only one thread.
    fn enter(&self) -> Result<(), Cause> {
        let failed = |errno: nix::errno::Errno| io::Error::from(errno);
        nix::sched::setns(&self.0, nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(failed)
            .map_err(Cause::system("enter mount namespace", Path::new("/proc/self/ns/mnt")))
    }
}

/// Makes the container, outside of the build's mount namespace, and returns its document. From then on
/// signals are blocked, because the document must be written: it is needed to remove the container, and the
/// process ends soon anyway.
///
/// # Errors
/// When a tool is missing or fails. A tool that fails prints the reason itself.
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
        // The document has a step, and nobody else will have the document.
        remove(&document, root, run_dir);
    })
}

/// Removes a container whose document nobody else has. If that fails, `unwind` prints the reason.
pub fn remove(document: &[u8], root: &Path, run_dir: &Path) {
    let _ = pass("unwind", &["--quiet"], document, root, run_dir);
}

/// Runs a tool with `document` on standard input, and returns its output.
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
    // The tool reads its input to the end before it writes anything.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(document));
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => written.map(|()| output.stdout).map_err(failed),
        false => Err(failed(io::Error::other("it failed"))),
    }
}
