//! Images whose last name went to another image: after a new build or pull of the same name, for example. As with
//! Docker they stay in the list, without a name, so that the step can be taken back. An annotation of the entry tells
//! them from images that never had a name. `img-gc` removes them once its grace is over and nothing uses them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci_spec::image::Descriptor;
use serde_json::Value;

use super::{CONTAINERD_NAME, Layout, REF_NAME};
use crate::{digest::Digest, gc::Marks, shape, timestamp};

/// When the entry lost its last name (RFC 3339).
const DISPLACED: &str = "stave.displaced";

/// The annotations of an entry of `index.json` that are about the entry and not about the image.
pub(super) const OWN: [&str; 3] = [REF_NAME, CONTAINERD_NAME, DISPLACED];

/// The entry without its names. None if the image is not complete: nobody can go back to it.
pub(super) fn without_names(layout: &Layout, entry: &Value) -> Option<Value> {
    let descriptor = shape::descriptor(entry).ok()?;
    if !layout.is_whole(&descriptor) {
        return None;
    }
    let mut entry = entry.clone();
    let annotations = entry.get_mut("annotations")?.as_object_mut()?;
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = timestamp::format(i64::try_from(now).unwrap_or(i64::MAX));
    annotations.insert(DISPLACED.to_owned(), now.into());
    Some(entry)
}

/// Whether an entry lost its last name.
pub(super) fn is_displaced(entry: &Value) -> bool {
    !entry["annotations"][DISPLACED].is_null()
}

/// Whether an entry lost its last name at least `grace` ago, and no mark is on its image, or on one of the images of an
/// index. An index that cannot be read stays.
pub(super) fn is_forsaken(layout: &Layout, entry: &Value, grace: Duration, marks: &Marks) -> bool {
    let Some(time) = entry["annotations"][DISPLACED].as_str().and_then(timestamp::parse) else {
        return false;
    };
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
    let is_over = SystemTime::now().duration_since(time).is_ok_and(|age| age >= grace);
    let is_marked =
        |image: &Descriptor| Digest::try_from(image.digest()).map_or(true, |digest| marks.contains(&digest));
    is_over
        && shape::descriptor(entry).is_ok_and(|image| {
            let below =
                || layout.manifests(&image).map_or(true, |all| all.iter().any(|(one, _)| is_marked(one)));
            !is_marked(&image) && !below()
        })
}

impl Layout {
    /// Whether all blobs of an image are there with their sizes; for an index, those of one of its images.
    pub(super) fn is_whole(&self, descriptor: &Descriptor) -> bool {
        self.fault(descriptor, 0, &std::collections::BTreeMap::new()).is_none()
    }
}
