//! Copies an image from one place to another. Between two registries nothing is stored. Any other copy goes
//! through an OCI layout: the store, the named directory, or a temporary one.

use std::path::{Path, PathBuf};

use oci::{
    Digest, Layout, Reference,
    load::Input,
    save::{self, Format, Named},
    spec::Descriptor,
};
use registry::{
    Client, Display,
    display::Job,
    pull::{self, Wanted},
    push::{self, Pushed},
};
use remote::Admission;
use serde_json::{Value, json};
use tempfile::TempDir;
use toolkit::prelude::*;

use super::{Copy, place::Place};

/// An image in a layout. A temporary layout is removed when this is dropped.
struct Standing {
    layout: Layout,
    image: Descriptor,
    _temporary: Option<TempDir>,
}

/// Copies the image, and reports what the destination then has.
pub(crate) fn run(copy: &Copy, context: &Context) -> Result<Value> {
    let ends = Ends { copy, context };
    ends.hold_destination()?;
    let pushed = match (&copy.source, &copy.destination) {
        (Place::Registry(source), Place::Registry(destination)) => {
            ends.between_registries(source, destination)?
        }
        (Place::Registry(source), destination) => ends.pull(source, destination)?,
        (source, destination) => ends.put(&ends.stand(source)?, destination)?,
    };
    let mut report = json!({
        "source": copy.source.to_string(),
        "destination": copy.destination.to_string(),
        "digest": pushed.digest,
        "size": pushed.descriptor.size(),
        "mediaType": pushed.descriptor.media_type(),
    });
    if let Place::Registry(_) = copy.destination {
        report["sent"] = json!(pushed.sent);
        report["existing"] = json!(pushed.existing);
        report["mounted"] = json!(pushed.mounted);
    }
    Ok(report)
}

struct Ends<'a> {
    copy: &'a Copy,
    context: &'a Context,
}

impl Ends<'_> {
    /// Rejects a bad destination before anything is transferred.
    fn hold_destination(&self) -> Result<()> {
        if let Place::Archive(Format::Docker, path, _) = &self.copy.destination
            && std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
        {
            // skopeo refuses this too. A user may expect that the image is added.
            let error = anyhow!("write {path:?}: File exists");
            return Err(hint(
                error,
                "remove the file first, or name another one: an existing archive is not extended",
            ));
        }
        match (&self.copy.source, &self.copy.destination) {
            (Place::Registry(_), Place::Registry(_)) if self.copy.transfer.reach.creds.is_some() => {
                Err(hint(
                    anyhow!("--creds would give the password to both registries"),
                    "use --src-creds or --dest-creds",
                ))
            }
            (_, Place::Store(name) | Place::Archive(_, _, Some(name))) => {
                Ok(name.parse::<Reference>().map(drop)?)
            }
            _ => Ok(()),
        }
    }

    fn source_client(&self) -> Client {
        self.copy
            .transfer
            .towards(self.copy.src_creds.as_ref(), self.copy.src_tls_verify)
            .client(&[], &self.copy.admission)
    }

    fn destination_client(&self) -> Client {
        self.copy
            .transfer
            .towards(self.copy.dest_creds.as_ref(), self.copy.dest_tls_verify)
            .client(&[], &Admission::default())
    }

    fn images(&self) -> PathBuf {
        self.context.scope.root.join("images")
    }

    fn between_registries(&self, source: &Reference, destination: &Reference) -> Result<Pushed> {
        let (from, to) = (self.source_client(), self.destination_client());
        let display = Display::new(Job::Push, self.context.quiet);
        let platform = self.copy.platform.as_ref();
        registry::copy::copy((&from, source), (&to, destination), platform, &display).map_err(|error| {
            let host =
                if error.is_from(source.registry()) { source.registry() } else { destination.registry() };
            remote::hinted(error, host)
        })
    }

    /// Pulls from a registry into the destination's layout, or into a temporary layout that becomes an
    /// archive.
    fn pull(&self, source: &Reference, destination: &Place) -> Result<Pushed> {
        let synced = self.copy.writing.is_synced()?;
        let (layout, temporary) = match destination {
            Place::Store(_) => (Layout::open_or_create_with(self.images(), synced)?, None),
            Place::Layout(path, _) => (Layout::open_or_create_public(path, synced)?, None),
            Place::Archive(..) | Place::Registry(_) => {
                let directory = temporary()?;
                (Layout::open_or_create_with(directory.path(), false)?, Some(directory))
            }
        };
        let client = self.source_client();
        let display = Display::new(Job::Pull, self.context.quiet);
        let wanted = match &self.copy.platform {
            Some(platform) => Wanted::Platforms(vec![platform.clone()]),
            None => Wanted::All,
        };
        let hinted = |error| remote::hinted(error, source.registry());
        let pull = pull::begin(&client, &layout, source, &wanted, &display).map_err(hinted)?;
        let image = match &self.copy.platform {
            Some(platform) => layout.image(&pull.descriptor, Some(platform))?.descriptor,
            None => pull.descriptor.clone(),
        };
        pull.fetch_unnamed(|_| Ok::<_, registry::Error>(())).map_err(hinted)?;
        self.put(&Standing { layout, image, _temporary: temporary }, destination)
    }

    /// Finds the image at a place that is not a registry.
    fn stand(&self, source: &Place) -> Result<Standing> {
        let (layout, found, temporary) = match source {
            Place::Registry(_) => bail!("an image in a registry has no path"),
            Place::Store(image) => {
                let layout = Layout::look(self.images())?;
                let found = layout.find(image)?;
                layout.keep_while_reading(&found);
                (layout, found, None)
            }
            Place::Layout(path, name) => {
                let layout = Layout::open_foreign(path)?;
                let found = find(&layout, path, name.as_deref())?;
                (layout, found, None)
            }
            Place::Archive(_, path, name) => {
                let directory = temporary()?;
                let layout = Layout::open_or_create_with(directory.path(), false)?;
                Input::open(path)?.read(&layout, self.copy.platform.as_ref())?.commit(None)?;
                let found = find(&layout, path, name.as_deref())?;
                (layout, found, Some(directory))
            }
        };
        let image = match &self.copy.platform {
            Some(platform) => layout.image(&found, Some(platform))?.descriptor,
            None => found,
        };
        Ok(Standing { layout, image, _temporary: temporary })
    }

    /// Makes sure that the whole image is there. A part of it under the same digest would look complete.
    fn hold_whole(&self, layout: &Layout, image: &Descriptor) -> Result<()> {
        let missing = push::missing(layout, image)?;
        if missing.is_empty() {
            return Ok(());
        }
        let source = &self.copy.source;
        Err(hint(
            anyhow!("copy {source}: {} is not there", missing.join(", ")),
            "`img-pull --all-platforms` fetches the rest; --platform copies the image for only one platform",
        ))
    }

    /// Copies from a layout to the destination.
    fn put(&self, standing: &Standing, destination: &Place) -> Result<Pushed> {
        let Standing { layout, image, .. } = standing;
        let synced = self.copy.writing.is_synced()?;
        if !matches!(destination, Place::Registry(_)) {
            self.hold_whole(layout, image)?;
        }
        match destination {
            Place::Registry(name) => {
                let display = Display::new(Job::Push, self.context.quiet);
                return push::push(&self.destination_client(), layout, image, name, None, &display)
                    .map_err(|error| remote::hinted(error, name.registry()));
            }
            Place::Store(name) => {
                let target = Layout::open_or_create_with(self.images(), synced)?;
                let name: Reference = name.parse()?;
                into(layout, image, &target)?;
                target.tag(&name, image)?;
            }
            Place::Layout(path, name) => {
                let write = || -> Result<()> {
                    let target = Layout::open_or_create_public(path, synced)?;
                    into(layout, image, &target)?;
                    let mut edit = target.edit()?;
                    match name {
                        Some(name) => edit.name_as(image, name)?,
                        None => edit.name(image, &[])?,
                    }
                    Ok(edit.commit()?)
                };
                write().map_err(not_of_store)?;
            }
            Place::Archive(format, path, name) => {
                let references =
                    name.iter().map(|name| name.parse()).collect::<Result<Vec<Reference>, _>>()?;
                let images = [Named { references, descriptor: image.clone() }];
                let write =
                    |target: &mut dyn std::io::Write| Ok(save::save(layout, &images, *format, None, target)?);
                toolkit::write_output(path, "archive", synced, |target| write(target))?;
            }
        }
        let digest = Digest::try_from(image.digest())?;
        Ok(Pushed { descriptor: image.clone(), digest, sent: 0, existing: 0, mounted: 0 })
    }
}

/// Finds the image with this name. Without a name, it must be the only image.
fn find(layout: &Layout, path: &Path, name: Option<&str>) -> Result<Descriptor> {
    let Some(name) = name else {
        let mut images: Vec<Descriptor> = Vec::new();
        for entry in layout.list()? {
            if !images.iter().any(|other| other.digest() == entry.descriptor.digest()) {
                images.push(entry.descriptor);
            }
        }
        return match &images[..] {
            [only] => Ok(only.clone()),
            [] => bail!("{} has no image", path.display()),
            several => Err(hint(
                anyhow!("{} has {} images", path.display(), several.len()),
                "add :NAME to say which one",
            )),
        };
    };
    match layout.named(name)? {
        Some(found) => Ok(found),
        None => layout.resolve(name)?.ok_or_else(|| anyhow!("{} has no image {name:?}", path.display())),
    }
}

fn into(layout: &Layout, image: &Descriptor, target: &Layout) -> Result<()> {
    match layout.path() == target.path() {
        true => Ok(()),
        false => Ok(save::copy(layout, image, target)?),
    }
}

/// The error without the hint for the image store, if there is no room: the destination is elsewhere.
fn not_of_store(error: anyhow::Error) -> anyhow::Error {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = operation::errno_of(&*error).map(|errno| std::io::Error::from(errno).kind());
    match kind {
        Some(StorageFull | QuotaExceeded | ReadOnlyFilesystem) => anyhow!("{error}"),
        _ => error,
    }
}

fn temporary() -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("img-copy-").tempdir();
    made.map_err(|error| anyhow!("make a temporary directory: {error}"))
}
