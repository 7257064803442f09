//! Translates owners between the ids in a container and the ids on the host.

use userns::{Mapping, Namespace};

/// The owner that the kernel shows for an unmapped id (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// The user namespace of a container, if it is not the host's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(Option<Namespace>);

impl Ids {
    pub(crate) fn new(namespace: Option<Namespace>) -> Self {
        Self(namespace)
    }

    /// The host's user and group for the container's root, if the container has its own user namespace.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        self.0.as_ref().and_then(Namespace::root)
    }

    /// Translates user and group of the host to those in the container.
    pub(crate) fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        match &self.0 {
            None => (uid, gid),
            Some(ids) => (inside(&ids.uid_mappings, uid), inside(&ids.gid_mappings, gid)),
        }
    }

    /// Translates user and group of the container to those on the host.
    pub(crate) fn outside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        match &self.0 {
            None => (uid, gid),
            Some(ids) => (ids.user_outside(uid).unwrap_or(NOBODY), ids.group_outside(gid).unwrap_or(NOBODY)),
        }
    }
}

fn inside(runs: &[Mapping], id: u32) -> u32 {
    let found = runs.iter().find_map(|run| {
        let offset = id.checked_sub(run.outside).filter(|offset| *offset < run.size)?;
        run.inside.checked_add(offset)
    });
    found.unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let run = Mapping { inside: 0, outside: 100_000, size: 1000 };
        let ids = Ids::new(Some(Namespace { uid_mappings: vec![run], gid_mappings: vec![run] }));
        assert_eq!(ids.outside((0, 33)), (100_000, 100_033));
        assert_eq!(ids.inside((100_000, 100_033)), (0, 33));
        assert_eq!((ids.inside((0, 99_999)), ids.outside((1000, 0))), ((NOBODY, NOBODY), (NOBODY, 100_000)));
        assert_eq!(Ids::default().inside((5, 6)), (5, 6));
    }
}
