//! Unpacks an image's layers, each into its own directory or EROFS image.
//!
//! # Does
//! For each layer of `image` that is not yet below `$STAVE_ROOT/layers`: decompresses and unpacks its blob
//! into overlayfs's form, checks its DiffID, and renames it into place. Images and containers share layers;
//! each layer is unpacked once. With `--format erofs` it writes one image sequentially instead of creating
//! files one by one. union-mount mounts the image.
//! # Reads
//! `image`; the layers' blobs in `$STAVE_ROOT/images`.
//! # Adds
//! `layers`.
//! # Undoes
//! The container's claim on the layers, which is its record. Directories and images stay until `img-gc` finds them unused.
//! # Needs
//! Root, for owners, devices and `trusted.overlay.*`; or root in a user namespace (docs/rootless.md), for
//! directories only.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use document::{Document, members};
use layer::{
    Layer,
    apply::Limits,
    store::{Format, Standing},
};
use oci::Layout;
use toolkit::{Common, Context, Filter, Plan, hint};

/// Unpack an image's layers, each into its own directory or EROFS image
#[derive(Parser)]
#[command(name = "layer-apply", version)]
struct LayerApply {
    /// Make each layer a directory, or with erofs an image in one file
    #[arg(long, value_name = "FORM", default_value = "directory")]
    format: Format,
    /// Refuse a layer whose archive is larger than this: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = operation::quantity::size)]
    max_size: u64,
    /// Refuse a layer with more than N entries
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    max_entries: u64,
    /// Refuse a layer over 4 GiB whose archive is more than N times larger than its blob; over 64 MiB if N is below 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_ratio: u64,
    /// Refuse a layer with device nodes
    #[arg(long)]
    no_devices: bool,
    /// In a user namespace, unpack files of unmapped owners as the caller's, and device nodes as empty files
    #[arg(long)]
    rootless: bool,
    #[command(flatten)]
    common: Common,
}

impl Filter for LayerApply {
    type Adds = members::Layers;
    type Operation = layer::Apply;
    const READS: &'static [&'static str] = &["image"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let image = document.require::<members::Image>()?;
        let root = &context.scope.root;
        let layout = Layout::open(root.join("images")).map_err(|error| elsewhere(root, error.into()))?;
        let image = layout.image(&image.descriptor, None).context("read the image");
        let image = image.map_err(|error| elsewhere(root, error))?;
        let limits = Limits { size: self.max_size, entries: self.max_entries, ratio: self.max_ratio };
        let apply = layer::Apply {
            devices: !self.no_devices,
            rootless: self.rootless,
            tell: (context.verbose > 0).then_some(tell),
            ..layer::Apply::of(root, &image, limits, self.format)?
        };
        let same_form = |one: &members::Layer, other: &members::Layer| {
            let forms = [&one.place, &other.place].map(std::mem::discriminant);
            one.diff_id == other.diff_id && forms[0] == forms[1]
        };
        Ok(Plan { adds: further(document, union::unpacked(&apply), same_form)?, operations: vec![apply] })
    }

    fn finish(
        &self,
        document: &Document,
        _: members::Layers,
        operations: &[layer::Apply],
    ) -> Result<members::Layers> {
        let all = members::Layers(operations.iter().flat_map(|apply| union::unpacked(apply).0).collect());
        further(document, all, |one, other| one == other)
    }
}

/// The layers above those that the document already has from an earlier step.
fn further(
    document: &Document,
    mut all: members::Layers,
    is_same: impl Fn(&members::Layer, &members::Layer) -> bool,
) -> Result<members::Layers> {
    let present = document.get::<members::Layers>()?.map(|layers| layers.0).unwrap_or_default();
    let is_there =
        |(at, layer): (usize, &members::Layer)| all.0.get(at).is_some_and(|new| is_same(layer, new));
    if !present.iter().enumerate().all(is_there) {
        let error = anyhow!("the document has other `layers` already");
        return Err(hint(error, "run `layer-apply --undo` first: it removes them from the document"));
    }
    all.0.drain(..present.len());
    Ok(all)
}

/// Adds a hint if the image is not in the store at all.
fn elsewhere(root: &Path, error: anyhow::Error) -> anyhow::Error {
    use oci::layout::Error::{NoBlob, NotALayout};
    if !matches!(error.root_cause().downcast_ref(), Some(NoBlob(_) | NotALayout(_))) {
        return error;
    }
    let what = "use the store that has the image, or img-pull it into this one";
    hint(error, format!("the store is {root:?} (--root, STAVE_ROOT): {what}"))
}

fn tell(layer: &Layer, standing: &Standing) {
    let digest = layer.descriptor.digest();
    let done = if standing.fresh { "unpacked into" } else { "already in" };
    operation::tell!("layer {digest}: {done} {:?}", layer.place.path());
    let layer::apply::LeftOut { attributes, whiteouts, entries } = standing.left_out;
    if attributes > 0 {
        operation::tell!("layer {digest}: left out {attributes} extended attributes of other systems");
    }
    if whiteouts > 0 {
        operation::tell!("layer {digest}: used {whiteouts} whiteouts that are not empty files");
    }
    if entries > 0 {
        operation::tell!("layer {digest}: left out {entries} entries below names of whiteouts");
    }
    if let Some(at) = standing.trailing {
        operation::tell!("layer {digest}: ignored data after the end of the archive at byte {at}");
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<LayerApply>()
}
