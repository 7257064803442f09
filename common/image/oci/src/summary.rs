//! Lists the images of a store, for people and programs.

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    image::Image,
    layout::{Entry, Error, Layout, Malformed},
    platform::Platform,
    reference::Reference,
    timestamp,
};

/// An image in the store, with all its names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The image's names, in the short form.
    pub references: Vec<String>,
    /// The digest of the image's configuration; None if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
    /// The digest of the image's manifest or index.
    pub digest: String,
    /// When the image was made (RFC 3339), if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The size of the configuration and the layers as stored, in bytes.
    pub size: u64,
    /// The image's platform. For an index, the platform that this machine would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The platforms of an index whose images are in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// The digests of the layers, lowest first.
    pub layers: Vec<String>,
    /// Why the image cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Summary {
    /// An image whose other members are not known yet.
    fn new(digest: String, references: Vec<String>) -> Self {
        Self {
            references,
            digest,
            id: None,
            created: None,
            size: 0,
            platform: None,
            platforms: Vec::new(),
            layers: Vec::new(),
            error: None,
        }
    }
}

impl Layout {
    /// All images, newest first. An unreadable image is listed with the reason.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>, Error> {
        let (entries, malformed) = self.list_all()?;
        let mut grouped: Vec<(Descriptor, Vec<String>)> = Vec::new();
        for Entry { reference, descriptor } in entries {
            let reference = reference.map(|reference| reference.to_string());
            match grouped.iter_mut().find(|(other, _)| other.digest() == descriptor.digest()) {
                Some((_, references)) => references.extend(reference),
                None => grouped.push((descriptor, reference.into_iter().collect())),
            }
        }
        let mut images: Vec<_> =
            grouped.into_iter().map(|(image, names)| self.summary(&image, names)).collect();
        for Malformed { reference, digest, problem } in malformed {
            let names = reference.iter().map(Reference::to_string).collect();
            let error = Some(format!("its entry in index.json is no descriptor: {problem}"));
            images.push(Summary { error, ..Summary::new(digest, names) });
        }
        let time = |image: &Summary| image.created.as_deref().and_then(timestamp::parse);
        images.sort_by(|a, b| time(b).cmp(&time(a)).then_with(|| a.references.cmp(&b.references)));
        Ok(images)
    }

    fn summary(&self, descriptor: &Descriptor, references: Vec<String>) -> Summary {
        let mut summary = Summary::new(descriptor.digest().to_string(), references);
        if let Err(error) =
            self.image(descriptor, None).and_then(|image| self.fill(&mut summary, &image, descriptor))
        {
            summary.error = Some(error.to_string());
        }
        summary
    }

    fn fill(&self, summary: &mut Summary, image: &Image, descriptor: &Descriptor) -> Result<(), Error> {
        summary.id = Some(image.id()?);
        summary.created = image.configuration.created().clone();
        let layers = image.manifest.layers();
        summary.size =
            layers.iter().map(Descriptor::size).fold(image.manifest.config().size(), u64::saturating_add);
        summary.platform = Some(image.platform().to_string());
        summary.layers = layers.iter().map(|layer| layer.digest().to_string()).collect();
        if image.descriptor.digest() != descriptor.digest() {
            let platform =
                |child: &Descriptor| child.platform().as_ref().map(|own| Platform::from(own).to_string());
            summary.platforms =
                self.manifests(descriptor)?.iter().filter_map(|(child, _)| platform(child)).collect();
        }
        Ok(())
    }
}

/// A size in bytes as Docker shows it: `1.44GB`, `518B`.
pub fn human_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        // Three significant digits, as with `%.3g`.
        if size < 999.5 || unit == "TB" {
            let decimals = if size < 9.995 {
                2
            } else if size < 99.95 {
                1
            } else {
                0
            };
            let text = format!("{size:.decimals$}");
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            return format!("{text}{unit}");
        }
        size /= 1000.0;
    }
    unreachable!("the last unit takes any size")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (518, "518B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (123_456_789, "123MB"),
            (12_345_678, "12.3MB"),
            (1_440_000_000, "1.44GB"),
            (999_600, "1MB"),
        ] {
            assert_eq!(super::human_size(bytes), text);
        }
    }
}
