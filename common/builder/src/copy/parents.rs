//! `COPY --parents`: copies keep the directories above them.

use std::path::{Path, PathBuf};

use super::{CopyError, Found, Item, Job, Kind, Tree, job::Listed, tree::parts};
use crate::glob::{self, DoubleStar, Glob};

/// A source of `--parents`.
struct Source<'a> {
    text: &'a str,
    /// The parts of the path behind the pivot: first those without wildcards, then the others.
    fixed: Vec<String>,
    /// The pattern for paths behind the pivot. `None` if nothing in the source is a wildcard.
    pattern: Option<Glob>,
    /// Whether the directory before the pivot is a pattern.
    several: bool,
}

impl Job {
    /// Lists a source with `--parents`. If the source has `/./`, only the directories behind it are kept. The
    /// path behind it is cleaned, as Docker does, so `a//b` and `a/x/../b` are `a/b`.
    pub(super) fn with_parents(&self, tree: &Tree, source: &str) -> Result<Vec<Listed>, CopyError> {
        let (pivot, path) = source.split_once("/./").unwrap_or(("", source));
        let parts = parts(path);
        let fixed = parts.iter().take_while(|part| !glob::has_wildcards(part));
        let fixed: Vec<String> = fixed.map(|part| glob::unescape(part)).collect();
        let pattern = (fixed.len() < parts.len()).then(|| Glob::parse(&parts.join("/"), DoubleStar::Deep));
        let source = Source {
            text: source,
            fixed,
            pattern: pattern.transpose()?,
            several: glob::has_wildcards(pivot),
        };
        let below = |base: &Found| self.below(tree, &base.path, &source).transpose();
        tree.resolve(pivot)?.iter().filter_map(below).collect()
    }

    /// Lists what a source means below the directory `base`, which the part before the pivot names.
    fn below(&self, tree: &Tree, base: &Path, source: &Source) -> Result<Option<Listed>, CopyError> {
        let mut items = Vec::new();
        let (mut at, mut target) = (base.to_owned(), PathBuf::new());
        for part in &source.fixed {
            // Parent directories are copied with their attributes. A link to one becomes a directory.
            if !target.as_os_str().is_empty() {
                items.push(tree.item(at.clone(), target.clone())?);
            }
            target.push(part);
            at = match tree.found(&at.join(part), source.text) {
                Ok(found) => found.path,
                Err(CopyError::NotFound(_) | CopyError::NotInContext(_)) if source.is_pattern() => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
        }
        let is_file = tree.kind(&at)? != Kind::Directory;
        match &source.pattern {
            // A file has nothing below it.
            _ if is_file && (source.pattern.is_some() || target.as_os_str().is_empty()) => {
                return if source.is_pattern() { Ok(None) } else { Err(tree.missing(source.text)) };
            }
            None => items.extend(tree.list(&at, &target, &self.exclude)?),
            Some(pattern) => {
                let mut all = items;
                all.extend(tree.list(&at, &target, &self.exclude)?);
                items = matching(&all, pattern);
            }
        }
        Ok((!items.is_empty()).then(|| Listed { path: base.to_owned(), directory: true, items }))
    }
}

impl Source<'_> {
    /// Whether it is no error if the source means no file.
    fn is_pattern(&self) -> bool {
        self.several || self.pattern.is_some()
    }
}

/// The items that match a pattern, those below them, and the directories above them.
fn matching(all: &[Item], pattern: &Glob) -> Vec<Item> {
    let fits = |item: &Item| {
        let text = item.target.to_string_lossy();
        !text.is_empty()
            && (pattern.matches(&text)
                || text.match_indices('/').any(|(end, _)| pattern.matches(&text[..end])))
    };
    let kept: Vec<Item> = all.iter().filter(|item| fits(item)).cloned().collect();
    let above = |item: &&Item| {
        item.kind == Kind::Directory
            && !item.target.as_os_str().is_empty()
            && kept.iter().any(|kept| kept.target != item.target && kept.target.starts_with(&item.target))
    };
    let mut items: Vec<Item> = all.iter().filter(above).filter(|item| !fits(item)).cloned().collect();
    items.extend(kept);
    items.sort_by(|a, b| a.target.cmp(&b.target));
    items
}
