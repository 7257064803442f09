use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use mount::{Volume, VolumeOptions, plain};

/// What `-v` asks for, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeRequest {
    /// `/SRC:/DST[:OPTIONS]`: a file or directory of the host.
    Host(Volume),
    /// `NAME:/DST[:OPTIONS]`: a volume with a name. It is made if it is missing.
    Named(NamedVolume),
    /// `/DST`: a volume of the container's own, which is removed with it.
    Own(PathBuf),
}

/// The use of a volume with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVolume {
    /// The volume's name.
    pub name: String,
    /// Absolute path in the container, without `.` and `..`.
    pub target: PathBuf,
    /// What the mount may do. With `nocopy`, an empty volume stays empty.
    pub options: VolumeOptions,
}

/// The error for text that asks for no volume.
#[derive(Debug, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct InvalidRequest {
    text: String,
    reason: &'static str,
}

/// Checks a volume's name: a letter or digit, then letters, digits, `_`, `.` and `-`, at most 200 in all.
///
/// # Errors
/// Why the name is invalid.
pub fn parse_name(name: &str) -> Result<String, &'static str> {
    match operation::is_name(name, 200) {
        true => Ok(name.to_owned()),
        false => Err(
            "the name of a volume takes letters, digits, `_`, `.` and `-`, a letter or digit first, 200 at most",
        ),
    }
}

impl FromStr for VolumeRequest {
    type Err = InvalidRequest;

    fn from_str(text: &str) -> Result<Self, InvalidRequest> {
        let wrong = |reason| InvalidRequest { text: text.to_owned(), reason };
        let path = |target: &str| {
            plain(Path::new(target))
                .ok_or_else(|| wrong("the target of a volume is an absolute path below /"))
        };
        let Some((source, rest)) = text.split_once(':') else { return Ok(Self::Own(path(text)?)) };
        if source.starts_with('/') {
            let volume = text.parse().map_err(|error: mount::InvalidVolume| wrong(error.reason()))?;
            return Ok(Self::Host(volume));
        }
        let name = parse_name(source).map_err(|reason| match source.contains('/') {
            true => wrong("the source of a volume is an absolute path on the host, or the name of a volume"),
            false => wrong(reason),
        })?;
        let (target, options) = rest.split_once(':').unwrap_or((rest, "rw"));
        let options = options.parse().map_err(wrong)?;
        Ok(Self::Named(NamedVolume { name, target: path(target)?, options }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_takes_them() {
        let named = |target: &str, options| {
            Ok(VolumeRequest::Named(NamedVolume { name: "db".into(), target: target.into(), options }))
        };
        let rw = VolumeOptions::default();
        for (text, expected) in [
            ("db:/data", named("/data", rw)),
            ("db:/data/./x:ro", named("/data/x", VolumeOptions { readonly: true, ..rw })),
            ("db:/data:nocopy,rw", named("/data", VolumeOptions { nocopy: true, ..rw })),
            ("/data", Ok(VolumeRequest::Own("/data".into()))),
            (
                "/srv:/data:ro",
                Ok(VolumeRequest::Host(Volume {
                    source: "/srv".into(),
                    target: "/data".into(),
                    readonly: true,
                    idmap: false,
                })),
            ),
            ("db:data", Err("the target of a volume is an absolute path below /")),
            ("db:/", Err("the target of a volume is an absolute path below /")),
            ("data", Err("the target of a volume is an absolute path below /")),
            ("db:/data:ro:x", Err("the options of a volume are ro, rw, nocopy and idmap")),
            (
                "a/b:/data",
                Err("the source of a volume is an absolute path on the host, or the name of a volume"),
            ),
            ("/srv:/data:nocopy", Err("nocopy is for a volume with a name")),
            (
                ".db:/data",
                Err(
                    "the name of a volume takes letters, digits, `_`, `.` and `-`, a letter or digit first, 200 at most",
                ),
            ),
        ] {
            let parsed = text.parse::<VolumeRequest>();
            let expected: Result<_, String> = expected.map_err(|reason| format!("{text:?}: {reason}"));
            assert_eq!(parsed.map_err(|error| error.to_string()), expected, "{text}");
        }
    }
}
