//! Sources of bind mounts.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use mount::{Detached, Options};
use oci_spec::runtime::{Mount, Spec};
use rustix::io::Errno;

use super::root::{Source, is_bind};
use crate::{
    Error,
    error::Result,
    spec::{IDMAP, RECURSIVE_IDMAP},
};

/// The sources of a container's bind mounts that the caller must make; none for other mounts. The caller must
/// map the owners of a mount, by a user namespace of the mount's own or of the container, because this needs
/// rights over the file system. If the container has a user namespace of its own, the caller makes all
/// sources, because the container may not be able to reach them.
pub(super) fn prepared(spec: &Spec, owner: Option<BorrowedFd<'_>>) -> Result<Vec<Option<Source>>> {
    let one = |mount: &Mount| {
        let options = Options::parse(mount.options().iter().flatten());
        let has = |word: &str| options.data.iter().any(|option| option == word);
        let ids = userns::Namespace {
            uid_mappings: crate::spec::runs(mount.uid_mappings()),
            gid_mappings: crate::spec::runs(mount.gid_mappings()),
        };
        let names_none = ids.uid_mappings.is_empty() && ids.gid_mappings.is_empty();
        let maps = has(IDMAP) || has(RECURSIVE_IDMAP) || !names_none;
        if !is_bind(mount) || options.remounts || !(maps || owner.is_some()) {
            return Ok(None);
        }
        let object = format!("{:?}", mount.destination());
        let recursive = options.bind.unwrap_or_default();
        let source = match Detached::copy(mount.source().as_deref().unwrap_or(Path::new("")), recursive) {
            // An ordinary user may not do this, but the process may, in its own mount namespace.
            Err(error) if !maps && error.errno() == Some(nix::errno::Errno::EPERM) => return Ok(None),
            copied => copied?,
        };
        if maps {
            let own = if names_none { None } else { Some(ids.make()?) };
            let namespace = own.as_ref().map(AsFd::as_fd).or(owner);
            let namespace = namespace.ok_or("the container has no user namespace of its own");
            let namespace = namespace.map_err(|cause| Error::system("map owners of", &object, cause))?;
            source
                .map_owners_below(namespace, recursive && has(RECURSIVE_IDMAP))
                .map_err(Error::at("map owners of", &object))?;
        }
        change(&source, &options, false).map_err(Error::at("mount", &object))?;
        Ok(Some((source, options)))
    };
    spec.mounts().iter().flatten().map(one).collect()
}

/// Sets the options of a bind mount. With `deep`, those of a recursive mount apply to all mounts below.
pub(super) fn change(mount: &Detached, options: &Options, deep: bool) -> std::result::Result<(), Errno> {
    let recursive = options.bind.unwrap_or_default();
    if deep || !(recursive && options.is_recursive()) {
        return mount.change(options, deep && recursive);
    }
    let propagation = Options { propagation: options.propagation, ..Options::default() };
    mount.change(&propagation, true)?;
    mount.change(&Options { propagation: None, ..options.clone() }, false)
}
