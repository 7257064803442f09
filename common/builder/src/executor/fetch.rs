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
    let last = path.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/').rsplit('/').next();
    let name = decoded(last.unwrap_or_default());
    // If the last part is not a valid name, use BuildKit's name.
    if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
        "__unnamed__".to_owned()
    } else {
        name
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The content that a web server sends. An error of reading it contains a [`Cause`].
pub(super) struct Body {
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
            .get(address, options.web_authorization(address))
            .map_err(|error| failed(Box::new(error)))?;
        let (modified, encoding) = (download.modified, download.encoding.clone());
        let raw = Raw { download, failed };
        let content: Box<dyn Read> = match encoding.as_deref() {
            // Some servers say `x-gzip` of files that are archives themselves. BuildKit keeps these, too.
            None | Some("x-gzip") => Box::new(raw),
            Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Some(other) => {
                let problem = format!("the server has encoded it with {other:?}, and was not asked to");
                let address = registry::without_user(address);
                return Err(failed(Box::new(registry::Error::Address { address, problem })));
            }
        };
        Ok(Self { modified, content })
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
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
    fn web_authorization(&self, address: &str) -> Option<String> {
        let host = registry::Origin::of(address).host;
        let read = |name: &str| {
            let content = self.secrets.get(&format!("{name}_{host}"))?.read().ok()?;
            Some(String::from_utf8(content).ok()?.trim().to_owned())
        };
        let token = || read("HTTP_AUTH_TOKEN").map(|token| format!("Bearer {token}"));
        read("HTTP_AUTH_HEADER").or_else(token)
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

impl Builder<'_> {
    /// Downloads a file. It must have the digest `checksum`, if given.
    pub(super) fn fetch(&self, address: &str, checksum: Option<&Digest>) -> Result<Fetched, Cause> {
        let path = self.store.workspace()?.step()?.upper.join("file");
        let open = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = open.map_err(Cause::system("create", &path))?;
        let mut body = Body::get(address, self.options, Cause::Fetch)?;
        let algorithm = checksum.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut writer = Hashing::new(file, algorithm);
        copy((&mut body, Path::new(address)), (&mut writer, &path))?;
        let (mut file, digest, _) = writer.finish();
        if let Some(wanted) = checksum.filter(|wanted| **wanted != digest) {
            return Err(Cause::Checksum {
                address: registry::without_user(address),
                wanted: wanted.clone(),
                found: digest,
            });
        }
        rewind(&mut file, &path)?;
        // If the server sends no time, the time is the same in every build.
        let modified = body.modified.unwrap_or(0);
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
            ("http://h/a%2fb", "__unnamed__"),
        ] {
            assert_eq!(name_of(address), name, "{address}");
        }
        assert!(is_web("https://h/x") && !is_web("x/http://h"));
    }
}
