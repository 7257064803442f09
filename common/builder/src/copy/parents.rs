//! `COPY --parents`: copies keep the directories above them.

use std::path::{Path, PathBuf};

use super::{CopyError, Item, Job, Kind, Tree, job::Listed, tree::parts};
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
        tree.resolve(pivot)?.iter().map(|base| self.below(tree, &base.path, &source)).collect()
    }

    /// Lists what a source means below the directory `base`, which the part before the pivot names.
    fn below(&self, tree: &Tree, base: &Path, source: &Source) -> Result<Listed, CopyError> {
        let nothing = Listed { path: base.to_owned(), directory: true, named: false, items: Vec::new() };
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
                    return Ok(nothing);
                }
                Err(error) => return Err(error),
            };
        }
        let is_file = tree.kind(&at)? != Kind::Directory;
        match &source.pattern {
            // A file has nothing below it.
            _ if is_file && (source.pattern.is_some() || target.as_os_str().is_empty()) => {
                return if source.is_pattern() { Ok(nothing) } else { Err(tree.missing(source.text)) };
            }
            None => items.extend(tree.list(&at, &target, &self.exclude)?),
            Some(pattern) => {
                let mut all = items;
                all.extend(tree.list(&at, &target, &self.exclude)?);
                items = matching(&all, pattern);
            }
        }
        // Also without a match: the destination is made, as in BuildKit.
        Ok(Listed { items, named: is_file && source.pattern.is_none(), ..nothing })
    }
}

impl Source<'_> {
    /// Whether it is no error if the source means no file.
    fn is_pattern(&self) -> bool {
        self.several || self.pattern.is_some()
    }
}

/// The items that match a pattern, those below them, and the directories above them. `all` has each directory before
/// what is in it.
fn matching(all: &[Item], pattern: &Glob) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    // The directories above the current item: whether each of them fits, and those that are not listed so far.
    let mut above: Vec<(&Item, bool)> = Vec::new();
    let mut listed = 0;
    for item in all.iter().filter(|item| !item.target.as_os_str().is_empty()) {
        while above.pop_if(|(directory, _)| !item.target.starts_with(&directory.target)).is_some() {}
        listed = listed.min(above.len());
        let fits =
            above.last().is_some_and(|(_, fits)| *fits) || pattern.matches(&item.target.to_string_lossy());
        if fits {
            items.extend(above[listed..].iter().map(|(directory, _)| (*directory).clone()));
            listed = above.len();
            items.push(item.clone());
        }
        if item.kind == Kind::Directory {
            above.push((item, fits));
            listed += usize::from(fits);
        }
    }
    items
}
