//! Containers that stand on snapshots of others.

use std::collections::HashSet;

use document::{Document, Id, members::Rootfs, record};
use mount::level;
use operation::Scope;
use toolkit::prelude::*;

/// On how many containers it stands, one upon another.
pub(crate) fn depth(scope: &Scope, id: &Id) -> usize {
    let mut seen = HashSet::new();
    let mut next = Some(id.clone());
    while let Some(id) = next.take().filter(|id| !seen.contains(id)) {
        let recorded = record::read(&scope.run_dir, &id).ok().flatten();
        let rootfs: Option<Rootfs> = recorded.and_then(|recorded| recorded.get().ok()?);
        next = rootfs.and_then(|rootfs| rootfs.fork).map(|fork| fork.container);
        seen.insert(id);
    }
    seen.len()
}

/// Refuses to touch a container on which another one is based.
pub(crate) fn refuse(scope: &Scope, document: &Document) -> Result<()> {
    let Some(id) = document.id()? else { return Ok(()) };
    let forks = level::forks(scope, id.as_str(), 0)?;
    if forks.is_empty() {
        return Ok(());
    }
    let error = anyhow!("container \"{id}\" has forks: {}", forks.join(", "));
    Err(hint(error, format!("`unwind {} {id}` removes them, too", forks.join(" "))))
}
