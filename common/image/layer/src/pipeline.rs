//! Decompresses and hashes a blob on other threads than the one that uses the archive.
//!
//! One thread reads and decompresses the blob. Its reader may also verify the blob's digest. Another thread
//! hashes the archive. The caller's thread consumes the archive. Chunks are shared, not copied, and their
//! number is limited, so the memory does not depend on the size of the blob.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use archive::{
    Limits,
    decompress::{Chunk, Decoder},
};
use oci::digest::{Algorithm, Digest, Hasher};

pub(crate) use archive::decompress::Error;

/// How many chunks may wait for the consumer, and for the hash.
const WAITING: usize = 2;

/// The size of the blob, and the DiffID and size of the archive.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
    pub(crate) uncompressed: u64,
}

/// Calls `consume` with the archive in `blob`. The blob is read to its end, even if `consume` stops earlier.
///
/// # Errors
/// The error that ended the archive early, if there is one; otherwise the error of `consume`.
pub(crate) fn run<T, E: From<Error>>(
    blob: impl Read + Send,
    algorithm: Algorithm,
    limits: Limits,
    consume: impl FnOnce(&mut Archive) -> Result<T, E>,
) -> Result<(T, Totals), E> {
    let (to_consumer, archive) = sync_channel::<Result<Arc<Chunk>, Error>>(WAITING);
    let (to_hash, hashed) = sync_channel::<Arc<Chunk>>(WAITING);
    let (used, unused) = channel::<Chunk>();
    thread::scope(|scope| {
        let hash_used = used.clone();
        let hasher = thread::Builder::new()
            .spawn_scoped(scope, move || hash(Hasher::new(algorithm), &hashed, &hash_used))
            .map_err(Error::Thread)?;
        let reader = thread::Builder::new().spawn_scoped(scope, move || {
            decompress(blob, limits, &to_consumer, &to_hash, &unused).unwrap_or_else(|error| {
                // If the consumer is gone, it needs no error.
                let _ = to_consumer.send(Err(error));
                0
            })
        });
        let reader = reader.map_err(Error::Thread)?;
        let mut archive = Archive { chunks: archive, current: None, position: 0, used, error: None };
        let consumed = consume(&mut archive).and_then(|value| {
            archive.drain().map_err(E::from)?;
            Ok(value)
        });
        let error = archive.error.take();
        drop(archive);
        let finished = (reader.join(), hasher.join());
        let (Ok(size), Ok((diff_id, uncompressed))) = finished else {
            return Err(Error::Read(io::Error::other("thread panicked")).into());
        };
        match (error, consumed) {
            (Some(error), _) => Err(error.into()),
            (None, Err(error)) => Err(error),
            (None, Ok(value)) => Ok((value, Totals { size, diff_id, uncompressed })),
        }
    })
}

fn hash(mut hasher: Hasher, chunks: &Receiver<Arc<Chunk>>, used: &Sender<Chunk>) -> (Digest, u64) {
    let mut size = 0;
    for chunk in chunks {
        hasher.update(chunk.bytes());
        size += chunk.bytes().len() as u64;
        if let Some(chunk) = Arc::into_inner(chunk) {
            let _ = used.send(chunk);
        }
    }
    (hasher.finish(), size)
}

/// Decompresses the blob and returns its size.
fn decompress(
    blob: impl Read,
    limits: Limits,
    to_consumer: &SyncSender<Result<Arc<Chunk>, Error>>,
    to_hash: &SyncSender<Arc<Chunk>>,
    unused: &Receiver<Chunk>,
) -> Result<u64, Error> {
    let mut decoder = Decoder::new(blob, limits)?;
    loop {
        let mut chunk = unused.try_recv().unwrap_or_default();
        chunk.clear();
        decoder.fill(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(decoder.taken());
        }
        let chunk = Arc::new(chunk);
        if to_hash.send(chunk.clone()).is_err() || to_consumer.send(Ok(chunk)).is_err() {
            return Ok(decoder.taken());
        }
    }
}

/// The archive, as its consumer reads it.
pub(crate) struct Archive {
    chunks: Receiver<Result<Arc<Chunk>, Error>>,
    current: Option<Arc<Chunk>>,
    position: usize,
    used: Sender<Chunk>,
    error: Option<Error>,
}

impl Archive {
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.fill_buf().map(<[u8]>::len) {
                Ok(0) => return Ok(()),
                Ok(length) => self.consume(length),
                Err(error) => return Err(self.error.take().unwrap_or(Error::Read(error))),
            }
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        archive::read_buffered(self, buffer)
    }
}

impl BufRead for Archive {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| self.position == chunk.bytes().len()) {
            if let Some(chunk) = self.current.take().and_then(Arc::into_inner) {
                let _ = self.used.send(chunk);
            }
            self.position = 0;
            match self.chunks.recv() {
                Ok(Ok(chunk)) => self.current = Some(chunk),
                Ok(Err(error)) => {
                    self.error = Some(error);
                    return Err(io::Error::other("the archive ended early"));
                }
                Err(_) => {}
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.position..]))
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn all(blob: &[u8], limits: Limits) -> Result<(Vec<u8>, Totals), Error> {
        run(blob, Algorithm::Sha256, limits, |archive| {
            let mut data = Vec::new();
            let _ = archive.read_to_end(&mut data);
            Ok(data)
        })
    }

    const WIDE: Limits = Limits { size: 1 << 40, ratio: 10_000, entries: 1 };

    #[test]
    fn every_compression_comes_through() {
        let data: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (first, second) = data.split_at(data.len() / 3);
        let members = [gzip(first), gzip(b""), gzip(second)].concat();
        for blob in [data.clone(), gzip(&data), members, zstd::bulk::compress(&data, 1).unwrap()] {
            let (out, totals) = all(&blob, WIDE).unwrap();
            assert!(out == data);
            assert_eq!(totals.diff_id, Digest::of(&data));
            assert_eq!((totals.size, totals.uncompressed), (blob.len() as u64, data.len() as u64));
        }
    }

    #[test]
    fn damage_is_found() {
        let data = vec![7; 1_000_000];
        let good = gzip(&data);
        let mut flipped = good.clone();
        let at = flipped.len() - 6;
        flipped[at] ^= 1;
        let zstd = zstd::bulk::compress(&data, 1).unwrap();
        for (blob, message) in [
            (good[..good.len() / 2].to_vec(), "decompress blob: incomplete deflate stream"),
            (good[..good.len() - 1].to_vec(), "decompress blob: unexpected end of file"),
            ([&good[..], b"tail"].concat(), "decompress blob: data after the end of gzip"),
            ([&good[..], &[0; 512]].concat(), "decompress blob: data after the end of gzip"),
            ([&good[..], &[0x1f]].concat(), "decompress blob: unexpected end of file"),
            (flipped, "decompress blob: corrupt gzip stream does not have a matching checksum"),
            (zstd[..zstd.len() - 1].to_vec(), "decompress blob: incomplete frame"),
            ([&zstd[..], b"tail"].concat(), "decompress blob: Unknown frame descriptor"),
        ] {
            assert_eq!(all(&blob, WIDE).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let bomb = gzip(&vec![0; 200 << 20]);
        let error = all(&bomb, Limits { ratio: 100, ..WIDE }).unwrap_err().to_string();
        assert_eq!(error, "unpacked size exceeds 100 times the compressed size");
        let error = all(&bomb, Limits { size: 1 << 20, ..WIDE }).unwrap_err().to_string();
        assert_eq!(error, "unpacked size exceeds 1048576 bytes");
        assert!(all(&bomb, WIDE).is_ok());
    }

    #[test]
    fn a_consumer_that_gives_up_stops_it() {
        let outcome: Result<((), _), Error> =
            run(io::repeat(7).take(1 << 40), Algorithm::Sha256, WIDE, |_| {
                Err(archive::Exceeded::Size(0).into())
            });
        assert_eq!(outcome.unwrap_err().to_string(), "unpacked size exceeds 0 bytes");
    }
}
