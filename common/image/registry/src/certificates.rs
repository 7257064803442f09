//! The certificates of a connection: trusted ones and our own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use transport::Own;

use crate::{Error, Options};

/// The directories with certificates for single registries, of podman and Docker (containers-certs.d(5)).
const PER_HOST: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The certificates for a connection.
pub(crate) struct Certificates {
    /// The system's certificates, those configured for this host, and those of the options.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
    /// Our own certificate with its chain and its key, for a server that asks for one.
    pub(crate) own: Option<Own>,
}

impl Certificates {
    /// Reads the certificates for `host`. An `insecure` connection trusts any certificate, so the trusted
    /// ones are not read.
    pub(crate) fn read(options: &Options, host: &str, insecure: bool) -> Result<Self, Error> {
        let per_host = PER_HOST.iter().map(|directory| Path::new(directory).join(host));
        let mut directories: Vec<PathBuf> = per_host.filter(|directory| directory.is_dir()).collect();
        directories.extend(options.cert_dir.clone());
        let mut files = Vec::new();
        for directory in &directories {
            files.extend(listed(directory)?);
        }
        let own = own(&files)?;
        let mut trusted = Vec::new();
        if !insecure {
            trusted.extend(transport::system());
            for path in files.iter().filter(|path| has_extension(path, "crt")).chain(&options.cacert) {
                trusted.extend(read(path, transport::certificates)?);
            }
        }
        Ok(Self { trusted, own })
    }
}

/// The files of a directory, sorted by name.
fn listed(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| wrong(directory, error))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The first `NAME.cert` with its `NAME.key`. A file without its partner is an error, because the mistake
/// would be hard to find.
fn own(files: &[PathBuf]) -> Result<Option<Own>, Error> {
    let pair = |path: &PathBuf| (path.with_extension("cert"), path.with_extension("key"));
    let halves = files.iter().filter(|path| has_extension(path, "cert") || has_extension(path, "key"));
    for (certificate, key) in halves.clone().map(pair) {
        let missing = [&certificate, &key].into_iter().find(|path| !files.contains(path));
        if let Some(missing) = missing {
            let there = if *missing == key { &certificate } else { &key };
            return Err(wrong(there, format!("{missing:?}, which belongs to it, does not exist")));
        }
    }
    let Some((certificate, key)) = halves.map(pair).next() else { return Ok(None) };
    Ok(Some((read(&certificate, transport::certificates)?, read(&key, transport::private_key)?)))
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

fn read<T>(path: &Path, read: impl Fn(&Path) -> std::io::Result<T>) -> Result<T, Error> {
    read(path).map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, problem: impl ToString) -> Error {
    Error::Certificates { path: path.to_owned(), problem: problem.to_string() }
}
