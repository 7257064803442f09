//! `--cache-from` and `--cache-to`: exchanges step results with other machines. The results travel as an
//! image: its layers are those of the results, and its configuration lists the results. So every registry and
//! every OCI layout can hold them.

use std::{
    io,
    path::{Path, PathBuf},
};

use oci::{
    Layout, Platform, Reference, save,
    spec::{Descriptor, MediaType},
};
use registry::{
    Client, Display,
    display::Job,
    pull::{self, Wanted},
    push,
};
use serde_json::{Value, json};

use super::{Options, store::Store};
use crate::{
    cache::{Cache, Layer, MEMBER, Used},
    error::Cause,
    manifest,
    progress::Form,
};

/// A source of step results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// An image in a registry: a cache, or an image that was built with `type=inline`.
    Registry(Reference),
    /// An OCI layout.
    Local(PathBuf),
}

/// Which step results to export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The results whose layers are in the image.
    #[default]
    Min,
    /// The results of all stages.
    Max,
}

/// A destination of step results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTo {
    /// An image in a registry.
    Registry(Reference, Mode),
    /// An OCI layout.
    Local(PathBuf, Mode),
    /// The image that is built.
    Inline,
}

/// Splits a value such as `type=local,dest=x` into its fields.
fn fields(text: &str) -> Vec<(&str, &str)> {
    text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect()
}

fn kind<'a>(fields: &[(&'a str, &'a str)]) -> &'a str {
    fields.iter().find(|(name, _)| *name == "type").map_or("", |(_, value)| value)
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse::<Reference>().map(Reference::pinned).map_err(|error| format!("{text:?}: {error}"))
}

impl CacheFrom {
    /// Parses `NAME`, `type=registry,ref=NAME` or `type=local,src=DIR`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self::Registry(reference(text)?));
        }
        let fields = fields(text);
        let (kind, mut place) = (kind(&fields), None);
        for (name, value) in &fields {
            match (kind, *name) {
                (_, "type") => {}
                ("registry", "ref") | ("local", "src") => place = Some(*value),
                _ => return Err(format!("{name:?} is not carried out for type={kind}")),
            }
        }
        match (kind, place) {
            ("registry", Some(name)) => Ok(Self::Registry(reference(name)?)),
            ("local", Some(path)) => Ok(Self::Local(path.into())),
            _ => Err("it is NAME, type=registry,ref=NAME or type=local,src=DIR".to_owned()),
        }
    }
}

impl CacheTo {
    /// Parses `type=inline`; or `type=registry,ref=NAME` or `type=local,dest=DIR`, both with `mode=min|max`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = fields(text);
        let (kind, mut place, mut mode) = (kind(&fields), None, Mode::Min);
        for (name, value) in &fields {
            match (kind, *name, *value) {
                (_, "type", _) => {}
                ("registry", "ref", value) | ("local", "dest", value) => place = Some(value),
                ("registry" | "local", "mode", "min") => mode = Mode::Min,
                ("registry" | "local", "mode", "max") => mode = Mode::Max,
                // These are always true here.
                ("registry" | "local", "oci-mediatypes" | "image-manifest", "true") => {}
                _ => return Err(format!("{name:?} is not carried out for type={kind}")),
            }
        }
        match (kind, place) {
            ("inline", None) => Ok(Self::Inline),
            ("registry", Some(name)) => Ok(Self::Registry(reference(name)?, mode)),
            ("local", Some(path)) => Ok(Self::Local(path.into(), mode)),
            _ => Err("it is type=inline, type=registry,ref=NAME or type=local,dest=DIR".to_owned()),
        }
    }
}

/// Imports step results. If a source has none, prints a warning and continues.
pub(super) fn import(options: &Options, store: &Store, cache: &Cache) -> Result<(), Cause> {
    for from in &options.cache_from {
        let layout = &store.images.layout;
        let taken = match from {
            CacheFrom::Local(path) => of_layout(layout, path),
            CacheFrom::Registry(reference) => of_registry(layout, reference, options),
        };
        let configurations = match taken {
            Ok(configurations) => configurations,
            Err(cause) => {
                let name = match from {
                    CacheFrom::Local(path) => path.display().to_string(),
                    CacheFrom::Registry(reference) => reference.canonical(),
                };
                operation::note(&format!("warning: no cache from {name}: {cause}"));
                continue;
            }
        };
        for configuration in configurations {
            let listed = configuration.get(MEMBER).cloned().unwrap_or_default();
            for used in serde_json::from_value::<Vec<Used>>(listed).unwrap_or_default() {
                let is_whole = match &used.entry.layer {
                    Some(layer) => layout.has_sound_blob(&layer.descriptor)?,
                    None => true,
                };
                if is_whole {
                    cache.take(&used, store.workspace()?.path())?;
                }
            }
        }
    }
    Ok(())
}

fn of_layout(layout: &Layout, path: &Path) -> Result<Vec<Value>, Cause> {
    let failed = |source| Cause::Layout { path: path.to_owned(), source };
    let mut intake =
        oci::load::Input::open(path).and_then(|input| input.read(layout, None)).map_err(failed)?;
    intake.forget_names();
    let found = intake.commit(None).map_err(failed)?;
    found.iter().map(|image| Ok(layout.image(&image.descriptor, None)?.raw_configuration)).collect()
}

fn of_registry(layout: &Layout, reference: &Reference, options: &Options) -> Result<Vec<Value>, Cause> {
    let pulled = |source| Cause::Pull { name: reference.canonical(), source: Box::new(source) };
    let client = Client::new(registry::Options::default());
    let display = Display::new(Job::Pull, options.progress != Form::Plain);
    let name = reference.canonical();
    let had = layout.resolve(&name)?;
    let fetched = pull::resolve(&client, layout, reference, &Wanted::Host, &display)
        .and_then(|(pull, _)| pull.fetch(|_| Ok(())).map(drop));
    match (&had, fetched) {
        // Perhaps it was never pushed.
        (Some(own), Err(_)) => return Ok(vec![layout.image(own, None)?.raw_configuration]),
        (_, fetched) => fetched.map_err(pulled)?,
    }
    let Some(descriptor) = layout.resolve(&name)? else { return Ok(Vec::new()) };
    let image = layout.image(&descriptor, None)?;
    // A cache is not an image of the user's, so its name is removed, or restored.
    match had {
        Some(before) => layout.tag(reference, &before)?,
        None => drop(layout.untag(reference)?),
    }
    Ok(vec![image.raw_configuration])
}

/// The list of step results, for a configuration.
pub(super) fn entries(cache: &Cache, layers: &[Layer], mode: Mode) -> Result<Value, Cause> {
    Ok(serde_json::to_value(chosen(cache, layers, mode))?)
}

fn chosen(cache: &Cache, layers: &[Layer], mode: Mode) -> Vec<Used> {
    let is_in = |used: &Used| used.entry.layer.as_ref().is_none_or(|layer| layers.contains(layer));
    cache.used().into_iter().filter(|used| mode == Mode::Max || is_in(used)).collect()
}

/// Exports step results to all destinations except the image itself.
pub(super) fn export(
    options: &Options,
    layout: &Layout,
    cache: &Cache,
    layers: &[Layer],
) -> Result<(), Cause> {
    for to in &options.cache_to {
        match to {
            CacheTo::Inline => {}
            CacheTo::Local(path, mode) => {
                let root = image(layout, &chosen(cache, layers, *mode))?;
                to_layout(layout, path, &root)?;
            }
            CacheTo::Registry(reference, mode) => {
                let root = image(layout, &chosen(cache, layers, *mode))?;
                let client = Client::new(registry::Options::default());
                let display = Display::new(Job::Push, options.progress != Form::Plain);
                let pushed = push::push(&client, layout, &root, reference, None, &display);
                pushed.map_err(|source| Cause::Push {
                    name: reference.canonical(),
                    source: Box::new(source),
                })?;
            }
        }
    }
    Ok(())
}

/// Makes an image of step results.
fn image(layout: &Layout, used: &[Used]) -> Result<Descriptor, Cause> {
    let mut layers: Vec<Layer> = Vec::new();
    for layer in used.iter().filter_map(|used| used.entry.layer.clone()) {
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    let platform = Platform::host();
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let configuration = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        MEMBER: used,
    });
    let config = layout.write_json(MediaType::ImageConfig, &configuration)?;
    let descriptors: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
    manifest::write(layout, config, &descriptors, &[])
}

fn to_layout(layout: &Layout, path: &Path, root: &Descriptor) -> Result<(), Cause> {
    let to = Layout::open_or_create_public(path, true)?;
    save::copy(layout, root, &to).map_err(|error| match error {
        save::Error::Layout(error) => Cause::Store(error),
        error => Cause::system("write", path)(io::Error::other(error)),
    })?;
    let latest: Reference = reference("cache").map_err(Cause::NoImage)?;
    Ok(to.name(root, &[latest])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let from = |text: &str| CacheFrom::parse(text);
        assert_eq!(from("type=local,src=x"), Ok(CacheFrom::Local("x".into())));
        assert_eq!(from("h/a"), Ok(CacheFrom::Registry("h/a:latest".parse().unwrap())));
        assert_eq!(from("type=registry,ref=h/a:1"), Ok(CacheFrom::Registry("h/a:1".parse().unwrap())));
        let to = |text: &str| CacheTo::parse(text);
        assert_eq!(to("type=inline"), Ok(CacheTo::Inline));
        assert_eq!(to("type=local,dest=x,mode=max"), Ok(CacheTo::Local("x".into(), Mode::Max)));
        assert_eq!(
            to("type=registry,ref=h/a"),
            Ok(CacheTo::Registry("h/a:latest".parse().unwrap(), Mode::Min))
        );
        for wrong in ["type=gha", "type=local", "type=local,src=x,digest=y", "type=s3,region=x", ""] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["type=gha", "type=local", "type=local,dest=x,compression=zstd", "type=inline,mode=max", "x"]
        {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }
}
