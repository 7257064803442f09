//! The layers of a build on disk: they are unpacked, mounted on top of each other, and made of the changes of
//! steps.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use oci::{Layout, Platform};
use rustix::fs::{Mode, OFlags};

use super::{Options, Pull, images::Images};
use crate::{
    cache::{Layer, chain_id},
    config::Image,
    error::Cause,
    moment::Moment,
    progress::Form,
    workspace::{StepDirectories, Workspace},
};

/// The image store and the unpacked layers, as a build uses them.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    pub(super) images: Images,
    workspace: OnceCell<Workspace>,
    isolated: Cell<bool>,
    /// The options for unpacking layers.
    options: layer::apply::Options,
    /// The directories of layers, by the ChainID of a layer and those below.
    known: RefCell<HashMap<String, PathBuf>>,
}

/// A mounted file system. It is unmounted when this value is dropped.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) directories: StepDirectories,
    /// The mount point.
    pub(super) rootfs: PathBuf,
    /// The directory of the topmost lower layer.
    below: Option<PathBuf>,
    attached: bool,
}

impl Mounted {
    /// Opens the root directory.
    pub(super) fn open(&self) -> Result<OwnedFd, Cause> {
        open_directory(&self.rootfs)
    }

    fn unmount(&mut self) -> Result<(), Cause> {
        if std::mem::replace(&mut self.attached, false) {
            mount::unmount(&self.rootfs)?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The mount namespace ends with the build, so nothing can be left.
        let _ = self.unmount();
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Cause> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Cause::system("open", path))
}

impl Store {
    /// The store below `$STAVE_ROOT`.
    pub(super) fn open(options: &Options) -> Result<Self, Cause> {
        let layout = Layout::open_or_create_with(options.root.join("images"), !options.no_sync)?;
        let images = Images::new(layout, options.pull, options.progress != Form::Plain, &options.contexts);
        Ok(Self::new(&options.root, images, options.rootless))
    }

    /// As [`Store::open`], for a build that only looks. Nothing is written to the store.
    pub(super) fn look(options: &Options) -> Result<Self, Cause> {
        let layout = Layout::look(options.root.join("images"))?;
        let images = Images::new(layout, Pull::Never, true, &options.contexts).looking();
        Ok(Self::new(&options.root, images, false))
    }

    fn new(root: &Path, images: Images, rootless: bool) -> Self {
        Self {
            root: root.to_owned(),
            images,
            workspace: OnceCell::new(),
            isolated: Cell::new(false),
            options: layer::apply::Options { rootless, ..Default::default() },
            known: RefCell::default(),
        }
    }

    /// The ONBUILD instructions of an image. Empty if the image is missing; the stage that needs it reports
    /// that.
    pub(super) fn triggers(&self, name: &str, platform: Option<&Platform>) -> Vec<String> {
        let image = self.images.peek(name, platform);
        let image = image.and_then(|image| serde_json::from_value::<Image>(image.raw_configuration).ok());
        image.map(|image| image.config.on_build).unwrap_or_default()
    }

    /// The directory of the build. It is made when it is first needed.
    pub(super) fn workspace(&self) -> Result<&Workspace, Cause> {
        if self.workspace.get().is_none() {
            let _ = self.workspace.set(Workspace::new(&self.root)?);
        }
        self.workspace.get().ok_or_else(|| Cause::System {
            verb: "create",
            path: self.root.join("build"),
            source: std::io::ErrorKind::Other.into(),
        })
    }

    /// Called in a forked process: the parent's directory and mounts stay the parent's.
    pub(super) fn renew(&mut self) {
        if let Some(workspace) = self.workspace.take() {
            std::mem::forget(workspace);
        }
        self.isolated.set(false);
    }

    /// Removes the directory of the build.
    pub(super) fn end(&mut self) {
        drop(self.workspace.take());
    }

    /// Moves the build to its own mount namespace, so that its mounts end with it in any case.
    pub(super) fn isolate(&self) -> Result<(), Cause> {
        if self.isolated.replace(true) {
            return Ok(());
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(|errno| {
            Cause::system("create mount namespace for", &self.root)(std::io::Error::from(errno))
        })?;
        use rustix::mount::MountPropagationFlags;
        mount::propagate(Path::new("/"), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(())
    }

    /// The directories of layers, lowest first. Layers that are not unpacked yet are unpacked.
    fn directories(&self, layers: &[Layer]) -> Result<Vec<PathBuf>, Cause> {
        let mut directories: Vec<PathBuf> = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            // An unpacked layer may depend on the layers below it.
            let chain = chain_id(&layers[..=at]);
            let known = self.known.borrow().get(&chain).cloned();
            let directory = match known {
                Some(directory) => directory,
                None => self.unpack(layer, &directories)?,
            };
            self.known.borrow_mut().insert(chain, directory.clone());
            directories.push(directory);
        }
        Ok(directories)
    }

    fn unpack(&self, layer: &Layer, below: &[PathBuf]) -> Result<PathBuf, Cause> {
        let diff_id = &layer.diff_id;
        let failed = |source: layer::apply::Error| Cause::Unpack {
            diff_id: diff_id.clone(),
            source: Box::new(source),
        };
        let below = layer::apply::Below::open(below)
            .map_err(Cause::system("open layers below", &self.root.join("layers")))?;
        let blob = || self.images.layout.blob_reader(&layer.descriptor).map_err(std::io::Error::other);
        let standing = self.layers()?.apply(diff_id, blob, &below, &self.options).map_err(failed)?;
        Ok(standing.place.path().to_owned())
    }

    /// Opens the store of unpacked layers.
    fn layers(&self) -> Result<layer::store::Store, Cause> {
        layer::store::Store::open(&self.root).map_err(Cause::Layers)
    }

    /// Mounts layers with a writable layer on top.
    pub(super) fn writable(&self, layers: &[Layer]) -> Result<Mounted, Cause> {
        // While this directory exists, nobody removes layers.
        let directories = self.workspace()?.step()?;
        let lower = self.directories(layers)?;
        // The merged root directory has the attributes of the upper one, so copy those of the layer below.
        let below = lower.last().cloned();
        if let Some(below) = &below {
            copy_root(below, &directories.upper)?;
        } else {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&directories.upper, mode)
                .map_err(Cause::system("change mode of", &directories.upper))?;
        }
        let mut mounted = Mounted { rootfs: directories.rootfs.clone(), directories, below, attached: false };
        self.mount(&mut mounted, lower, true)?;
        Ok(mounted)
    }

    /// Mounts layers read-only. A single layer is mounted as well, because its directory contains marks of
    /// overlayfs that are not files.
    pub(super) fn readable(&self, layers: &[Layer]) -> Result<Mounted, Cause> {
        let directories = self.workspace()?.step()?;
        let mut lower = self.directories(layers)?;
        let mut mounted =
            Mounted { rootfs: directories.rootfs.clone(), directories, below: None, attached: false };
        if lower.len() == 1 {
            // Without a writable layer, overlayfs needs at least two layers.
            lower.insert(0, mounted.directories.empty.clone());
        }
        if !lower.is_empty() {
            self.mount(&mut mounted, lower, false)?;
        }
        Ok(mounted)
    }

    fn mount(&self, mounted: &mut Mounted, lower: Vec<PathBuf>, writable: bool) -> Result<(), Cause> {
        self.isolate()?;
        let namespace = userns::Namespace::current()?;
        let StepDirectories { upper, work, empty, rootfs } = &mounted.directories;
        let overlay = mount::Overlay {
            source: "stave:build".to_owned(),
            lower: if lower.is_empty() { vec![empty.clone()] } else { lower },
            upper: writable.then(|| upper.clone()),
            work: writable.then(|| work.clone()),
            boot: None,
            target: rootfs.clone(),
            readonly: !writable,
            durable: false,
            userxattr: namespace.is_some(),
            xino: false,
            owner: None,
            nosuid: false,
            newest: None,
        };
        overlay.mount()?;
        mounted.attached = true;
        Ok(())
    }

    /// As [`Store::commit`], but first removes the mount points that were made for the command.
    pub(super) fn commit_without(
        &self,
        mut mounted: Mounted,
        stubs: &super::stubs::Stubs,
        moment: Moment,
    ) -> Result<Layer, Cause> {
        mounted.unmount()?;
        stubs.remove(&open_directory(&mounted.directories.upper)?);
        self.commit(mounted, moment, None)
    }

    /// Makes a layer of the changes: its blob and its directory. All files get the time of `moment`. With
    /// `since`, only directories that changed since then get it.
    pub(super) fn commit(
        &self,
        mounted: Mounted,
        moment: Moment,
        since: Option<i64>,
    ) -> Result<Layer, Cause> {
        let (layer, mounted) = self.write(mounted, moment, since)?;
        self.layers()?.adopt(&mounted.directories.upper, &layer.diff_id).map_err(Cause::Layers)?;
        Ok(layer)
    }

    /// As [`Store::commit`], for a layer that was made on nothing. It is unpacked again where it is used,
    /// because its root directory must match the layers below.
    pub(super) fn commit_alone(
        &self,
        mounted: Mounted,
        moment: Moment,
        since: Option<i64>,
    ) -> Result<Layer, Cause> {
        self.write(mounted, moment, since).map(|(layer, _)| layer)
    }

    /// Writes the changes as a blob.
    fn write(
        &self,
        mut mounted: Mounted,
        moment: Moment,
        since: Option<i64>,
    ) -> Result<(Layer, Mounted), Cause> {
        mounted.unmount()?;
        let upper = &mounted.directories.upper;
        moment.settle(upper, since)?;
        let directory = open_readable(upper)?;
        let mut writer = self.images.layout.writer()?;
        let options =
            layer::diff::Options { lower: mounted.below.clone().into_iter().collect(), ..Default::default() };
        let summary = layer::diff::upper(std::os::fd::AsFd::as_fd(&directory), &mut writer, &options)
            .map_err(Cause::Diff)?;
        let descriptor = writer.commit_as(summary.media_type.into())?;
        Ok((Layer { descriptor, diff_id: summary.diff_id }, mounted))
    }
}

impl Store {
    /// Makes one layer with the difference between the first `below` layers and all layers.
    pub(super) fn difference(&self, layers: &[Layer], below: usize, moment: Moment) -> Result<Layer, Cause> {
        let (lower, upper) = (self.readable(&layers[..below])?, self.readable(layers)?);
        let mut writer = self.images.layout.writer()?;
        let options =
            layer::diff::Options { newest: moment.newest(), all: moment.all(), ..Default::default() };
        let (lower, upper) = (open_readable(&lower.rootfs)?, open_readable(&upper.rootfs)?);
        use std::os::fd::AsFd;
        let summary =
            layer::diff::trees(lower.as_fd(), upper.as_fd(), &mut writer, &options).map_err(Cause::Diff)?;
        let descriptor = writer.commit_as(summary.media_type.into())?;
        Ok(Layer { descriptor, diff_id: summary.diff_id })
    }
}

pub(super) fn open_readable(path: &Path) -> Result<OwnedFd, Cause> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Cause::system("open", path))
}

/// Copies owner, mode and times from one directory to another.
fn copy_root(from: &Path, to: &Path) -> Result<(), Cause> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(from).map_err(Cause::system("stat", from))?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()))
        .map_err(Cause::system("change owner of", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .map_err(Cause::system("change mode of", to))?;
    let modified = metadata.modified().map_err(Cause::system("stat", from))?;
    let times = fs::FileTimes::new().set_modified(modified);
    fs::File::open(to).and_then(|file| file.set_times(times)).map_err(Cause::system("set times of", to))
}
