//! The operation of layer-apply.

use std::{
    io,
    path::{Path, PathBuf},
};

use oci::{Digest, Layout, spec::Descriptor};
use operation::{Condition, Operation, Scope, quote};
use serde::{Deserialize, Serialize};

use crate::{
    apply::{Below, Error, Limits, Options},
    pipeline,
    store::{Format, Place, Standing, Store, Wanted},
};

/// A layer of an [`Apply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The OCI descriptor of the layer's blob, which is in the store.
    pub descriptor: Descriptor,
    /// The digest of the layer's uncompressed archive.
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
    /// The layer's place. Before the layer is applied, this is the expected place.
    #[serde(flatten)]
    pub place: Place,
}

/// Unpacks an image's layers into `$STAVE_ROOT/layers`, unless they are there already.
///
/// Layers are shared and belong to no container, so undo leaves them in place. The records of containers show
/// which layers are used. `img-gc` removes unused ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename = "layer-apply", rename_all = "camelCase")]
pub struct Apply {
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The maximum size of a layer's archive, in bytes.
    pub max_size: u64,
    /// The maximum number of entries in a layer.
    pub max_entries: u64,
    /// The maximum ratio between the sizes of a layer's archive and its blob.
    pub max_ratio: u64,
    /// Whether layers may contain device nodes.
    pub devices: bool,
    /// Whether to approximate a layer that the user namespace cannot represent exactly.
    #[serde(default)]
    pub rootless: bool,
    /// The form of the layers.
    #[serde(default)]
    pub format: Format,
    /// Called for each layer as soon as it is ready.
    #[serde(skip)]
    pub tell: Option<Tell>,
}

/// Called with a layer that is ready and the facts about it.
pub type Tell = fn(&Layer, &Standing);

/// The age at which the kernel has written most of an unpacked layer, so that a sync is cheap.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(120);

impl Apply {
    /// The operation that unpacks the layers of an image, each at its usual place in `root` (`$STAVE_ROOT`).
    ///
    /// # Errors
    /// When a DiffID of the image is not a digest.
    pub fn of(
        root: &Path,
        image: &oci::Image,
        limits: Limits,
        format: Format,
    ) -> Result<Self, oci::layout::Error> {
        let layer = |(descriptor, diff_id): (&Descriptor, Digest)| Layer {
            descriptor: descriptor.clone(),
            place: Store::place_of(root, &diff_id, format),
            diff_id,
        };
        let layers = image.layers()?.into_iter().map(layer).collect();
        let Limits { size: max_size, entries: max_entries, ratio: max_ratio } = limits;
        Ok(Self {
            layers,
            max_size,
            max_entries,
            max_ratio,
            devices: true,
            rootless: false,
            format,
            tell: None,
        })
    }

    fn options(&self) -> Options {
        let limits = Limits { size: self.max_size, entries: self.max_entries, ratio: self.max_ratio };
        let Self { devices, rootless, format, .. } = *self;
        Options { limits, devices, rootless, format, ..Options::default() }
    }

    fn apply_all(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        operation::interrupt::checked()?;
        let store = Store::open(&scope.root).map_err(advised)?;
        let wanted = |layer: &Layer| {
            let blob = Digest::try_from(layer.descriptor.digest()).map_err(operation::Error::caused_by)?;
            Ok(Wanted { blob, diff_id: layer.diff_id.clone() })
        };
        let wanted = self.layers.iter().map(wanted).collect::<Result<Vec<_>, operation::Error>>()?;
        let tell = |index: usize, standing: &Standing| {
            if let Some(tell) = self.tell {
                let layer = Layer { place: standing.place.clone(), ..self.layers[index].clone() };
                tell(&layer, standing);
            }
        };
        let layout = Layout::open(scope.root.join("images")).map_err(operation::Error::caused_by)?;
        let missing = self.layers.iter().filter(|layer| !layer.place.path().exists());
        let total = missing.fold(0, |sum: u64, layer| sum.saturating_add(layer.descriptor.size()));
        let meter = operation::Meter::new("unpacking", total);
        let open = |index: usize| {
            let blob = layout.blob_unchecked(&self.layers[index].descriptor).map_err(io::Error::other)?;
            Ok(meter.watch(blob))
        };
        let standing = store
            .apply_all(&wanted, open, &self.options(), tell)
            .map_err(|error| advised(blame(&layout, &self.layers, error)))?;
        let unsettled = standing.iter().any(|standing| !standing.fresh && !standing.note.synced);
        for (layer, standing) in self.layers.iter_mut().zip(standing) {
            layer.place = standing.place;
        }
        if unsettled {
            // If the sync fails, the layers are still good. After a crash they would be unpacked again.
            let _ = store.settle(SETTLED);
        }
        Ok(())
    }
}

/// The error with a hint for the user.
fn advised(error: Error) -> operation::Error {
    let hint = match &error {
        Error::Interrupted(_) => None,
        error if error.is_of_namespace() => {
            Some("use `--format directory`, the default: it needs no mounts".to_owned())
        }
        error if error.is_of_ratio() => {
            Some("if you trust the image, allow more with `layer-apply --max-ratio N`".to_owned())
        }
        error => error.hint().map(|what| format!("{what}, or `layer-apply --rootless`")),
    };
    let error = operation::Error::caused_by(error).of(operation::Place::Store);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The error of a layer. If the blob does not match its digest, that is reported as the cause. (While
/// unpacking, only the DiffID is checked. Checking each blob's digest too would add nothing and cost a tenth
/// of the time.)
fn blame(layout: &Layout, layers: &[Layer], error: Error) -> Error {
    let Error::Layer { digest, source } = error else { return error };
    let is_its = |blob: &&Descriptor| blob.digest().to_string() == digest.to_string();
    let descriptor = layers.iter().map(|layer| &layer.descriptor).find(is_its);
    let checked = match (&*source, descriptor) {
        (Error::Interrupted(_), _) | (_, None) => Ok(()),
        (_, Some(descriptor)) => {
            layout.blob_reader(descriptor).map_err(io::Error::other).and_then(|blob| blob.finish().map(drop))
        }
    };
    let source = match checked {
        Ok(()) => source,
        Err(error) => Box::new(Error::Blob(pipeline::Error::Read(error))),
    };
    Error::Layer { digest, source }
}

impl Operation for Apply {
    fn explain(&self) -> Vec<String> {
        let line = |layer: &Layer| {
            let place = quote(&layer.place.path().to_string_lossy());
            // `$STAVE_ROOT/layers/<name>` is next to `$STAVE_ROOT/images`.
            let root = layer.place.path().ancestors().nth(2).unwrap_or(Path::new("/"));
            let name = layer.descriptor.digest().to_string().replace(':', "/");
            let blob = root.join("images/blobs").join(name);
            let blob = quote(&blob.to_string_lossy());
            match layer.place {
                Place::Directory(_) => format!("mkdir -p {place} && tar --xattrs -xpf {blob} -C {place}"),
                Place::Erofs(_) => format!("bsdcat {blob} | mkfs.erofs --tar=f --aufs {place} /dev/stdin"),
            }
        };
        self.layers.iter().map(line).collect()
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        self.apply_all(scope)
    }

    /// Does nothing: the layers are shared.
    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        Ok(())
    }

    fn check(&self, scope: &Scope) -> Result<Condition, operation::Error> {
        let store = Store::open(&scope.root).map_err(advised)?;
        let mut below: Vec<PathBuf> = Vec::new();
        for layer in &self.layers {
            let place = layer.place.path();
            let opened = Below::open(&below).map_err(operation::Error::on("open", "the layers below"))?;
            let found = store.find(&layer.diff_id, &opened, self.format, self.rootless).map_err(advised)?;
            match found.as_ref().map(|standing| standing.place.path()) {
                Some(path) if path == place => below.push(place.to_owned()),
                Some(path) => return Ok(Condition::Different(format!("layer in {path:?}"))),
                None => return Ok(Condition::Missing(format!("layer {place:?}"))),
            }
        }
        Ok(Condition::Present)
    }
}
