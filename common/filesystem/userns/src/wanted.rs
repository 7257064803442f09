//! The user namespace that a flag asks for, in Podman's words.

use std::str::FromStr;

use operation::{Claim, Error, Scope, holds_another};

use crate::{Mapping, Namespace, is_first, mapping};

/// The user namespace that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `host`: the caller's namespace.
    Host,
    /// `auto`, `auto:size=N`: a new namespace with this many ids that no other container has.
    Auto(u32),
    /// `CONTAINER:HOST:SIZE[,…]`: a new namespace with these ranges, for users and for groups.
    Ranges(Namespace),
}

/// The number of ids that a container gets by default, and also the largest one. With less, `nobody` (65534)
/// has no mapping.
const SIZE: u32 = 1 << 16;

/// The first of the ids for containers. They are at the end of the range that systemd's UIDS-GIDS.md sets
/// aside for containers, behind all ids that useradd(8) assigns as subordinate ids.
const FIRST: u32 = 0x4800_0000;
const RUNS: u32 = 10_000;

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("auto") {
            Some("") => return Ok(Self::Auto(SIZE)),
            Some(option) => {
                let size = option.strip_prefix(":size=").and_then(|size| size.parse().ok());
                return match size.filter(|size| (1..=SIZE).contains(size)) {
                    Some(size) => Ok(Self::Auto(size)),
                    None => Err(format!("it is auto or auto:size=N, with N from 1 to {SIZE}")),
                };
            }
            None if text == "host" => return Ok(Self::Host),
            None => {}
        }
        let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>();
        let ranges = ranges.ok_or("it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]")?;
        let namespace = Namespace { uid_mappings: ranges.clone(), gid_mappings: ranges };
        if namespace.root().is_none() {
            return Err("the container's root, 0, needs a mapping".to_owned());
        }
        match overlap(&namespace.uid_mappings) {
            true => Err("the ranges overlap".to_owned()),
            false => Ok(Self::Ranges(namespace)),
        }
    }
}

fn range(text: &str) -> Option<Mapping> {
    let mapping = mapping(text.split(':'))?;
    let is_whole = |first: u32| first.checked_add(mapping.size).is_some();
    (mapping.size > 0 && is_whole(mapping.inside) && is_whole(mapping.outside)).then_some(mapping)
}

fn overlap(mappings: &[Mapping]) -> bool {
    let meet = |a: u32, b: u32, mine: &Mapping, other: &Mapping| a < b + other.size && b < a + mine.size;
    mappings.iter().enumerate().any(|(at, one)| {
        mappings[at + 1..].iter().any(|other| {
            meet(one.inside, other.inside, one, other) || meet(one.outside, other.outside, one, other)
        })
    })
}

impl Wanted {
    /// The namespace for a container, or `None` for the caller's. With `auto`, also a claim on the ids, so
    /// that no other container gets them.
    ///
    /// # Errors
    /// When the caller may not map ids, or all ranges are taken.
    pub fn find(&self, scope: &Scope, container: &str) -> Result<(Option<Namespace>, Option<Claim>), Error> {
        if *self != Self::Host && !is_first()? {
            let cause = "only root of the machine maps other ids, and this is a user namespace";
            return Err(Error::new("make", "a user namespace for the container", cause));
        }
        match self {
            Self::Host => Ok((None, None)),
            Self::Ranges(namespace) => Ok((Some(namespace.clone()), None)),
            Self::Auto(size) => {
                let is_taken = |name: &str| {
                    let claims = scope.claims(name);
                    holds_another(&claims, "").map_err(Error::on("read", format_args!("claims {claims:?}")))
                };
                let (namespace, name) = automatic(container, *size, is_taken)?;
                Ok((Some(namespace), Some(Claim::exclusive(scope, &name, container))))
            }
        }
    }
}

/// A namespace with `size` ids, and the name of their range. The search starts at a range that depends on the
/// container's id, so that two containers rarely choose the same range at the same moment. If they do, only
/// one of them gets the claim.
fn automatic(
    container: &str,
    size: u32,
    is_taken: impl Fn(&str) -> Result<bool, Error>,
) -> Result<(Namespace, String), Error> {
    let start = container
        .bytes()
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    for turn in 0..RUNS {
        let outside = FIRST + (start.wrapping_add(turn) % RUNS) * SIZE;
        let name = format!("ids-{outside}");
        if !is_taken(&name)? {
            let runs = vec![Mapping { inside: 0, outside, size }];
            return Ok((Namespace { uid_mappings: runs.clone(), gid_mappings: runs }, name));
        }
    }
    Err(Error::new("find", "ids for a container", format!("{RUNS} containers have all of them")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_podman_takes_them() {
        assert_eq!("host".parse(), Ok(Wanted::Host));
        assert_eq!("auto".parse(), Ok(Wanted::Auto(65536)));
        assert_eq!("auto:size=1000".parse(), Ok(Wanted::Auto(1000)));
        let Ok(Wanted::Ranges(two)) = "0:100000:1000,1000:1000:1".parse() else { panic!("two ranges") };
        assert_eq!(
            (two.root(), two.user_outside(1000), two.group_outside(1001)),
            (Some((100_000, 100_000)), Some(1000), None)
        );
        for (text, error) in [
            ("auto:size=0", "it is auto or auto:size=N, with N from 1 to 65536"),
            ("auto:size=65537", "it is auto or auto:size=N, with N from 1 to 65536"),
            ("autox", "it is auto or auto:size=N, with N from 1 to 65536"),
            ("keep-id", "it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]"),
            ("0:1", "it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]"),
            ("0:1:0", "it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]"),
            ("0:4294967295:2", "it is host, auto, auto:size=N or CONTAINER:HOST:SIZE[,…]"),
            ("1:100000:10", "the container's root, 0, needs a mapping"),
            ("0:100000:10,9:200000:1", "the ranges overlap"),
            ("0:100000:10,20:100009:1", "the ranges overlap"),
        ] {
            assert_eq!(text.parse::<Wanted>(), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn each_container_has_ids_of_its_own() {
        let free = |_: &str| Ok(false);
        let (first, name) = automatic("web", 65536, free).unwrap();
        assert_eq!(automatic("web", 65536, free).unwrap(), (first.clone(), name.clone()));
        let (second, _) = automatic("web", 65536, |other| Ok(other == name)).unwrap();
        let [first, second] = [first, second].map(|namespace| namespace.uid_mappings[0]);
        assert!(!overlap(&[Mapping { inside: 0, ..first }, Mapping { inside: 1 << 20, ..second }]));
        assert!(automatic("web", 1, |_| Ok(true)).is_err());
    }
}
