//! A root file system as an image of one layer.
//!
//! The layer is stored as it came where the image-spec has a media type for that (plain, gzip, zstd), else plain.
//! Nothing is compressed here: that would cost many times the rest, and who sends the image somewhere may do it then.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    rc::Rc,
};

use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::{
    Error, Found, Intake,
    intake::io_error,
    tar::{Member, Members},
};
use crate::{
    compression::{Compression, Limits},
    digest::{Algorithm, Digest, Hashing},
    json,
    layout::{self, BlobWriter},
    platform::Platform,
    timestamp,
};

pub(super) fn rootfs(
    intake: &mut Intake,
    name: &str,
    form: (Compression, Limits),
    source: impl Read,
) -> Result<(), Error> {
    let (layer, diff_id, newest) = store_layer(intake, name, form, source)?;
    let platform = intake.platform.clone().unwrap_or_else(Platform::host);
    // As new as its newest file, so that the same root file system is the same image each time.
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
    Ok(())
}

/// Stores the layer; returns it with its DiffID and the time of its newest member.
fn store_layer(
    intake: &mut Intake,
    name: &str,
    (compression, limits): (Compression, Limits),
    source: impl Read,
) -> Result<(Descriptor, Digest, i64), Error> {
    let read_error = io_error(name);
    let writer = intake.layout.writer()?;
    let (sealed, diff_id, newest, media_type) = match compression.layer_media_type() {
        Some(media_type) if compression != Compression::None => {
            let writer = Rc::new(RefCell::new(writer));
            let stored = Tee { source, copy: Rc::clone(&writer) };
            let decoder = limits.decoder(compression, stored).map_err(&read_error)?;
            let (plain, newest) = walk(Hashing::new(decoder, Algorithm::Sha256)).map_err(&read_error)?;
            let (decoder, diff_id, _) = plain.finish();
            drop(decoder);
            let writer = Rc::try_unwrap(writer).map_err(|_| ()).map(RefCell::into_inner);
            let Ok(writer) = writer else { unreachable!("the decoder had the only other one") };
            (writer.seal()?, diff_id, newest, media_type)
        }
        _ => {
            let decoder = limits.decoder(compression, source).map_err(&read_error)?;
            let (stored, newest) =
                walk(Tee { source: decoder, copy: Rc::new(RefCell::new(writer)) }).map_err(&read_error)?;
            let Ok(writer) = Rc::try_unwrap(stored.copy) else { unreachable!("there is no other one") };
            let sealed = writer.into_inner().seal()?;
            let diff_id = sealed.digest().clone();
            (sealed, diff_id, newest, MediaType::ImageLayer)
        }
    };
    let layer = Descriptor::new(media_type, sealed.size(), sealed.digest().clone());
    intake.add_sealed(sealed);
    Ok((layer, diff_id, newest))
}

/// Reads a tar to the end of its stream, and checks its form on the way. Returns the time of the newest member.
fn walk<R: Read>(source: R) -> io::Result<(R, i64)> {
    let mut members = Members::new(source);
    let mut newest = 0;
    while let Some(Member { mtime, .. }) = members.next()? {
        newest = newest.max(mtime);
    }
    let mut source = members.into_inner();
    let mut rest = vec![0; 64 << 10];
    while source.read(&mut rest)? > 0 {}
    Ok((source, newest))
}

/// Writes what is read from `source` into a blob as well.
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
