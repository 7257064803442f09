//! What all containers' records list.

use document::record;
use operation::Scope;
use serde::de::DeserializeOwned;

/// The operations of this type in the records of all containers, in the order of the ids. Those of a container that is being
/// taken back do not count, and a record that is removed meanwhile is skipped.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// # let scope = operation::Scope { root: "/var/lib/stave".into(), run_dir: "/run/stave".into() };
/// let claims: Vec<operation::Claim> = toolkit::recorded(&scope)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When a record cannot be read.
pub fn recorded<O: DeserializeOwned>(scope: &Scope) -> anyhow::Result<Vec<O>> {
    let mut found = Vec::new();
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)?.filter(|document| !document.has_failed())
        else {
            continue;
        };
        let operations = document.steps()?.into_iter().flat_map(|step| step.operations);
        found.extend(operations.filter_map(|operation| O::deserialize(operation).ok()));
    }
    Ok(found)
}
