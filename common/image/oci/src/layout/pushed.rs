//! Where images were recently pushed. A registry can mount a blob from one of its other repositories. If an
//! image has no name at that registry here, only this file tells the repository.

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

use super::{Error, Layout, read_limited};
use crate::reference::Reference;

/// The name of the file.
const FILE: &str = ".pushed.json";
/// How many pushes are remembered.
const MOST: usize = 64;
/// The maximum size of the file, in bytes.
const MAX_SIZE: u64 = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Push {
    /// `host/repository`
    name: String,
    descriptor: Descriptor,
}

impl Layout {
    /// The recent pushes, latest first. Empty if the file cannot be read: it is only an aid.
    pub fn pushed(&self) -> Vec<(Reference, Descriptor)> {
        let named = |push: Push| Some((push.name.parse().ok()?, push.descriptor));
        self.read_pushes().into_iter().filter_map(named).collect()
    }

    /// Remembers that an image was pushed to the repository of `reference`. Old pushes are forgotten. The
    /// file is not synced: losing it in a power cut costs only a transfer.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember_push(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        let _lock = self.lock()?;
        let name = reference.name();
        let digest = descriptor.digest();
        let mut pushes = self.read_pushes();
        pushes.retain(|push| push.name != name || push.descriptor.digest() != digest);
        let bare = Descriptor::new(descriptor.media_type().clone(), descriptor.size(), digest.clone());
        pushes.insert(0, Push { name, descriptor: bare });
        pushes.truncate(MOST);
        self.replace(FILE, &serde_json::to_vec(&pushes).map_err(Error::Json)?)
    }

    fn read_pushes(&self) -> Vec<Push> {
        let text = read_limited(&self.path().join(FILE), MAX_SIZE);
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn the_last_pushes_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let image = |content: &[u8]| {
            Descriptor::new(MediaType::ImageManifest, content.len() as u64, Digest::of(content))
        };
        let (one, two) = (image(b"1"), image(b"2"));
        assert_eq!(layout.pushed(), []);
        for (name, descriptor) in
            [("localhost:5000/a:1", &one), ("localhost:5000/b", &two), ("localhost:5000/a:2", &one)]
        {
            layout.remember_push(&name.parse().unwrap(), descriptor).unwrap();
        }
        let [a, b] = ["localhost:5000/a", "localhost:5000/b"].map(|name| name.parse().unwrap());
        assert_eq!(layout.pushed(), [(a, one.clone()), (b, two)]);
        for number in 0..2 * MOST {
            layout.remember_push(&format!("localhost/{number}").parse().unwrap(), &one).unwrap();
        }
        assert_eq!(layout.pushed().len(), MOST);
        std::fs::write(dir.path().join(FILE), "[{").unwrap();
        assert_eq!(layout.pushed(), []);
        layout.remember_push(&"a".parse().unwrap(), &one).unwrap();
        assert_eq!(layout.pushed().len(), 1);
    }
}
