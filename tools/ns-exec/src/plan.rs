//! What is going to be done.

use std::path::{Path, PathBuf};

use document::{
    Document,
    members::{Hosts, Image, Process, Rootfs},
};
use mount::Volume;
use operation::any_of;
use runtime::{
    Identity,
    spec::{Overrides, from_image, order, run_with},
};
use toolkit::prelude::*;

use crate::{
    arguments::NsExec,
    files::{Content, File},
    network::{self, Network},
};

any_of! {
    /// Files of the container in `$STAVE_RUN`, and at last its process.
    pub(crate) enum ContainerOperation { Mount(mount::MountOperation), Process(runtime::ProcessOperation) }
}

pub(crate) fn plan(
    tool: &NsExec,
    context: &Context,
    document: &Document,
) -> Result<(Process, Vec<ContainerOperation>)> {
    let (rootfs, readonly) = root(tool, document)?;
    let Network { network, hostname, files } = network::choose(tool, context, document)?;
    // A directory that somebody else keeps is used as it is.
    let files = if tool.rootfs.is_some() { Vec::new() } else { files };
    let (mut operations, files) = place(context, files);
    let image: Option<Image> = document.get()?;
    let config = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let overrides = Overrides {
        rootfs,
        readonly,
        entrypoint: tool
            .entrypoint
            .clone()
            .map(|program| if program.is_empty() { vec![] } else { vec![program] }),
        args: tool.command.clone(),
        links: document.get::<Hosts>()?.unwrap_or_default().environment,
        env: tool.variables(),
        cwd: tool.workdir.clone(),
        user: tool.user.clone(),
        hostname,
        network,
        terminal: tool.tty,
        no_new_privileges: tool.no_new_privs,
        cap_add: tool.cap_add.clone(),
        cap_drop: tool.cap_drop.clone(),
        privileged: tool.privileged,
        volumes: volumes(tool, files)?,
    };
    let spec = from_image(config, &overrides)?;
    let own = run_with(config, &Overrides::default());
    let changed = Some(run_with(config, &overrides)).filter(|run| *run != own);
    let log = log(tool, context, &mut operations)?;
    let member = Process {
        pid: 0,
        start_time: 0,
        exit_status: None,
        log: log.clone(),
        spec: spec.process().as_ref().map(order::process).transpose()?.unwrap_or_default(),
        config: changed.map(serde_json::to_value).transpose()?,
    };
    operations.push(runtime::ProcessOperation::new(spec, log).into());
    Ok((member, operations))
}

/// The root file system, and whether it is to be read only.
fn root(tool: &NsExec, document: &Document) -> Result<(PathBuf, bool)> {
    let (path, readonly) = match &tool.rootfs {
        Some(path) => (path.clone(), false),
        None => {
            let rootfs: Rootfs = document.require()?;
            (rootfs.path, rootfs.readonly)
        }
    };
    let path = path.canonicalize().with_context(|| format!("find root file system {path:?}"))?;
    Ok((path, readonly || tool.read_only))
}

/// Where the container's files in `/etc` stand on the host, and what makes them.
fn place(context: &Context, files: Vec<File>) -> (Vec<ContainerOperation>, Vec<Volume>) {
    let directory = context.scope.run_dir.join("containers").join(&context.id);
    let (mut operations, mut volumes) = (Vec::new(), Vec::new());
    for File { name, content } in files {
        let source = match content {
            Content::Shared(path) => path,
            Content::Own(content) => {
                if operations.is_empty() {
                    let (path, mode) = (directory.clone(), 0o755);
                    operations.push(mount::MountOperation::DirectoryAdd { path, mode, owner: None }.into());
                }
                operations.push(add_file(&directory.join(name), content, 0o644));
                directory.join(name)
            }
        };
        volumes.push(Volume { source, target: Path::new("/etc").join(name), readonly: false });
    }
    (operations, volumes)
}

/// Those that are asked for; `files` where they leave room for them.
fn volumes(tool: &NsExec, mut files: Vec<Volume>) -> Result<Vec<Volume>> {
    for volume in &tool.volumes {
        files.retain(|other| other.target != volume.target);
        let source =
            volume.source.canonicalize().with_context(|| format!("find volume {:?}", volume.source))?;
        files.push(Volume { source, ..volume.clone() });
    }
    Ok(files)
}

/// Where the output goes. A log of the user's own is not made, and stays.
fn log(
    tool: &NsExec,
    context: &Context,
    operations: &mut Vec<ContainerOperation>,
) -> Result<Option<PathBuf>> {
    match (&tool.log, tool.detach) {
        (_, false) => Ok(None),
        (Some(path), true) => {
            Ok(Some(std::path::absolute(path).with_context(|| format!("find log {path:?}"))?))
        }
        (None, true) => {
            let path = context.scope.run_dir.join(format!("{}.log", context.id));
            operations.push(add_file(&path, String::new(), 0o640));
            Ok(Some(path))
        }
    }
}

fn add_file(path: &Path, content: String, mode: u32) -> ContainerOperation {
    mount::MountOperation::FileAdd { path: path.to_owned(), content, mode }.into()
}

/// Writes down which process it became.
pub(crate) fn identify(member: &mut Process, operations: &mut [ContainerOperation], identity: Identity) {
    (member.pid, member.start_time) = (identity.pid, identity.start_time);
    if let Some(ContainerOperation::Process(process)) = operations.last_mut() {
        process.identity = identity;
    }
}
