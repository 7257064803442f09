//! Makes an image of a container's changes: one more layer on the container's image, and one more entry in
//! the history.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use layer::{compression::Compression, diff};
use oci::{
    Layout, Reference,
    spec::{Descriptor, MediaType},
};
use rustix::fs::{Mode, OFlags};

use crate::{
    Built,
    cache::Layer,
    config::{Config, History, Image},
    copy::clean,
    dockerfile::{self, Instruction, Statement, expand::Expander},
    error::Cause,
    manifest, metadata,
    moment::Moment,
};

/// The container to commit, and the settings of the new image.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// `$STAVE_ROOT`, absolute.
    pub root: PathBuf,
    /// The container's upper directories, lowest first.
    pub uppers: Vec<PathBuf>,
    /// The lower directories, lowest first.
    pub lower: Vec<PathBuf>,
    /// The mount points in the container.
    pub mounted: Vec<PathBuf>,
    /// The names of the new image.
    pub tags: Vec<Reference>,
    /// The author.
    pub author: Option<String>,
    /// A description of the change.
    pub message: Option<String>,
    /// Settings that replace those of the image: `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User`,
    /// `StopSignal`, `Healthcheck`; and `ExposedPorts` and `Labels` besides the image's.
    pub run_with: Option<Config>,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// The container's command, for the history.
    pub created_by: String,
    /// The compression of the layer.
    pub compression: Compression,
    /// Whether files keep their times, up to `SOURCE_DATE_EPOCH`. By default all have the time of the image below.
    pub keep_times: bool,
    /// Whether not to wait until the image is on the disk.
    pub no_sync: bool,
}

/// The instructions that `docker commit --change` takes.
const CHANGES: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR";

/// Makes the image. `base` is the manifest of the container's image in the store.
///
/// A running container is not stopped. A file that the container is writing is taken as it is at the moment.
///
/// # Errors
/// [`Cause`]. The new image gets no name then.
pub fn commit(commit: &Commit, base: &Descriptor) -> Result<Built, Cause> {
    let layout = Layout::open(commit.root.join("images"))?.with_sync(!commit.no_sync);
    layout.keep_meanwhile(&[oci::Digest::try_from(base.digest()).map_err(oci::layout::Error::from)?])?;
    let found = layout.image(base, None)?;
    // An image with a missing layer could not be run.
    for layer in found.manifest.layers() {
        if !layout.has_blob(layer)? {
            let digest = oci::Digest::try_from(layer.digest()).map_err(oci::layout::Error::from)?;
            return Err(oci::layout::Error::NoBlob(digest).into());
        }
    }
    let mut image: Image = serde_json::from_value(found.raw_configuration)?;
    if let Some(run_with) = commit.run_with.clone() {
        image.config = run_as(image.config, run_with);
    }
    change(&mut image, &commit.changes)?;
    let mut layers: Vec<Descriptor> = found.manifest.layers().to_vec();
    let moment = Moment::of(oci::timestamp::source_date_epoch()?, image.created.as_deref());
    let layer = write_layer(commit, &layout, moment)?;
    let created = moment.text();
    image.created = Some(created.clone());
    image.author = commit.author.clone();
    image.forget_making();
    image.fit_history();
    image.history.push(History {
        created: Some(created),
        created_by: Some(commit.created_by.clone()).filter(|words| !words.is_empty()),
        empty_layer: layer.is_none(),
        other: [("author", &commit.author), ("comment", &commit.message)]
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())))
            .collect(),
    });
    if let Some(layer) = layer {
        image.rootfs.diff_ids.push(layer.diff_id.to_string());
        layers.push(layer.descriptor);
    }
    let config = layout.write_json(MediaType::ImageConfig, &image)?;
    let id = oci::Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
    let descriptor = manifest::write(&layout, config, &layers, &[])?;
    layout.name(&descriptor, &commit.tags)?;
    let mut configuration = serde_json::to_value(&image)?;
    configuration.sort_all_objects();
    Ok(Built { descriptor, configuration, id, tree: None, read: Vec::new() })
}

/// The image's settings, replaced by those of the container. A setting that a container of an earlier version does not
/// have, or that is the image's, is missing in `own`.
fn run_as(of_image: Config, own: Config) -> Config {
    let Config { entrypoint, cmd, env, working_dir, user, .. } = own;
    let stop_signal = own.stop_signal.or(of_image.stop_signal);
    let healthcheck = own.healthcheck.or(of_image.healthcheck);
    let exposed_ports = [of_image.exposed_ports, own.exposed_ports].into_iter().flatten().collect();
    let labels = [of_image.labels, own.labels].into_iter().flatten().collect();
    let mut other = of_image.other;
    other.extend(own.other.get("StopTimeout").map(|seconds| ("StopTimeout".to_owned(), seconds.clone())));
    Config {
        entrypoint,
        cmd,
        env,
        working_dir,
        user,
        stop_signal,
        healthcheck,
        exposed_ports,
        labels,
        volumes: of_image.volumes,
        on_build: of_image.on_build,
        shell: of_image.shell,
        other,
    }
}

/// Writes the container's changes as a layer. `None` if there are none.
fn write_layer(commit: &Commit, layout: &Layout, moment: Moment) -> Result<Option<Layer>, Cause> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open =
        |path: &PathBuf| rustix::fs::open(path, flags, Mode::empty()).map_err(Cause::system("open", path));
    let opened = commit.uppers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let uppers: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    let without: BTreeSet<Vec<u8>> =
        diff::stubs(&uppers, &commit.lower, &commit.mounted).map_err(Cause::Diff)?;
    let options = diff::Options {
        compression: commit.compression,
        lower: commit.lower.clone(),
        without,
        newest: moment.newest(),
        all: moment.all().filter(|_| !commit.keep_times),
    };
    let mut writer = layout.writer()?;
    let summary = diff::uppers(&uppers, &mut writer, &options).map_err(Cause::Diff)?;
    if summary.entries == 0 {
        return Ok(None);
    }
    let descriptor = writer.commit_as(summary.media_type.into())?;
    Ok(Some(Layer { descriptor, diff_id: summary.diff_id }))
}

/// Applies the instructions. An ENTRYPOINT removes the CMD of the image, but not the CMD of an earlier
/// instruction in `changes`. Returns the instructions.
pub(crate) fn change(image: &mut Image, changes: &[String]) -> Result<Vec<Statement>, Cause> {
    let (mut command_is_set, mut statements) = (false, Vec::new());
    for text in changes {
        let failed = |problem: String| Cause::Change { text: text.clone(), problem };
        let statement = dockerfile::parse_trigger(text).map_err(|error| failed(error.message))?;
        let before = image.config.clone();
        let lookup = |name: &str| before.variable(name).map(str::to_owned);
        let expander = Expander::new('\\', &lookup);
        let known = |instruction: &Instruction| {
            !matches!(instruction, Instruction::Shell(_) | Instruction::Maintainer(_))
        };
        if let Instruction::Workdir(path) = &statement.instruction {
            let path = expander.word(path).map_err(|error| failed(error.to_string()))?;
            let path = clean(&image.config.working_dir, &path);
            image.config.working_dir = Path::new("/").join(path).to_string_lossy().into_owned();
            statements.push(statement);
            continue;
        }
        command_is_set |= matches!(statement.instruction, Instruction::Cmd(_));
        let changed = metadata::change(&statement.instruction, image, &expander, command_is_set)
            .map_err(|error| failed(error.to_string()))?;
        match changed.filter(|_| known(&statement.instruction)) {
            Some(changed) => changed.apply(image),
            None => return Err(failed(format!("not an instruction that changes an image: {CHANGES}"))),
        }
        statements.push(statement);
    }
    Ok(statements)
}
