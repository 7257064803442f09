//! Unpacks several layers of an image at the same time.
//!
//! A layer's archive usually lists the parent directories of its entries, so it seldom needs the lower layers
//! before its end. So each layer starts while those below it are still being unpacked. It waits for them only
//! when it needs to look at them ([`Below::coming`]).
//!
//! Locks are taken from the lowest layer up. While a layer waits for its lock, only layers below it hold
//! theirs, and these finish without it. So two tools that unpack the same layers in different orders never
//! wait for each other.

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use oci::Digest;

use super::{Standing, Store, lock::Lock};
use crate::apply::{Below, Error, Options, Root};

/// The maximum number of layers at once. More would exceed the limit on memory.
const AT_ONCE: usize = 3;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The digest of the layer's blob.
    pub blob: Digest,
    /// The digest of the layer's uncompressed archive.
    pub diff_id: Digest,
}

impl Store {
    /// Finds or unpacks an image's layers, given lowest first. `open` opens the blob of the layer with the
    /// given index. `tell` is called for each layer as soon as it is ready.
    ///
    /// # Errors
    /// The first error, as [`Error::Layer`]; nothing of that layer is left behind.
    pub fn apply_all<R: Read + Send>(
        &self,
        layers: &[Wanted],
        open: impl Fn(usize) -> io::Result<R> + Sync,
        options: &Options,
        tell: impl Fn(usize, &Standing) + Sync,
    ) -> Result<Vec<Standing>, Error> {
        let shared = Shared {
            store: self,
            layers,
            options,
            roots: layers.iter().map(|_| Arc::default()).collect(),
            standing: layers.iter().map(|_| OnceLock::new()).collect(),
            turn: Mutex::new(0),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        };
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(AT_ONCE));
        thread::scope(|scope| {
            for _ in 1..cores.min(layers.len()) {
                // If no thread can be started, this one does all the work.
                if thread::Builder::new().spawn_scoped(scope, || shared.work(&open, &tell)).is_err() {
                    break;
                }
            }
            shared.work(&open, &tell);
        });
        match locked(&shared.error).take() {
            Some(error) => Err(error),
            None => Ok(shared.standing.into_iter().filter_map(OnceLock::into_inner).collect()),
        }
    }
}

/// Locks, even after a panic in another thread: it does not damage the data.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shared<'a> {
    store: &'a Store,
    layers: &'a [Wanted],
    options: &'a Options,
    /// The places of the layers, for the layers above.
    roots: Vec<Arc<Root>>,
    standing: Vec<OnceLock<Standing>>,
    /// The index of the next layer. The lock is held until that layer may be unpacked.
    turn: Mutex<usize>,
    failed: AtomicBool,
    /// The first error.
    error: Mutex<Option<Error>>,
}

/// The state of a layer when its turn comes.
enum Begun {
    Stands(Box<Standing>),
    ToUnpack(Lock),
}

impl Shared<'_> {
    fn work<R: Read + Send>(
        &self,
        open: &(impl Fn(usize) -> io::Result<R> + Sync),
        tell: &(impl Fn(usize, &Standing) + Sync),
    ) {
        loop {
            let mut turn = locked(&self.turn);
            let index = *turn;
            if index == self.layers.len() || self.failed.load(Ordering::Relaxed) {
                return;
            }
            *turn += 1;
            let _end = End(&self.roots[index]);
            let below = Below::coming(&self.roots[..index]);
            let begun = self.begin(index, &below);
            drop(turn);
            let outcome = begun.and_then(|begun| match begun {
                Begun::Stands(standing) => Ok(*standing),
                Begun::ToUnpack(lock) => {
                    let open = || Ok(Stopping { blob: open(index)?, failed: &self.failed });
                    let diff_id = &self.layers[index].diff_id;
                    self.store.apply_locked(&lock, diff_id, open, &below, self.options)
                }
            });
            match outcome {
                Ok(standing) => {
                    self.roots[index].stands(standing.place.path());
                    tell(index, self.standing[index].get_or_init(|| standing));
                }
                Err(error) => {
                    let digest = self.layers[index].blob.clone();
                    let error = Error::Layer { digest, source: Box::new(error) };
                    locked(&self.error).get_or_insert(error);
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn begin(&self, index: usize, below: &Below) -> Result<Begun, Error> {
        let diff_id = &self.layers[index].diff_id;
        match self.store.find_allowed(diff_id, below, self.options)? {
            Some(standing) => Ok(Begun::Stands(Box::new(standing))),
            None => Ok(Begun::ToUnpack(self.store.lock(diff_id)?)),
        }
    }
}

/// When it is dropped, the layers above stop waiting for this one, whatever happened.
struct End<'a>(&'a Root);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // This has no effect if the layer is ready already.
        self.0.fails();
    }
}

/// A blob whose reader fails once another layer has failed.
struct Stopping<'a, R> {
    blob: R,
    failed: &'a AtomicBool,
}

impl<R: Read> Read for Stopping<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        self.blob.read(buffer)
    }
}
