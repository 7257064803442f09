//! Imports a root file system as an image with one layer.
//!
//! The layer is stored unchanged if the image-spec has a media type for its compression (none, gzip, zstd),
//! and uncompressed otherwise. Nothing is compressed here: that would take far longer than the rest of the
//! import. A later push can compress the layer.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Read, Write},
    rc::Rc,
};

use archive::{Compression, Decompressed, Limits, Reader, Shown};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::{Error, Found, Intake, intake::io_error, lists::Lists};
use crate::{
    digest::{Algorithm, Digest, Hashing},
    json,
    layout::{self, BlobWriter, SealedBlob},
    media_type,
    platform::Platform,
    timestamp,
};

const BUFFER: usize = 256 << 10;

/// Imports a root file system. If the tar turns out to list images, it is returned whole instead.
pub(super) fn rootfs(
    intake: &mut Intake,
    name: &str,
    form: (Compression, Limits),
    source: impl Read,
) -> Result<Option<SealedBlob>, Error> {
    let Stored { blob, media_type, diff_id, newest, lists_images } = store_layer(intake, name, form, source)?;
    if lists_images {
        return Ok(Some(blob));
    }
    let layer = Descriptor::new(media_type, blob.size(), blob.digest().clone());
    intake.add_sealed(blob);
    let platform = intake.platform.clone().unwrap_or_else(Platform::host);
    // Use the time of the newest file, so that the same root file system always gives the same image.
    let created = timestamp::format(newest.clamp(0, timestamp::now()));
    let mut configuration = json!({
        "architecture": platform.architecture, "config": {}, "created": created, "os": platform.os,
        "history": [{"created": created, "comment": "Imported from -"}],
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    if let Some(variant) = platform.variant {
        configuration["variant"] = variant.into();
    }
    let configuration = json::to_vec(&configuration).map_err(layout::Error::Json)?;
    let config = intake.add_small(MediaType::ImageConfig, configuration);
    let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer]});
    let manifest = json::to_vec(&manifest).map_err(layout::Error::Json)?;
    let descriptor = intake.add_small(MediaType::ImageManifest, manifest);
    let blobs = [&layer, &config, &descriptor].map(|blob| intake.require(blob));
    intake.need(blobs.into_iter().collect::<Result<Vec<_>, _>>()?);
    intake.images.push(Found { references: Vec::new(), descriptor });
    Ok(None)
}

/// A stored layer.
struct Stored {
    blob: SealedBlob,
    media_type: MediaType,
    diff_id: Digest,
    /// The modification time of the newest member, in seconds since 1970.
    newest: i64,
    /// Whether the tar lists images.
    lists_images: bool,
}

fn store_layer(
    intake: &mut Intake,
    name: &str,
    (compression, limits): (Compression, Limits),
    source: impl Read,
) -> Result<Stored, Error> {
    let read_error = io_error(name);
    let writer = intake.layout.writer()?;
    let (blob, diff_id, (newest, lists_images), media_type) = match media_type::of_layer(compression) {
        Some(media_type) if compression != Compression::None => {
            let writer = Rc::new(RefCell::new(writer));
            let stored = Tee { source, copy: Rc::clone(&writer) };
            let plain =
                Hashing::new(Decompressed::new(stored, limits).map_err(&read_error)?, Algorithm::Sha256);
            let plain = BufReader::with_capacity(BUFFER, plain);
            let (plain, seen) = walk(plain, limits).map_err(&read_error)?;
            let (decoder, diff_id, _) = plain.into_inner().finish();
            drop(decoder);
            let writer = Rc::try_unwrap(writer).map_err(|_| ()).map(RefCell::into_inner);
            let Ok(writer) = writer else { unreachable!("the decoder had the only other one") };
            (writer.seal()?, diff_id, seen, media_type)
        }
        _ => {
            let plain = Decompressed::new(source, limits).map_err(&read_error)?;
            let stored = Tee { source: plain, copy: Rc::new(RefCell::new(writer)) };
            let (stored, seen) =
                walk(BufReader::with_capacity(BUFFER, stored), limits).map_err(&read_error)?;
            let Ok(writer) = Rc::try_unwrap(stored.into_inner().copy) else {
                unreachable!("there is no other one")
            };
            let sealed = writer.into_inner().seal()?;
            let diff_id = sealed.digest().clone();
            (sealed, diff_id, seen, MediaType::ImageLayer)
        }
    };
    Ok(Stored { blob, media_type, diff_id, newest, lists_images })
}

/// Reads a tar to the end of its stream and checks its form, as unpacking will. Returns the modification time
/// of the newest member, and whether the tar lists images.
fn walk<R: BufRead>(source: R, limits: Limits) -> io::Result<(R, (i64, bool))> {
    let (mut reader, mut lists) = (Reader::new(source), Lists::default());
    let (mut newest, mut count, mut size) = (0, 0, 0_u64);
    while let Some(entry) = reader.next()? {
        (count, size) = (count + 1, size.saturating_add(entry.size));
        limits
            .hold_entries(count, size)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        entry.target().map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {error}", Shown::new(&entry.path)))
        })?;
        newest = newest.max(entry.mtime.seconds);
        lists.see(&entry, &mut reader);
    }
    Ok((reader.into_inner(), (newest, lists.are_there(true))))
}

/// A reader that also writes what it reads into a blob.
struct Tee<R> {
    source: R,
    copy: Rc<RefCell<BlobWriter>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.borrow_mut().write_all(&buffer[..count])?;
        Ok(count)
    }
}
