//! Limits of a process in Docker's form.

use std::str::FromStr;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType as Kind};

/// A limit of setrlimit(2), such as `nofile=1024:4096` or `core=0`; -1 means no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Ulimit(pub PosixRlimit);

const KINDS: [(&str, Kind); 16] = [
    ("core", Kind::RlimitCore),
    ("cpu", Kind::RlimitCpu),
    ("data", Kind::RlimitData),
    ("fsize", Kind::RlimitFsize),
    ("locks", Kind::RlimitLocks),
    ("memlock", Kind::RlimitMemlock),
    ("msgqueue", Kind::RlimitMsgqueue),
    ("nice", Kind::RlimitNice),
    ("nofile", Kind::RlimitNofile),
    ("nproc", Kind::RlimitNproc),
    ("rss", Kind::RlimitRss),
    ("rtprio", Kind::RlimitRtprio),
    ("rttime", Kind::RlimitRttime),
    ("sigpending", Kind::RlimitSigpending),
    ("stack", Kind::RlimitStack),
    ("as", Kind::RlimitAs),
];

impl FromStr for Ulimit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) =
            text.split_once('=').ok_or("it is NAME=SOFT[:HARD], such as nofile=1024:4096")?;
        let kind = KINDS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
            format!("there is no limit {name:?}; the limits are {}", names.join(", "))
        })?;
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            _ => text.parse().map_err(|_| format!("{text:?} is not a number")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err("the soft limit is above the hard one".to_owned());
        }
        let limit = PosixRlimitBuilder::default().typ(kind.1).soft(soft).hard(hard).build();
        limit.map(Self).map_err(|error| error.to_string())
    }
}
