//! The list of what will be removed.

use std::path::{Path, PathBuf};

use builder::workspace::Pause;
use oci::{
    Digest, Layout,
    gc::{Age, Marks, Sweep},
};
use toolkit::prelude::*;

/// What will be removed: the cache first, then in the order of the fields.
pub(crate) struct Waste {
    /// The image store, which stays locked, and its unused blobs. None if there is no store.
    pub(crate) store: Option<(Layout, Sweep)>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) builds: Vec<PathBuf>,
    /// The ids of networks that killed builds left.
    pub(crate) networks: Vec<String>,
    /// Paths of the build cache.
    pub(crate) cache: Vec<PathBuf>,
    /// While this is held, no build starts. None if a build is running.
    pub(crate) pause: Option<Pause>,
}

/// An unpacked layer, and all its paths.
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) paths: Vec<PathBuf>,
}

impl Waste {
    /// The list as commands.
    pub(crate) fn explain(&self) -> Vec<String> {
        let line = |command: &[&str], paths: &[&Path]| {
            let paths = paths.iter().map(|path| path.to_string_lossy().into_owned());
            operation::words(command.iter().map(|word| (*word).to_owned()).chain(paths))
        };
        let files = self.store.iter().flat_map(|(_, sweep)| sweep.files()).map(|file| line(&["rm"], &[file]));
        let layers = self
            .layers
            .iter()
            .map(|layer| line(&["rm", "-r"], &layer.paths.iter().map(PathBuf::as_path).collect::<Vec<_>>()));
        let builds = self.builds.iter().map(|build| line(&["rm", "-r"], &[build]));
        let cache = self.cache.iter().map(|part| line(&["rm", "-r"], &[part]));
        let networks = self.networks.iter().map(|id| operation::words(["unwind", id]));
        cache.chain(files).chain(layers).chain(builds).chain(networks).collect()
    }
}

/// Marks what containers, mounts, and the build cache except for `without` refer to.
pub(crate) fn mark(context: &Context, marks: &mut Marks, without: &[PathBuf]) -> Result<()> {
    mark_containers(context, marks)?;
    marks.scan_directory(&context.scope.root.join("cache"), without)?;
    Ok(())
}

/// Marks what containers and mounts refer to. After a restart of the machine, a container has only its second record.
pub(crate) fn mark_containers(context: &Context, marks: &mut Marks) -> Result<()> {
    marks.scan_directory(&context.scope.run_dir, &[])?;
    marks.scan_file(Path::new("/proc/self/mountinfo"))?;
    let containers = context.scope.root.join("containers");
    let entries = match std::fs::read_dir(&containers) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {containers:?}"))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {containers:?}"))?;
        if entry.file_type().with_context(|| format!("look at {:?}", entry.path()))?.is_dir() {
            marks.scan_file(&entry.path().join("record.json"))?;
        }
    }
    Ok(())
}

/// Whether every file of a layer is old enough to be removed.
pub(crate) fn is_old(directory: &Path, diff_id: &Digest, age: Age) -> Result<bool> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let path = entry.with_context(|| format!("read {directory:?}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.trim_start_matches('.').starts_with(diff_id.hex()) {
            continue;
        }
        match age.is_over(&path) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // Another process has removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {path:?}")),
        }
    }
    Ok(true)
}
