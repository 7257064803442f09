//! ADD with sources of several kinds: files of the context, downloaded files and git repositories. They are copied in
//! the order in which they are written, because a later one replaces files of an earlier one.

use git::Revision;

use super::{Builder, request::Request, store::Mounted};
use crate::{
    copy::{CopyError, Job, Kind, Owner, Tree},
    error::Cause,
};

/// One source of several, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A path or pattern of the context.
    Local(String),
    /// A downloaded file, by its number among them.
    Fetched(usize),
    /// A git repository, by its number among them.
    Repository(usize),
}

impl Request {
    /// The job that copies one source alone, into the destination. `None` for a repository.
    fn part(&self, part: &Part) -> Option<Job> {
        let alone = Job {
            sources: Vec::new(),
            fetched: Vec::new(),
            inline: Vec::new(),
            into: true,
            ..self.job.clone()
        };
        match part {
            Part::Local(source) => Some(Job { sources: vec![source.clone()], ..alone }),
            Part::Fetched(at) => {
                Some(Job { fetched: self.job.fetched.get(*at).cloned().into_iter().collect(), ..alone })
            }
            Part::Repository(_) => None,
        }
    }

    /// The digests of all sources that are no repositories, in their order.
    pub(super) fn digest_of_parts(&self, tree: &Tree) -> Result<String, CopyError> {
        let jobs = self.parts.iter().filter_map(|part| self.part(part));
        let digests = jobs.map(|job| job.digest(tree, &job.list(tree)?)).collect::<Result<Vec<_>, _>>()?;
        Ok(digests.join(" "))
    }
}

impl Builder<'_> {
    /// Copies the sources, each by itself. Returns the digests of what was copied, as [`Request::digest_of_parts`].
    pub(super) fn copy_parts(
        &self,
        mounted: &Mounted,
        request: &Request,
        tree: &Tree,
        revisions: &[Revision],
        owner: Option<Owner>,
    ) -> Result<Option<String>, Cause> {
        let failed = |source| Cause::Copy { instruction: request.job.instruction, source };
        let now = Some(request.moment.time());
        let place = || self.placing(mounted, owner.unwrap_or_default(), now);
        let destination = place()?.resolve(&request.job.destination).map_err(failed)?;
        if !request.job.into && place()?.look(&destination).map_err(failed)? != Some(Kind::Directory) {
            return Err(failed(CopyError::NotADirectory(request.job.instruction)));
        }
        let scratch = self.store.workspace()?.path();
        let mut copied = Vec::new();
        for part in &request.parts {
            match (part, request.part(part)) {
                (Part::Repository(at), _) => {
                    let repositories = request.repositories.iter().zip(revisions).skip(*at).take(1);
                    for (address, revision) in repositories {
                        self.copy_repository(request, address, revision, place()?, owner)?;
                    }
                }
                (_, Some(job)) => {
                    let listing = job.list(tree).map_err(failed)?;
                    let own = job.run(tree, &listing, place()?, owner, now, scratch).map_err(failed)?;
                    // What no pattern has a match for is known by its listing.
                    let own = own.map_or_else(|| job.digest(tree, &listing), Ok).map_err(failed)?;
                    copied.push(own);
                }
                _ => {}
            }
        }
        let inline = Job { sources: Vec::new(), fetched: Vec::new(), into: true, ..request.job.clone() };
        inline.run(tree, &Default::default(), place()?, owner, now, scratch).map_err(failed)?;
        Ok(Some(copied.join(" ")))
    }
}
