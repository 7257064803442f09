//! Writes docker archives: `manifest.json`, configurations, layers. Plain and gzip layers are written
//! unchanged, because every `docker load` and `podman load` reads them. Other layers are decompressed.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Seek, Write},
};

use archive::{Compression, Decompressed, Limits, peek};
use oci_spec::image::Descriptor;
use serde_json::json;

use super::{Archive, Error, Named};
use crate::{
    digest::{Digest, Hashing},
    image::Image,
    json,
    layout::{self, Layout},
    platform::Platform,
    reference::Reference,
};

pub(super) fn save<W: Write>(
    layout: &Layout,
    images: &[Named],
    platform: Option<&Platform>,
    archive: &mut Archive<W>,
) -> Result<(), Error> {
    let mut written = HashSet::new();
    let mut list = Vec::new();
    for named in images {
        let image = layout.image(&named.descriptor, platform)?;
        let config = format!("{}.json", image.id()?.hex());
        if written.insert(config.clone()) {
            archive.blob(layout, &config, image.manifest.config())?;
        }
        let names: Vec<String> =
            named.references.iter().filter(|name| name.tag().is_some()).map(Reference::canonical).collect();
        let layers = save_layers(layout, &image, &mut written, archive)?;
        let names = if names.is_empty() { serde_json::Value::Null } else { json!(names) };
        list.push(json!({"Config": config, "RepoTags": names, "Layers": layers}));
    }
    archive.text("manifest.json", &json::to_vec(&list).map_err(layout::Error::Json)?)
}

fn save_layers<W: Write>(
    layout: &Layout,
    image: &Image,
    written: &mut HashSet<String>,
    archive: &mut Archive<W>,
) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for (descriptor, diff_id) in image.layers()? {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        let (start, _) = peek(layout.blob_reader(descriptor)?, Compression::LOOK)
            .map_err(|error| Error::Read(digest.clone(), error))?;
        let compression = Compression::detect(&start);
        let name = match compression {
            Compression::None => format!("{}.tar", digest.hex()),
            Compression::Gzip => format!("{}.tar.gz", digest.hex()),
            _ => format!("{}.tar", diff_id.hex()),
        };
        if written.insert(name.clone()) {
            match compression {
                Compression::None | Compression::Gzip => archive.blob(layout, &name, descriptor)?,
                _ => {
                    let (plain, size) = decompress(layout, descriptor, &diff_id)?;
                    archive.content(&name, plain, digest, size)?;
                }
            }
        }
        names.push(name);
    }
    Ok(names)
}

/// Decompresses a layer into an unnamed file: a tar needs the size before the content.
fn decompress(layout: &Layout, descriptor: &Descriptor, diff_id: &Digest) -> Result<(File, u64), Error> {
    let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
    let blob = layout.blob_reader(descriptor)?;
    let unpack = || -> io::Result<(File, Digest, u64)> {
        let mut file = rustix::fs::open(
            layout.path(),
            rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .map(File::from)?;
        let mut plain = Hashing::new(Decompressed::new(blob, Limits::NONE)?, diff_id.algorithm());
        io::copy(&mut plain, &mut file)?;
        file.rewind()?;
        let (_, found, size) = plain.finish();
        Ok((file, found, size))
    };
    let (file, found, size) =
        unpack().map_err(|error| Error::Read(digest.clone(), layout::of_store(error)))?;
    match found == *diff_id {
        true => Ok((file, size)),
        false => Err(Error::DiffId { digest, expected: diff_id.clone(), found }),
    }
}
