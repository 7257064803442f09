//! Removes a layer that nothing uses.

use oci::Digest;

use super::{Note, Store, error};
use crate::{apply::Error, remove_tree};

impl Store {
    /// Removes all files of a layer, if `unused` returns true. `unused` is called under the layer's lock, and
    /// again once the layer can no longer be found. Returns whether the layer was removed.
    ///
    /// # Errors
    /// The error of `unused`; when something cannot be removed.
    pub fn remove<E: From<Error>>(
        &self,
        diff_id: &Digest,
        unused: impl Fn() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let _lock = self.lock(diff_id)?;
        if !unused()? {
            return Ok(false);
        }
        let names = self.names_of(diff_id)?;
        let mut notes = Vec::new();
        for name in
            names.iter().filter_map(|name| name.strip_suffix(".json")).filter(|name| !name.starts_with('.'))
        {
            let path = || self.path.join(format!("{name}.json"));
            if let Some((note, _)) = Note::read(&self.fd, name).map_err(error("read", path()))? {
                notes.push((name, note));
            }
            self.remove_name(&format!("{name}.json"))?;
        }
        // A process that found the layer earlier has a record or a mount by now.
        let unused = unused();
        if !matches!(unused, Ok(true)) {
            for (name, note) in notes {
                note.write(&self.fd, name).map_err(error("write", self.path.join(format!("{name}.json"))))?;
            }
            return unused;
        }
        for name in names {
            self.remove_name(&name)?;
        }
        Ok(true)
    }

    pub(super) fn remove_name(&self, name: &str) -> Result<(), Error> {
        remove_tree(&self.fd, name.as_bytes()).map_err(error("remove", self.path.join(name)))
    }
}
