//! The user namespace of the container: the one of `--userns`, or the one that the root file system was made
//! for.

use document::{Document, members::Rootfs};
use toolkit::prelude::*;
use userns::{Namespace, Wanted};

use super::{operation::ContainerOperation, request::Request};

/// The user namespace, if it is not the caller's.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub(crate) userns: Option<Namespace>,
    /// Whether to map the owners of files in the directory of `--rootfs`. The mapping is only visible in the
    /// container.
    pub(crate) idmap_rootfs: bool,
    /// The operations that claim the ids of the namespace.
    pub(crate) operations: Vec<ContainerOperation>,
}

pub(crate) fn choose(request: &Request, context: &Context, document: &Document) -> Result<Owners> {
    let rootfs: Option<Rootfs> = document.get()?;
    let made = rootfs.filter(|_| request.rootfs.is_none()).and_then(|rootfs| rootfs.userns);
    let owners = match (&request.sharing.userns, made) {
        (None | Some(Wanted::Auto(_)), Some(made)) => Owners { userns: Some(made), ..Owners::default() },
        (Some(Wanted::Ranges(wanted)), Some(made)) if *wanted == made => {
            Owners { userns: Some(made), ..Owners::default() }
        }
        (Some(_), Some(_)) => {
            let error =
                anyhow!("--userns names another user namespace than the root file system was made for");
            return Err(hint(error, "leave it out here, or name it for union-mount"));
        }
        (None | Some(Wanted::Host), None) => Owners::default(),
        (Some(_), None) if request.rootfs.is_none() => {
            let error = anyhow!("the root file system was not made for a user namespace");
            return Err(hint(error, "give --userns to union-mount; ns-exec then uses its user namespace"));
        }
        (Some(wanted), None) => {
            let (userns, claim) = wanted.find(&context.scope, &context.id)?;
            let operations = claim.map(ContainerOperation::from).into_iter().collect();
            Owners { userns, idmap_rootfs: true, operations }
        }
    };
    if owners.userns.is_some() && request.privileged {
        bail!(
            "--privileged gives rights over the machine, which a user namespace takes away: leave out one of them"
        );
    }
    if let Some(volume) = request.volumes.iter().find(|volume| volume.idmap && owners.userns.is_none()) {
        bail!(
            "map owners of volume {:?}: the container has no user namespace of its own: --userns",
            volume.source
        );
    }
    Ok(owners)
}
