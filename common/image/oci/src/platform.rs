//! The platforms that images are made for (OCI image-spec, image-index.md, "Platform Variants").

use std::{fmt, str::FromStr};

use oci_spec::image as spec;

/// An operating system, a processor architecture (with Go's name for it) and a variant: `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The operating system: `linux`.
    pub os: String,
    /// The architecture: `amd64`.
    pub architecture: String,
    /// The variant, if there is one: `v7`.
    pub variant: Option<String>,
}

/// The systems that Go can compile for (`go tool dist list`). Only these can stand for a platform alone.
const KNOWN_SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// The same of architectures.
const KNOWN_ARCHITECTURES: [&str; 23] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc64",
    "wasm",
];

/// A string that is not a [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: write os/architecture or os/architecture/variant, as in linux/arm64")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = spec::Arch::default().to_string();
        Self::normalised(spec::Os::default().to_string(), architecture, None)
    }

    /// Whether the platform is `unknown/unknown`. Attestations and similar artifacts, which are for no
    /// platform, have this one.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    fn normalised(os: String, architecture: String, variant: Option<String>) -> Self {
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "i386" | "i686" | "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        let variant = variant.or_else(|| implied.map(str::to_owned)).filter(|variant| {
            // These variants are the default ones and are left out.
            !matches!((architecture, variant.as_str()), ("arm64", "v8" | "8") | ("amd64", "v1") | (_, ""))
        });
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// A platform of which only the operating system or the architecture is given. The host has the rest, as in
    /// containerd (platforms.Parse).
    fn of_one(one: &str) -> Option<Self> {
        let host = Self::host();
        if KNOWN_SYSTEMS.contains(&one) {
            return Some(Self { os: one.to_owned(), ..host });
        }
        let platform = Self::normalised(host.os, one.to_owned(), None);
        KNOWN_ARCHITECTURES.contains(&&*platform.architecture).then_some(platform)
    }

    /// How well an image for `offered` runs here. Lower is better; None if it does not run.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let level = |platform: &Platform| {
            let digits = |variant: &str| variant.trim_start_matches('v').parse::<u32>().ok();
            platform.variant.as_deref().map_or(Some(0), digits)
        };
        match (level(self), level(offered)) {
            _ if self.variant == offered.variant => Some(0),
            // A processor also runs images for earlier variants. The latest of them is best.
            (Some(ours), Some(theirs)) if theirs < ours => Some(ours - theirs),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let word = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let lower = |part: &str| part.to_ascii_lowercase();
        match parts[..] {
            [one] => Self::of_one(&lower(one)).ok_or_else(|| InvalidPlatform(text.to_owned())),
            [os, architecture] => Ok(Self::normalised(lower(os), lower(architecture), None)),
            [os, architecture, variant] => {
                Ok(Self::normalised(lower(os), lower(architecture), Some(lower(variant))))
            }
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

impl From<&spec::Platform> for Platform {
    fn from(platform: &spec::Platform) -> Self {
        Self::normalised(
            platform.os().to_string(),
            platform.architecture().to_string(),
            platform.variant().clone(),
        )
    }
}

impl From<&spec::ImageConfiguration> for Platform {
    fn from(configuration: &spec::ImageConfiguration) -> Self {
        Self::normalised(
            configuration.os().to_string(),
            configuration.architecture().to_string(),
            configuration.variant().clone(),
        )
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled_in_one_way() {
        for (text, shown) in [
            ("linux/amd64", Some("linux/amd64")),
            ("Linux/x86_64", Some("linux/amd64")),
            ("linux/aarch64", Some("linux/arm64")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/i386", Some("linux/386")),
            ("linux", Some(&*format!("linux/{}", Platform::host().to_string().split_once('/').unwrap().1))),
            ("AMD64", Some("linux/amd64")),
            ("x86_64", Some("linux/amd64")),
            ("aarch64", Some("linux/arm64")),
            ("armel", Some("linux/arm/v6")),
            (
                "windows",
                Some(&*format!("windows/{}", Platform::host().to_string().split_once('/').unwrap().1)),
            ),
            ("solarium", None),
            ("", None),
            ("linux/", None),
            ("a/b/c/d", None),
            ("linux/../x", None),
        ] {
            assert_eq!(text.parse::<Platform>().ok().map(|p| p.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn the_nearest_earlier_variant_runs() {
        let rank =
            |ours: &str, theirs: &str| ours.parse::<Platform>().unwrap().rank(&theirs.parse().unwrap());
        assert_eq!(rank("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v5"), Some(2));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(rank("linux/amd64/v3", "linux/amd64"), Some(3));
        assert_eq!(rank("linux/amd64", "linux/386"), None);
        assert_eq!(rank("linux/amd64", "windows/amd64"), None);
    }
}
