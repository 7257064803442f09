//! Writes the archive as a blob: hashed, and compressed on all cores.
//!
//! The archive is cut into blocks of one size. Each block is compressed separately, as a gzip member or a
//! zstd frame; both formats can be concatenated. So the bytes depend only on the archive, not on the number
//! of cores. Most build steps make an archive of one block, which needs no thread.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use libdeflater::{CompressionLvl, Compressor};
use oci::digest::{Algorithm, Digest, Hasher};
use operation::Status;

use crate::compression::Compression;

/// The size of a block of the archive, in bytes.
const BLOCK: usize = 1 << 20;
// Unpacking decompresses a whole block at once.
const _: () = assert!(BLOCK <= archive::decompress::CHUNK);
/// The maximum number of compressing threads. With more, reading the files would be the bottleneck.
const THREADS: usize = 16;

/// A writer that takes the archive and writes the blob.
pub(super) struct Blob<W> {
    out: W,
    compression: Compression,
    block: Block,
    size: u64,
    uncompressed: u64,
    workers: Option<Workers>,
    status: Status,
}

/// Facts about a finished blob.
pub(super) struct Finished {
    pub(super) diff_id: Digest,
    pub(super) size: u64,
    pub(super) uncompressed: u64,
    pub(super) media_type: &'static str,
}

/// A buffer that is used again. Only its first `length` bytes count. New memory would cost a page fault for
/// each page, a tenth of the total time.
#[derive(Default)]
struct Block {
    memory: Vec<u8>,
    length: usize,
}

impl Block {
    /// Empties the block and makes room for at least `size` bytes.
    fn reserve(mut self, size: usize) -> Self {
        if self.memory.len() < size {
            self.memory = vec![0; size];
        }
        Self { length: 0, ..self }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

/// Blocks that can be used again.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Block>>>);

impl Pool {
    fn take(&self) -> Block {
        self.0.lock().ok().and_then(|mut blocks| blocks.pop()).unwrap_or_default()
    }

    fn give(&self, block: Block) {
        if let Ok(mut blocks) = self.0.lock() {
            blocks.push(block);
        }
    }
}

impl<W: Write> Blob<W> {
    pub(super) fn new(out: W, compression: Compression) -> Self {
        let status = Status::new("packing the layer");
        Self { out, compression, block: Block::default(), size: 0, uncompressed: 0, workers: None, status }
    }

    pub(super) fn finish(mut self) -> io::Result<Finished> {
        let last = std::mem::take(&mut self.block);
        self.uncompressed += last.length as u64;
        let diff_id = match self.workers.take() {
            None => {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(last.bytes());
                let encoded = Encoder::new(self.compression)?.encode(last.bytes(), Block::default())?;
                self.put(&encoded)?;
                hasher.finish()
            }
            Some(mut workers) => {
                workers.add(last)?;
                while let Some(block) = workers.take()? {
                    self.put(&block)?;
                    workers.encoded.give(block);
                }
                workers.finish()?
            }
        };
        self.out.flush()?;
        Ok(Finished {
            diff_id,
            size: self.size,
            uncompressed: self.uncompressed,
            media_type: self.compression.media_type(),
        })
    }

    /// The free space of the current block, for the next bytes of the archive. [`Blob::filled`] says how many
    /// were put there.
    pub(super) fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.block.length == BLOCK {
            self.dispatch()?;
        }
        if self.block.memory.is_empty() {
            self.block = std::mem::take(&mut self.block).reserve(BLOCK);
        }
        Ok(&mut self.block.memory[self.block.length..BLOCK])
    }

    /// Notes that `count` bytes were put into [`Blob::space`].
    pub(super) fn filled(&mut self, count: usize) {
        self.block.length += count;
    }

    /// Gives the full block to the workers. Writes finished blocks if enough are in progress.
    fn dispatch(&mut self) -> io::Result<()> {
        let mut workers = match self.workers.take() {
            Some(workers) => workers,
            None => Workers::start(self.compression)?,
        };
        let next = workers.read.take().reserve(BLOCK);
        let full = std::mem::replace(&mut self.block, next);
        self.uncompressed += full.length as u64;
        self.status.at(self.uncompressed);
        workers.add(full)?;
        while workers.is_busy() {
            if let Some(block) = workers.take()? {
                self.put(&block)?;
                workers.encoded.give(block);
            }
        }
        self.workers = Some(workers);
        Ok(())
    }

    fn put(&mut self, block: &Block) -> io::Result<()> {
        self.size += block.length as u64;
        self.out.write_all(block.bytes())
    }
}

impl<W: Write> Write for Blob<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = self.space()?;
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses blocks. The compressor's state is used again for each block.
enum Encoder {
    Plain,
    /// The second compressor only stores, for data that does not get smaller.
    Gzip(Compressor, Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain,
            Compression::Gzip { level } => {
                let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
                let level = level.ok_or_else(|| io::Error::other("gzip has levels from 1 to 12"))?;
                Self::Gzip(
                    Compressor::new(level),
                    Compressor::new(CompressionLvl::new(0).unwrap_or_default()),
                )
            }
            Compression::Zstd { level } => Self::Zstd(zstd::bulk::Compressor::new(level)?),
        })
    }

    /// Compresses `data` into the memory of `out`.
    fn encode(&mut self, data: &[u8], out: Block) -> io::Result<Block> {
        let mut out = out.reserve(match self {
            Self::Plain => data.len(),
            Self::Gzip(compressor, _) => compressor.gzip_compress_bound(data.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(data.len()),
        });
        out.length = match self {
            Self::Plain => {
                out.memory[..data.len()].copy_from_slice(data);
                data.len()
            }
            Self::Gzip(compressor, store) => {
                let compressor = if is_compressed(compressor, data)? { store } else { compressor };
                compressor.gzip_compress(data, &mut out.memory).map_err(io::Error::other)?
            }
            Self::Zstd(compressor) => compressor.compress_to_buffer(data, &mut out.memory[..])?,
        };
        Ok(out)
    }
}

/// Whether a block holds data that is compressed already, such as packages or pictures. A few samples tell,
/// in a fiftieth of the time of compressing the block. Often the first sample is enough.
fn is_compressed(compressor: &mut Compressor, data: &[u8]) -> io::Result<bool> {
    const SAMPLE: usize = 4 << 10;
    const SAMPLES: usize = 4;
    if data.len() < 8 * SAMPLE * SAMPLES {
        return Ok(false);
    }
    let mut out = vec![0; compressor.deflate_compress_bound(SAMPLE)];
    let mut size = 0;
    for sample in data.chunks_exact(data.len() / SAMPLES).take(SAMPLES) {
        size += compressor.deflate_compress(&sample[..SAMPLE], &mut out).map_err(io::Error::other)?;
        // One sample that gets clearly smaller is enough.
        if size * 10 < SAMPLE * 9 {
            return Ok(false);
        }
    }
    Ok(size * 100 > SAMPLE * SAMPLES * 97)
}

type Job = (Arc<Block>, SyncSender<io::Result<Block>>);

/// The threads that hash the archive and compress its blocks.
struct Workers {
    jobs: SyncSender<Job>,
    hash: SyncSender<Arc<Block>>,
    threads: Vec<JoinHandle<()>>,
    hasher: JoinHandle<Hasher>,
    under_way: VecDeque<Receiver<io::Result<Block>>>,
    /// Blocks of the archive that can be used again.
    read: Pool,
    /// Blocks of the blob that can be used again.
    encoded: Pool,
}

impl Workers {
    fn start(compression: Compression) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        let (jobs, queue) = sync_channel::<Job>(2 * count);
        let queue = Arc::new(Mutex::new(queue));
        let (read, encoded) = (Pool::default(), Pool::default());
        let work = |queue: &Mutex<Receiver<Job>>, mut encoder: Encoder, read: &Pool, encoded: &Pool| {
            loop {
                let job = queue.lock().map(|queue| queue.recv());
                let Ok(Ok((data, result))) = job else { return };
                // The receiver may be gone.
                let _ = result.send(encoder.encode(data.bytes(), encoded.take()));
                Arc::into_inner(data).into_iter().for_each(|block| read.give(block));
            }
        };
        let threads = (0..count)
            .map(|_| {
                let (queue, encoder) = (queue.clone(), Encoder::new(compression)?);
                let (read, encoded) = (read.clone(), encoded.clone());
                let work = move || work(&queue, encoder, &read, &encoded);
                thread::Builder::new().name("compress".into()).spawn(work)
            })
            .collect::<io::Result<_>>()?;
        let (hash, blocks) = sync_channel::<Arc<Block>>(4);
        let done = read.clone();
        let hasher = thread::Builder::new().name("hash".into()).spawn(move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            for block in blocks {
                hasher.update(block.bytes());
                Arc::into_inner(block).into_iter().for_each(|block| done.give(block));
            }
            hasher
        })?;
        Ok(Self { jobs, hash, threads, hasher, under_way: VecDeque::new(), read, encoded })
    }

    fn add(&mut self, data: Block) -> io::Result<()> {
        let data = Arc::new(data);
        let (result, receiver) = sync_channel(1);
        self.under_way.push_back(receiver);
        let gone = || io::Error::other("compressing thread ended early");
        self.hash.send(data.clone()).map_err(|_| gone())?;
        self.jobs.send((data, result)).map_err(|_| gone())
    }

    fn is_busy(&self) -> bool {
        self.under_way.len() > 2 * self.threads.len()
    }

    /// Waits for the oldest block.
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

    #[test]
    fn blobs_hold_what_was_written() {
        let noise = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let long: Vec<u8> = (0..5_000_000).map(|n| if n % 3 == 0 { noise(n) } else { 7 }).collect();
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        let compressed: Vec<u8> = (0..BLOCK).map(|_| random()).collect();
        let mut encoder = Encoder::new(Compression::GZIP).unwrap();
        let Encoder::Gzip(compressor, _) = &mut encoder else { panic!("gzip") };
        assert!(is_compressed(compressor, &compressed).unwrap());
        assert!(!is_compressed(compressor, &long[..BLOCK]).unwrap());
        for data in [&b""[..], b"short", &compressed, &long[..BLOCK], &long[..BLOCK + 1], &long] {
            for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
                let mut out = Vec::new();
                let mut blob = Blob::new(&mut out, compression);
                blob.write_all(data).unwrap();
                let finished = blob.finish().unwrap();
                assert_eq!(finished.diff_id, Digest::of(data));
                assert_eq!((finished.size, finished.uncompressed), (out.len() as u64, data.len() as u64));
                let mut back = Vec::new();
                let mut reader = archive::Decompressed::new(&out[..], archive::Limits::NONE).unwrap();
                io::Read::read_to_end(&mut reader, &mut back).unwrap();
                assert!(back == data, "{compression:?} of {} bytes", data.len());
            }
        }
    }
}
