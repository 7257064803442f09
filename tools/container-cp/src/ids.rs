//! Owners: what they are called inside of a container, and what they are called for us.

use userns::{Mapping, Namespace};

/// The owner that the kernel shows for one who has no number (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// The ids of a container, if it has others than the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(Option<Namespace>);

impl Ids {
    pub(crate) fn new(namespace: Option<Namespace>) -> Self {
        Self(namespace)
    }

    /// Its root as the host calls it, if that is somebody else than the host's.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        self.0.as_ref().and_then(Namespace::root)
    }

    /// User and group as the container calls them.
    pub(crate) fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        match &self.0 {
            None => (uid, gid),
            Some(ids) => (inside(&ids.uid_mappings, uid), inside(&ids.gid_mappings, gid)),
        }
    }

    /// User and group as the host calls them.
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
