//! Lists the step cache.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use operation::unless_gone;
use serde::Serialize;

use super::Kept;

/// An entry of the step cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The entry's key, as hexadecimal digits.
    pub key: String,
    /// The step's text. Empty for an entry from elsewhere or of an older version.
    pub step: String,
    /// The size of the step's layer in bytes. 0 if there is no layer, or an earlier row has the same one.
    pub size: u64,
    /// When a build last used the entry, in seconds since 1970.
    pub used: i64,
    /// How often the entry was used.
    pub uses: u64,
}

/// The entries of the step cache below `root` (`$STAVE_ROOT`). The most recently used come first.
///
/// # Errors
/// When an entry cannot be read: the path and the cause.
pub fn list(root: &Path) -> Result<Vec<Row>, (PathBuf, io::Error)> {
    let cache = root.join("cache");
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let Some(entries) = unless_gone(fs::read_dir(&cache)).map_err(at(&cache))? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at(&cache))?.path();
        let Some(key) = path.file_stem().and_then(OsStr::to_str) else { continue };
        if path.extension() != Some(OsStr::new("json")) {
            continue;
        }
        // Another process may have removed the entry.
        let Some(metadata) = unless_gone(fs::metadata(&path)).map_err(at(&path))? else { continue };
        let Some(text) = unless_gone(fs::read(&path)).map_err(at(&path))? else { continue };
        let Ok(Kept { uses, step, entry }) = serde_json::from_slice(&text) else { continue };
        let uses = uses.parse().unwrap_or(0);
        let used = std::os::unix::fs::MetadataExt::mtime(&metadata);
        let row = Row { key: key.to_owned(), step, size: 0, used, uses };
        found.push((row, entry.layer.map(|layer| layer.descriptor)));
    }
    found.sort_by(|(a, _), (b, _)| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
    let mut counted = HashSet::new();
    let rows = found.into_iter().map(|(row, layer)| {
        let own = layer.filter(|layer| counted.insert(layer.digest().to_string()));
        Row { size: own.map_or(0, |layer| layer.size()), ..row }
    });
    Ok(rows.collect())
}
