//! Downloads files for ADD.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
    rc::Rc,
};

use oci::{
    Digest,
    digest::{Algorithm, Hashing},
};

use super::{Builder, Options};
use crate::{copy::Fetched, error::Cause};

/// The number of bytes to read from a connection at a time.
const BUFFER: usize = 256 << 10;

/// Whether a source is an address on a web server.
pub(super) fn is_web(source: &str) -> bool {
    ["http://", "https://"].iter().any(|start| source.starts_with(start))
}

/// The file name of an address: the last part of its path, with percent-encoding decoded.
pub(super) fn name_of(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    // The name is that behind the last slash, also if that is written as `%2F`, as in BuildKit.
    let path = registry::decode(path.split_once('/').map_or("", |(_, path)| path));
    let path = String::from_utf8_lossy(&path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    // If the last part is not a valid name, use BuildKit's name.
    if matches!(name.as_str(), "" | "." | "..") || name.contains('\0') {
        "__unnamed__".to_owned()
    } else {
        name
    }
}

/// The content that a web server sends. An error of reading it contains a [`Cause`].
pub(super) struct Body {
    /// The address, without a password.
    shown: String,
    modified: Option<i64>,
    content: Box<dyn Read>,
}

impl Body {
    /// Requests the file at this address. `failed` makes the error.
    pub(super) fn get(
        address: &str,
        options: &Options,
        failed: fn(Box<registry::Error>) -> Cause,
    ) -> Result<Self, Cause> {
        let client = registry::Client::new(registry::Options::default());
        let download = client
            .get(address, options.web_authorization(address)?)
            .map_err(|error| failed(Box::new(error)))?;
        let shown = registry::without_user(address);
        let (modified, encoding) = (download.modified, download.encoding.clone());
        let raw = Raw { download, failed };
        let content: Box<dyn Read> = match encoding.as_deref() {
            // Some servers say `x-gzip` of files that are archives themselves. BuildKit keeps these, too.
            None | Some("x-gzip") => Box::new(raw),
            Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Some(other) => {
                let problem = format!("the server has encoded it with {other:?}, and was not asked to");
                return Err(failed(Box::new(registry::Error::Address { address: shown, problem })));
            }
        };
        Ok(Self { shown, modified, content })
    }

    /// When the file was changed, as the server says.
    pub(super) fn modified(&self) -> Option<i64> {
        self.modified
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer).map_err(|error| {
            let is_cause = error.get_ref().is_some_and(|inner| inner.is::<Cause>());
            if is_cause || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            // The decoder's own error.
            io::Error::other(Cause::system("read", Path::new(&self.shown))(error))
        })
    }
}

/// The bytes of an answer.
struct Raw {
    download: registry::Download,
    failed: fn(Box<registry::Error>) -> Cause,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.download.read(buffer).map_err(|error| io::Error::other((self.failed)(Box::new(error))))
    }
}

impl Options {
    /// The authorization for a file on a web server: the secret `HTTP_AUTH_HEADER_<host>`, or the token of
    /// `HTTP_AUTH_TOKEN_<host>` (Dockerfile reference, "ADD"). It is sent to this server only.
    fn web_authorization(&self, address: &str) -> Result<Option<String>, Cause> {
        let host = registry::Origin::of(address).host;
        let read = |name: &str| -> Result<Option<String>, Cause> {
            let id = format!("{name}_{host}");
            let Some(secret) = self.secrets.get(&id) else { return Ok(None) };
            let no_text =
                |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text, as a header must be");
            let text = String::from_utf8(secret.read()?).map_err(no_text);
            let text = text.map_err(Cause::system("read secret", Path::new(&id)))?;
            Ok(Some(text.trim().to_owned()))
        };
        if let Some(header) = read("HTTP_AUTH_HEADER")? {
            return Ok(Some(header));
        }
        Ok(read("HTTP_AUTH_TOKEN")?.map(|token| format!("Bearer {token}")))
    }
}

/// Copies everything from `source` to the file at `path`. An error of reading may contain a [`Cause`] of its
/// own.
pub(super) fn copy(
    (from, source): (&mut dyn Read, &Path),
    (to, path): (&mut dyn Write, &Path),
) -> Result<(), Cause> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Cause::system("write", path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error.downcast::<Cause>().unwrap_or_else(Cause::system("read", source)));
            }
        }
    }
}

/// Downloads a file to a new one at `path`. It must have the digest `checksum`, if given. Returns the file from its
/// beginning, its digest, and when it was changed, if the server says that.
pub(super) fn download(
    options: &Options,
    address: &str,
    checksum: Option<&Digest>,
    path: &Path,
) -> Result<(File, Digest, Option<i64>), Cause> {
    let open = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = open.map_err(Cause::system("create", path))?;
    let mut body = Body::get(address, options, Cause::Fetch)?;
    let algorithm = checksum.map_or(Algorithm::Sha256, Digest::algorithm);
    let mut writer = Hashing::new(file, algorithm);
    let shown = registry::without_user(address);
    copy((&mut body, Path::new(&shown)), (&mut writer, path))?;
    let (mut file, digest, _) = writer.finish();
    if let Some(wanted) = checksum.filter(|wanted| **wanted != digest) {
        return Err(Cause::Checksum { address: shown, wanted: wanted.clone(), found: digest });
    }
    rewind(&mut file, path)?;
    Ok((file, digest, body.modified))
}

impl Builder<'_> {
    /// Downloads a file for ADD. It must have the digest `checksum`, if given.
    pub(super) fn fetch(&self, address: &str, checksum: Option<&Digest>) -> Result<Fetched, Cause> {
        let path = self.store.workspace()?.step()?.upper.join("file");
        let (file, digest, modified) = download(self.options, address, checksum, &path)?;
        // If the server sends no time, the time is the same in every build.
        let modified = modified.unwrap_or(0);
        Ok(Fetched { name: name_of(address), file: Rc::new(file), digest: digest.to_string(), modified })
    }
}

fn rewind(file: &mut File, path: &Path) -> Result<(), Cause> {
    let rewound: io::Result<()> = file.rewind();
    rewound.map_err(Cause::system("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_and_how_it_is_named() {
        for (address, name) in [
            ("http://h/a/b.tar?x=1#y", "b.tar"),
            ("https://h/a%20b", "a b"),
            ("http://h/a%2", "a%2"),
            ("http://h/a/", "a"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/%2e%2e", "__unnamed__"),
            ("http://h/a%2fb", "b"),
            ("http://h/a%2f..%2f", "__unnamed__"),
        ] {
            assert_eq!(name_of(address), name, "{address}");
        }
        assert!(is_web("https://h/x") && !is_web("x/http://h"));
    }
}
