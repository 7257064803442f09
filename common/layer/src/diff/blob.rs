//! The archive into the blob: hashed, compressed over all cores, hashed again and written.
//!
//! The archive is cut into blocks of one size, each compressed for itself, so that the bytes depend on the archive alone.
//! An archive of one block, as most steps of a build make, takes no thread.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use flate2::{Compress, Crc, FlushCompress, Status};

use oci::digest::{Algorithm, Digest, Hasher};

use crate::compression::Compression;

/// The archive's bytes in one block.
const BLOCK: usize = 1 << 20;
/// More compressing threads than this, and reading the files is what takes the time.
const THREADS: usize = 16;

/// A writer whose input is the archive and whose output is the blob.
pub(super) struct Blob<W> {
    out: Out<W>,
    compression: Compression,
    buffer: Vec<u8>,
    crc: Crc,
    uncompressed: u64,
    workers: Option<Workers>,
}

/// What a finished blob is.
pub(super) struct Finished {
    pub(super) diff_id: Digest,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) uncompressed: u64,
    pub(super) media_type: &'static str,
}

struct Out<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

/// RFC 1952: deflate, no name, no time, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

impl<W: Write> Blob<W> {
    pub(super) fn new(inner: W, compression: Compression) -> Self {
        let out = Out { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
        Self { out, compression, buffer: Vec::new(), crc: Crc::new(), uncompressed: 0, workers: None }
    }

    pub(super) fn finish(mut self) -> io::Result<Finished> {
        let last = std::mem::take(&mut self.buffer);
        self.uncompressed += last.len() as u64;
        let diff_id = match self.workers.take() {
            None => {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(&last);
                self.start()?;
                let block = compress(&last, self.compression, true)?;
                self.put(&block)?;
                hasher.finish()
            }
            Some(mut workers) => {
                workers.add(last, true)?;
                while let Some(block) = workers.take()? {
                    self.put(&block)?;
                }
                workers.finish()?
            }
        };
        if let Compression::Gzip { .. } = self.compression {
            let size = self.uncompressed as u32;
            self.out.put(&[self.crc.sum().to_le_bytes(), size.to_le_bytes()].concat())?;
        }
        self.out.inner.flush()?;
        Ok(Finished {
            diff_id,
            digest: self.out.hasher.finish(),
            size: self.out.size,
            uncompressed: self.uncompressed,
            media_type: self.compression.media_type(),
        })
    }

    fn start(&mut self) -> io::Result<()> {
        match self.compression {
            Compression::Gzip { .. } => self.out.put(&GZIP_HEADER),
            _ => Ok(()),
        }
    }

    fn put(&mut self, block: &Block) -> io::Result<()> {
        self.crc.combine(&block.crc);
        self.out.put(&block.bytes)
    }

    /// Hands the full buffer to the workers, and writes what they have ready once enough is under way.
    fn dispatch(&mut self) -> io::Result<()> {
        let mut workers = match self.workers.take() {
            Some(workers) => workers,
            None => {
                self.start()?;
                Workers::start(self.compression)?
            }
        };
        self.uncompressed += self.buffer.len() as u64;
        workers.add(std::mem::take(&mut self.buffer), false)?;
        while workers.is_busy() {
            if let Some(block) = workers.take()? {
                self.put(&block)?;
            }
        }
        self.workers = Some(workers);
        Ok(())
    }
}

impl<W: Write> Write for Blob<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BLOCK {
            self.dispatch()?;
        }
        let count = bytes.len().min(BLOCK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A block of the archive, compressed.
struct Block {
    bytes: Vec<u8>,
    crc: Crc,
}

fn compress(data: &[u8], compression: Compression, last: bool) -> io::Result<Block> {
    let mut crc = Crc::new();
    let bytes = match compression {
        Compression::None => data.to_vec(),
        Compression::Zstd { level } => zstd::bulk::compress(data, level)?,
        Compression::Gzip { level } => {
            crc.update(data);
            deflate(data, level, last)?
        }
    };
    Ok(Block { bytes, crc })
}

/// Deflate that ends on a byte (RFC 1951, 3.2.4: an empty stored block), or with the stream's last block.
fn deflate(data: &[u8], level: u32, last: bool) -> io::Result<Vec<u8>> {
    let mut state = Compress::new(flate2::Compression::new(level), false);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(data.len() / 2 + 128);
    loop {
        let rest = &data[state.total_in() as usize..];
        let status = state.compress_vec(rest, &mut out, flush).map_err(io::Error::other)?;
        let done = match status {
            Status::StreamEnd => true,
            // A flush is complete once it leaves room in the output.
            Status::Ok | Status::BufError => !last && out.len() < out.capacity(),
        };
        if done && state.total_in() as usize == data.len() {
            return Ok(out);
        }
        out.reserve(out.capacity() / 2 + 128);
    }
}

type Job = (Arc<Vec<u8>>, bool, SyncSender<io::Result<Block>>);

/// The threads that hash the archive and compress its blocks.
struct Workers {
    jobs: SyncSender<Job>,
    hash: SyncSender<Arc<Vec<u8>>>,
    threads: Vec<JoinHandle<()>>,
    hasher: JoinHandle<Hasher>,
    under_way: VecDeque<Receiver<io::Result<Block>>>,
}

impl Workers {
    fn start(compression: Compression) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        let (jobs, queue) = sync_channel::<Job>(2 * count);
        let queue = Arc::new(Mutex::new(queue));
        let work = move |queue: Arc<Mutex<Receiver<Job>>>| {
            loop {
                let job = queue.lock().map(|queue| queue.recv());
                let Ok(Ok((data, last, result))) = job else { return };
                // Whoever waited for it may be gone.
                let _ = result.send(compress(&data, compression, last));
            }
        };
        let threads = (0..count)
            .map(|_| {
                let queue = queue.clone();
                thread::Builder::new().name("compress".into()).spawn(move || work(queue))
            })
            .collect::<io::Result<_>>()?;
        let (hash, chunks) = sync_channel::<Arc<Vec<u8>>>(4);
        let hasher = thread::Builder::new().name("hash".into()).spawn(move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            chunks.iter().for_each(|chunk| hasher.update(&chunk));
            hasher
        })?;
        Ok(Self { jobs, hash, threads, hasher, under_way: VecDeque::new() })
    }

    fn add(&mut self, data: Vec<u8>, last: bool) -> io::Result<()> {
        let data = Arc::new(data);
        let (result, receiver) = sync_channel(1);
        self.under_way.push_back(receiver);
        let gone = || io::Error::other("compressing thread ended early");
        self.hash.send(data.clone()).map_err(|_| gone())?;
        self.jobs.send((data, last, result)).map_err(|_| gone())
    }

    fn is_busy(&self) -> bool {
        self.under_way.len() > 2 * self.threads.len()
    }

    /// The oldest block, waited for.
    fn take(&mut self) -> io::Result<Option<Block>> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(None) };
        oldest.recv().unwrap_or_else(|_| Err(io::Error::other("compressing thread ended early"))).map(Some)
    }

    fn finish(self) -> io::Result<Digest> {
        drop((self.jobs, self.hash));
        let panicked = |_| io::Error::other("compressing thread panicked");
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(panicked))?;
        self.hasher.join().map(Hasher::finish).map_err(panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn blobs_hold_what_was_written() {
        let noise = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let long: Vec<u8> = (0..5_000_000).map(|n| if n % 3 == 0 { noise(n) } else { 7 }).collect();
        for data in [&b""[..], b"short", &long[..BLOCK], &long[..BLOCK + 1], &long] {
            for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
                let mut out = Vec::new();
                let mut blob = Blob::new(&mut out, compression);
                blob.write_all(data).unwrap();
                let finished = blob.finish().unwrap();
                assert_eq!(finished.diff_id, Digest::of(data));
                assert_eq!((finished.size, finished.uncompressed), (out.len() as u64, data.len() as u64));
                assert_eq!(finished.digest, Digest::of(&out));
                let mut back = Vec::new();
                match compression {
                    Compression::Gzip { .. } => flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).unwrap(),
                    _ => crate::compression::decoder(&out[..]).unwrap().read_to_end(&mut back).unwrap(),
                };
                assert!(back == data, "{compression:?} of {} bytes", data.len());
            }
        }
    }
}
