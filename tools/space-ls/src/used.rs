//! What is below `$STAVE_ROOT`, and what uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use document::members::{Image, Layers};
use life::State;
use oci::{Digest, Layout, gc::Marks};
use operation::{Scope, unless_gone};
use serde::Serialize;
use serde_json::Value;
use toolkit::prelude::*;

/// Manifests and indexes are not larger than this, in bytes (distribution-spec, "Pushing Manifests").
const LARGEST_MANIFEST: u64 = 4 << 20;

/// One row of the list. Sizes are of the disk, in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    r#type: &'static str,
    count: usize,
    /// How many of these are used: by a container, and for containers, how many run.
    active: usize,
    bytes: u64,
    /// How much of it `stave system prune -a`, `stave volume prune -a` or `img-gc` can remove.
    reclaimable: u64,
}

/// What the records say.
pub(crate) struct Used<'a> {
    scope: &'a Scope,
    /// Each container's id, and whether it runs.
    containers: BTreeMap<String, bool>,
    /// The manifests of the containers' images.
    manifests: BTreeSet<String>,
    /// The DiffIDs of the containers' layers.
    layers: BTreeSet<String>,
}

impl<'a> Used<'a> {
    /// Reads the records.
    ///
    /// # Errors
    /// When one of them cannot be read: it may use anything.
    pub(crate) fn look(scope: &'a Scope) -> Result<Self> {
        let mut used =
            Self { scope, containers: BTreeMap::new(), manifests: BTreeSet::new(), layers: BTreeSet::new() };
        for id in life::every(scope)? {
            let Some(record) = life::known(scope, &id)? else { continue };
            used.manifests.extend(record.get::<Image>()?.map(|image| image.descriptor.digest().to_string()));
            let layers = record.get::<Layers>()?.map(|layers| layers.0).unwrap_or_default();
            used.layers.extend(layers.into_iter().map(|layer| layer.diff_id));
            let container = life::Container::of(&id, record)?;
            let state = container.map(|container| container.state()).transpose()?;
            let runs = matches!(state, Some(State::Running | State::Paused | State::Restarting));
            used.containers.insert(id.to_string(), runs);
        }
        Ok(used)
    }

    /// The list.
    ///
    /// # Errors
    /// When the image list or a directory cannot be read.
    pub(crate) fn rows(&self) -> Result<Vec<Row>> {
        let root = &self.scope.root;
        let blobs = blobs(&root.join("images/blobs"))?;
        let (images, reached) = self.images(&blobs)?;
        let mut cached = Marks::default();
        cached.scan_directory(&root.join("cache"), &[])?;
        let (mut cache, mut unused) = (0, (0, 0));
        for (digest, bytes) in &blobs {
            let is_cached = digest.parse::<Digest>().is_ok_and(|digest| cached.contains(&digest));
            match (reached.contains(digest), is_cached) {
                (true, _) => {}
                (false, true) => cache += bytes,
                (false, false) => unused = (unused.0 + 1, unused.1 + bytes),
            }
        }
        let cache = cache + size(&root.join("cache"))?;
        let steps = builder_steps(&root.join("cache"))?;
        Ok(vec![
            images,
            self.layers()?,
            self.containers()?,
            self.volumes()?,
            Row { r#type: "cache", count: steps, active: 0, bytes: cache, reclaimable: cache },
            Row { r#type: "unused", count: unused.0, active: 0, bytes: unused.1, reclaimable: unused.1 },
        ])
    }

    /// The row of the images, and all blobs that belong to one.
    fn images(&self, blobs: &BTreeMap<String, u64>) -> Result<(Row, BTreeSet<String>)> {
        let path = self.scope.root.join("images");
        let (mut all, mut busy, mut active) = (BTreeSet::new(), BTreeSet::new(), 0);
        let images = Layout::look(&path)?.summaries()?;
        for image in &images {
            let mut own = BTreeSet::new();
            reach(&path.join("blobs"), &image.digest, blobs, &mut own);
            if own.iter().any(|digest| self.manifests.contains(digest)) {
                active += 1;
                busy.extend(own.iter().cloned());
            }
            all.extend(own);
        }
        let sum = |digests: &BTreeSet<String>| digests.iter().filter_map(|digest| blobs.get(digest)).sum();
        let (bytes, kept): (u64, u64) = (sum(&all), sum(&busy));
        Ok((Row { r#type: "images", count: images.len(), active, bytes, reclaimable: bytes - kept }, all))
    }

    fn layers(&self) -> Result<Row> {
        let mut sizes = BTreeMap::<String, u64>::new();
        let directory = self.scope.root.join("layers");
        for name in names(&directory)? {
            let hex = name.trim_start_matches('.').split('.').next().unwrap_or_default().to_owned();
            *sizes.entry(hex).or_default() += size(&directory.join(&name))?;
        }
        // Other files, such as locks.
        sizes.retain(|hex, _| hex.len() >= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let busy: BTreeSet<&str> =
            self.layers.iter().filter_map(|digest| Some(digest.split_once(':')?.1)).collect();
        Ok(row("layers", sizes, |hex| busy.contains(hex)))
    }

    fn containers(&self) -> Result<Row> {
        let directory = self.scope.root.join("containers");
        let mut sizes: BTreeMap<String, u64> = self.containers.keys().map(|id| (id.clone(), 0)).collect();
        for name in names(&directory)? {
            sizes.insert(name.clone(), size(&directory.join(&name))?);
        }
        Ok(row("containers", sizes, |id| self.containers.get(id) == Some(&true)))
    }

    fn volumes(&self) -> Result<Row> {
        let (mut sizes, mut busy) = (BTreeMap::new(), BTreeSet::new());
        for name in volume::list(self.scope)? {
            let Some(found) = volume::find(self.scope, &name)? else { continue };
            if !found.containers.is_empty() {
                busy.insert(name.clone());
            }
            sizes.insert(name, size(&found.path)?);
        }
        Ok(row("volumes", sizes, |name| busy.contains(name)))
    }
}

/// A row of things by name, of which some are active. What is not can be removed.
fn row(r#type: &'static str, sizes: BTreeMap<String, u64>, is_active: impl Fn(&str) -> bool) -> Row {
    let idle: Vec<u64> = sizes.iter().filter(|(name, _)| !is_active(name)).map(|(_, bytes)| *bytes).collect();
    Row {
        r#type,
        count: sizes.len(),
        active: sizes.len() - idle.len(),
        bytes: sizes.values().sum(),
        reclaimable: idle.iter().sum(),
    }
}

/// Adds the blob, and all that a manifest or an index in it lists. What cannot be read lists nothing.
fn reach(place: &Path, digest: &str, blobs: &BTreeMap<String, u64>, found: &mut BTreeSet<String>) {
    let (Some((algorithm, hex)), Some(&bytes)) = (digest.split_once(':'), blobs.get(digest)) else { return };
    if !found.insert(digest.to_owned()) || bytes > LARGEST_MANIFEST {
        return;
    }
    let text = fs::read(place.join(algorithm).join(hex)).unwrap_or_default();
    // Blobs with layers are not JSON. A configuration has none of these members.
    let Ok(manifest) = serde_json::from_slice::<Value>(&text) else { return };
    let parts = ["manifests", "layers"].iter().flat_map(|name| manifest[*name].as_array()).flatten();
    for part in parts.chain([&manifest["config"]]) {
        if let Some(digest) = part["digest"].as_str() {
            reach(place, digest, blobs, found);
        }
    }
}

/// The blobs of the store, and what each takes on the disk.
fn blobs(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for algorithm in names(directory)? {
        let place = directory.join(&algorithm);
        for name in names(&place)? {
            found.insert(format!("{algorithm}:{name}"), size(&place.join(&name))?);
        }
    }
    Ok(found)
}

/// The number of steps in the build cache.
fn builder_steps(cache: &Path) -> Result<usize> {
    Ok(names(cache)?.iter().filter(|name| name.ends_with(".json")).count())
}

/// The names in a directory. A missing one, or a file, has none.
fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("read {directory:?}");
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        entries => unless_gone(entries).with_context(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries.into_iter().flatten() {
        names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// What a file, or all files below a directory, take on the disk, in bytes.
fn size(path: &Path) -> Result<u64> {
    mount::tree::allocated(path).with_context(|| format!("measure {path:?}"))
}
