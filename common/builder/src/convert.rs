//! Makes the same image with another compression of its layers, or with a manifest in another form. Its files, its
//! configuration and its id stay as they are.

use std::path::PathBuf;

use archive::{Decompressed, Limits};
use layer::compression::Compression;
use oci::{
    Digest, Layout, Platform, Reference,
    digest::Hashing,
    media_type::is_nondistributable,
    spec::{Descriptor, MediaType},
};

use crate::{Built, Format, cache::Layer, error::Cause, executor::layers_of, manifest};

/// What to convert, and how.
#[derive(Debug, Clone, Default)]
pub struct Convert {
    /// `$STAVE_ROOT`, absolute.
    pub root: PathBuf,
    /// The platform to choose from an image for several platforms.
    pub platform: Option<Platform>,
    /// The compression of all layers. None keeps that of each layer.
    pub compression: Option<Compression>,
    /// The form of the manifest. None keeps the form.
    pub format: Option<Format>,
    /// The names of the new image.
    pub tags: Vec<Reference>,
    /// Whether not to wait until the image is on the disk.
    pub no_sync: bool,
}

/// Makes the converted image. `image` is a manifest or an index in the store. A layer that has the compression already
/// is not written again.
///
/// # Errors
/// [`Cause`]: among others, a layer is damaged, or Docker's form does not know its compression. The new image gets no
/// name then.
pub fn convert(job: &Convert, image: &Descriptor) -> Result<Built, Cause> {
    let layout = Layout::open(job.root.join("images"))?.with_sync(!job.no_sync);
    manifest::hold_platforms(&layout, image, job.platform.as_ref(), &job.tags)?;
    layout.keep_meanwhile(&[oci::Digest::try_from(image.digest()).map_err(oci::layout::Error::from)?])?;
    let found = layout.image(image, job.platform.as_ref())?;
    let own = match found.descriptor.media_type() == &Format::Docker.manifest() {
        true => Format::Docker,
        false => Format::Oci,
    };
    let format = job.format.unwrap_or(own);
    let mut layers = Vec::new();
    for layer in layers_of(&found)? {
        let layer = match job.compression {
            // Nobody may distribute a foreign layer, and a new blob would have no URL.
            Some(_) if is_nondistributable(&layer.descriptor) => {
                let digest = layer.descriptor.digest();
                operation::note(&format!("layer {digest} stays as it is: it must not be distributed"));
                layer.descriptor
            }
            Some(compression) if !has(&layer, compression) => compress(&layout, &layer, compression)?,
            _ => layer.descriptor,
        };
        if format == Format::Docker && is_zstd(&layer) {
            return Err(Cause::NoDockerType(layer.digest().to_string()));
        }
        layers.push(layer);
    }
    let annotations = found.manifest.annotations().clone().unwrap_or_default();
    let mut annotations: Vec<(String, String)> = annotations.into_iter().collect();
    if format == Format::Docker && !annotations.is_empty() {
        operation::note(&format!(
            "{} annotations are left out: Docker's manifests have none",
            annotations.len()
        ));
        annotations.clear();
    }
    let config = found.manifest.config().clone();
    let id = Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
    let descriptor = manifest::write_as(format, &layout, config, &layers, &annotations)?;
    layout.name(&descriptor, &job.tags)?;
    Ok(Built { descriptor, configuration: found.raw_configuration, id, tree: None, read: Vec::new() })
}

fn is_zstd(layer: &Descriptor) -> bool {
    layer.media_type().to_string().ends_with("zstd")
}

/// Whether the layer is compressed in this way. A level is not told from another one.
fn has(layer: &Layer, compression: Compression) -> bool {
    let own = layer.descriptor.media_type().to_string();
    let ends: &[&str] = match compression {
        Compression::None => &[".tar"],
        Compression::Gzip { .. } => &["+gzip", ".gzip"],
        Compression::Zstd { .. } => &["+zstd", ".zstd"],
    };
    ends.iter().any(|end| own.ends_with(end))
}

/// Writes the layer again. Annotations of the old blob say nothing of the new one.
fn compress(layout: &Layout, layer: &Layer, compression: Compression) -> Result<Descriptor, Cause> {
    let blob = layout.blob_reader(&layer.descriptor)?;
    let digest = Digest::try_from(layer.descriptor.digest()).map_err(oci::layout::Error::from)?;
    // If the blob is not what its digest says, that is the cause.
    let blamed = |cause: Cause| match layout.check_blob(&layer.descriptor) {
        Err(damaged) => Cause::from(damaged),
        Ok(()) => cause,
    };
    let archive = Decompressed::new(blob, Limits::default());
    let archive =
        archive.map_err(|error| blamed(Cause::system("read layer", &layout.blob_path(&digest))(error)))?;
    let mut archive = Hashing::new(archive, layer.diff_id.algorithm());
    let mut writer = layout.writer()?;
    let written = layer::diff::archive(&mut archive, &mut writer, compression);
    let written = written.map_err(|error| blamed(Cause::Diff(error)))?;
    let (_, found, _) = archive.finish();
    if found != layer.diff_id {
        return Err(blamed(Cause::OtherContent(layer.diff_id.clone(), found)));
    }
    Ok(writer.commit_as(MediaType::from(written.media_type))?)
}
