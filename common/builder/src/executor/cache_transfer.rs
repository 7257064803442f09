//! `--cache-from` and `--cache-to`: exchanges step results with other machines. The results travel as an
//! image: its layers are those of the results, and its configuration lists the results. So every registry and
//! every OCI layout can hold them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use oci::{
    Digest, Layout, Platform, Reference,
    load::Found,
    save,
    spec::{Descriptor, MediaType},
};
use operation::quantity::truth;
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
    /// An OCI layout, and which of its images.
    Local(PathBuf, Which),
}

/// Which images of an OCI layout have the step results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    #[default]
    All,
    /// Those with this tag.
    Tag(String),
    /// That of this digest.
    Digest(Digest),
}

impl Which {
    fn has(&self, found: &Found) -> bool {
        match self {
            Self::All => true,
            Self::Tag(tag) => found.references.iter().any(|name| name.tag() == Some(tag)),
            Self::Digest(digest) => found.descriptor.digest().to_string() == digest.to_string(),
        }
    }
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
    /// An image in a registry, or in an OCI layout.
    Image {
        /// Where the image is written.
        place: Place,
        /// Which results it has.
        mode: Mode,
        /// `ignore-error`: whether the build goes on if it cannot be written.
        ignores_errors: bool,
    },
    /// The image that is built.
    Inline,
}

/// Where an image of step results is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A registry.
    Registry(Reference),
    /// An OCI layout, and the name of the image there.
    Local(PathBuf, Reference),
}

/// Splits a value such as `type=local,dest=x` into its fields. A name alone is that of an image in a registry.
fn fields(text: &str) -> Vec<(&str, &str)> {
    match text.contains(['=', ',']) || text.is_empty() {
        true => text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect(),
        false => vec![("type", "registry"), ("ref", text)],
    }
}

fn kind<'a>(fields: &[(&'a str, &'a str)]) -> &'a str {
    fields.iter().find(|(name, _)| *name == "type").map_or("", |(_, value)| value)
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse::<Reference>().map(Reference::pinned).map_err(|error| format!("{text:?}: {error}"))
}

/// Refuses the services that only BuildKit knows.
fn no_service(kind: &str) -> Result<(), String> {
    match kind {
        "gha" | "s3" | "azblob" => {
            Err(format!("type={kind} is not carried out: a cache is in a registry or a directory"))
        }
        _ => Ok(()),
    }
}

/// Why a setting is refused.
fn refused(kind: &str, name: &str, value: &str) -> String {
    let why = match name {
        "compression" | "compression-level" | "force-compression" => "layers are kept as gzip",
        "oci-mediatypes" | "image-manifest" => "a cache is an image of OCI",
        "reset" => "remove the directory before the build",
        _ => return format!("{name:?} is not carried out for type={kind}"),
    };
    format!("{name}={value} is not carried out: {why}")
}

impl CacheFrom {
    /// Parses `NAME`, `type=registry,ref=NAME` or `type=local,src=DIR`, this also with `tag=TAG` or `digest=DIGEST`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = fields(text);
        let (kind, mut place, mut which) = (kind(&fields), None, Which::All);
        no_service(kind)?;
        for (name, value) in &fields {
            match (kind, *name) {
                (_, "type") => {}
                ("registry", "ref") | ("local", "src") => place = Some(*value),
                ("local", "tag") => which = Which::Tag((*value).to_owned()),
                ("local", "digest") => {
                    which = Which::Digest(value.parse().map_err(|error| format!("{value:?}: {error}"))?);
                }
                _ => return Err(refused(kind, name, value)),
            }
        }
        match (kind, place) {
            ("registry", Some(name)) => Ok(Self::Registry(reference(name)?)),
            ("local", Some(path)) => Ok(Self::Local(path.into(), which)),
            _ => Err("it is NAME, type=registry,ref=NAME or type=local,src=DIR".to_owned()),
        }
    }
}

impl CacheTo {
    /// Parses `type=inline`; or `NAME`, `type=registry,ref=NAME` or `type=local,dest=DIR`, these also with `mode=min|max`
    /// and `ignore-error=true`, and the last with `tag=TAG`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = fields(text);
        let (kind, mut place, mut mode) = (kind(&fields), None, Mode::Min);
        no_service(kind)?;
        let (mut ignores_errors, mut tag) = (false, "latest");
        for (name, value) in &fields {
            let is = |wanted: bool| truth(value) == Some(wanted);
            match (kind, *name, *value) {
                (_, "type", _) => {}
                ("registry", "ref", value) | ("local", "dest", value) => place = Some(value),
                ("registry" | "local", "mode", "min") => mode = Mode::Min,
                ("registry" | "local", "mode", "max") => mode = Mode::Max,
                ("registry" | "local", "ignore-error", value) => {
                    ignores_errors = truth(value)
                        .ok_or_else(|| format!("ignore-error={value} is neither true nor false"))?;
                }
                ("local", "tag", value) => tag = value,
                // These values ask for what is done anyway.
                ("registry" | "local", "oci-mediatypes" | "image-manifest", _) if is(true) => {}
                ("registry" | "local", "force-compression", _) | ("local", "reset", _) if is(false) => {}
                ("registry" | "local", "compression", "gzip") => {}
                _ => return Err(refused(kind, name, value)),
            }
        }
        let place = match (kind, place) {
            ("inline", None) => return Ok(Self::Inline),
            ("registry", Some(name)) => Place::Registry(reference(name)?),
            ("local", Some(path)) => Place::Local(path.into(), reference(&format!("cache:{tag}"))?),
            _ => return Err("it is type=inline, type=registry,ref=NAME or type=local,dest=DIR".to_owned()),
        };
        Ok(Self::Image { place, mode, ignores_errors })
    }
}

/// Imports step results. If a source has none, prints a warning and continues.
pub(super) fn import(options: &Options, store: &Store, cache: &Cache) -> Result<(), Cause> {
    for from in &options.cache_from {
        let layout = &store.images.layout;
        let taken = match from {
            CacheFrom::Local(path, which) => of_layout(layout, path, which),
            CacheFrom::Registry(reference) => of_registry(layout, reference, options),
        };
        let configurations = match taken {
            Ok(configurations) => configurations,
            Err(cause) => {
                let name = match from {
                    CacheFrom::Local(path, _) => path.display().to_string(),
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

fn of_layout(layout: &Layout, path: &Path, which: &Which) -> Result<Vec<Value>, Cause> {
    let failed = |source| Cause::Layout { path: path.to_owned(), source };
    let mut intake =
        oci::load::Input::open(path).and_then(|input| input.read(layout, None)).map_err(failed)?;
    let wanted: Vec<Descriptor> = intake
        .images()
        .iter()
        .filter(|found| which.has(found))
        .map(|found| found.descriptor.clone())
        .collect();
    if wanted.is_empty() && *which != Which::All {
        return Err(Cause::NoCacheOf);
    }
    intake.forget_names();
    let found = intake.commit(None).map_err(failed)?;
    let found = found.iter().filter(|image| wanted.contains(&image.descriptor));
    found.map(|image| Ok(layout.image(&image.descriptor, None)?.raw_configuration)).collect()
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
pub(super) fn entries(cache: &Cache, layers: &[Layer]) -> Result<Value, Cause> {
    Ok(serde_json::to_value(chosen(cache, layers, Mode::Min))?)
}

fn chosen(cache: &Cache, layers: &[Layer], mode: Mode) -> Vec<Used> {
    let is_in = |used: &Used| used.entry.layer.as_ref().is_none_or(|layer| layers.contains(layer));
    cache.used().into_iter().filter(|used| mode == Mode::Max || is_in(used)).collect()
}

/// The step results for each destination of the options. Those of several builds may be exported together.
#[derive(Debug, Default)]
pub(super) struct Results(Vec<Vec<Used>>);

impl Results {
    /// The results of a build whose image has these layers.
    pub(super) fn of(options: &Options, cache: &Cache, layers: &[Layer]) -> Self {
        let each = options.cache_to.iter().map(|to| match to {
            CacheTo::Inline => Vec::new(),
            CacheTo::Image { mode, .. } => chosen(cache, layers, *mode),
        });
        Self(each.collect())
    }

    /// Adds the results of another build with the same destinations.
    pub(super) fn add(&mut self, other: Self) {
        self.0.resize_with(other.0.len().max(self.0.len()), Vec::new);
        for (own, used) in self.0.iter_mut().zip(other.0) {
            for used in used {
                if !own.contains(&used) {
                    own.push(used);
                }
            }
        }
    }

    /// Exports the results to all destinations except the image itself.
    pub(super) fn export(&self, options: &Options, layout: &Layout) -> Result<(), Cause> {
        for (to, used) in options.cache_to.iter().zip(&self.0) {
            let CacheTo::Image { place, ignores_errors, .. } = to else { continue };
            match image(layout, used).and_then(|root| place.write(&root, options, layout)) {
                Err(cause) if *ignores_errors => {
                    operation::note(&format!("warning: no cache to {place}: {cause}"))
                }
                written => written?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.canonical()),
            Self::Local(path, _) => path.display().fmt(f),
        }
    }
}

impl Place {
    fn write(&self, root: &Descriptor, options: &Options, layout: &Layout) -> Result<(), Cause> {
        let reference = match self {
            Self::Local(path, name) => return to_layout(layout, path, name, root),
            Self::Registry(reference) => reference,
        };
        let client = Client::new(registry::Options::default());
        let display = Display::new(Job::Push, options.progress != Form::Plain);
        let pushed = push::push(&client, layout, root, reference, None, &display);
        pushed.map_err(|source| Cause::Push { name: reference.canonical(), source: Box::new(source) })?;
        Ok(())
    }
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

fn to_layout(layout: &Layout, path: &Path, name: &Reference, root: &Descriptor) -> Result<(), Cause> {
    let to = Layout::open_or_create_public(path, true)?;
    save::copy(layout, root, &to).map_err(|error| match error {
        save::Error::Layout(error) => Cause::Store(error),
        error => Cause::system("write", path)(io::Error::other(error)),
    })?;
    Ok(to.name(root, std::slice::from_ref(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let from = |text: &str| CacheFrom::parse(text);
        let local = |which| Ok(CacheFrom::Local("x".into(), which));
        assert_eq!(from("type=local,src=x"), local(Which::All));
        assert_eq!(from("type=local,src=x,tag=a"), local(Which::Tag("a".into())));
        let digest = Digest::of(b"x");
        assert_eq!(from(&format!("type=local,src=x,digest={digest}")), local(Which::Digest(digest)));
        assert_eq!(from("h/a"), Ok(CacheFrom::Registry("h/a:latest".parse().unwrap())));
        assert_eq!(from("type=registry,ref=h/a:1"), Ok(CacheFrom::Registry("h/a:1".parse().unwrap())));
        for wrong in ["type=gha", "type=local", "type=local,src=x,digest=y", "type=s3,region=x", ""] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
        let to = |text: &str| CacheTo::parse(text);
        let image = |place, mode, ignores_errors| Ok(CacheTo::Image { place, mode, ignores_errors });
        let place = |tag: &str| Place::Local("x".into(), format!("cache:{tag}").parse().unwrap());
        assert_eq!(to("type=inline"), Ok(CacheTo::Inline));
        assert_eq!(to("type=local,dest=x,mode=max"), image(place("latest"), Mode::Max, false));
        assert_eq!(to("type=local,dest=x,tag=a,ignore-error=true"), image(place("a"), Mode::Min, true));
        let service = "type=gha is not carried out: a cache is in a registry or a directory";
        assert_eq!(to("type=gha,mode=max"), Err(service.to_owned()));
        assert_eq!(from("type=gha"), Err(service.to_owned()));
        let registry = Place::Registry("h/a:latest".parse().unwrap());
        assert_eq!(
            to("type=local,dest=x,compression=gzip,reset=true"),
            Err("reset=true is not carried out: remove the directory before the build".to_owned())
        );
        assert_eq!(to("type=registry,ref=h/a"), image(registry.clone(), Mode::Min, false));
        assert_eq!(to("h/a"), image(registry, Mode::Min, false));
        for wrong in [
            "type=gha",
            "type=local",
            "type=local,dest=x,compression=zstd",
            "type=local,dest=x,image-manifest=false",
            "type=local,dest=x,ignore-error=maybe",
            "type=inline,mode=max",
            "",
        ] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }
}
