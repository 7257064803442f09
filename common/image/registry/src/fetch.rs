//! A file on any web server, in the way that registries are reached: the same certificates, proxies and limits.

use std::time::SystemTime;

use ureq::http::header;

use crate::{
    Client, Error,
    http::{AnswerBody, Http},
    retry::Attempts,
    url::Url,
};

/// How often a server may send us elsewhere.
const MAX_REDIRECTS: u32 = 10;

/// A file that comes.
pub struct Download {
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
    body: AnswerBody,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("modified", &self.modified).finish_non_exhaustive()
    }
}

impl Download {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.body.read(buffer)
    }
}

impl Client {
    /// Asks for the file at `address`, `http://…` or `https://…`, and follows where the server sends us.
    ///
    /// # Errors
    /// [`Error::Address`]; when there is no answer, or one that is no file.
    pub fn get(&self, address: &str) -> Result<Download, Error> {
        let url =
            Url::parse(address).map_err(|problem| Error::Address { address: address.to_owned(), problem })?;
        let mut attempts = Attempts::new(self.options().retries);
        loop {
            match self.follow(url.clone()) {
                Err(error) => attempts.wait(error, |_, _| {})?,
                download => return download,
            }
        }
    }

    fn follow(&self, mut url: Url) -> Result<Download, Error> {
        for _ in 0..=MAX_REDIRECTS {
            let http = Http::new(self.options(), url.authority(), self.options().insecure)?;
            let answer = http.send("GET", &url, &[], None)?;
            if answer.status.is_redirection() {
                url = answer.location()?;
                continue;
            }
            if !answer.status.is_success() {
                return Err(answer.refused(false));
            }
            let modified = answer.date(header::LAST_MODIFIED).map(seconds);
            return Ok(Download { modified, body: answer.into_body() });
        }
        let problem = format!("more than {MAX_REDIRECTS} redirections");
        Err(Error::Address { address: url.to_string(), problem })
    }
}

/// In seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let client = Client::new(crate::Options::default());
        for address in ["x", "ftp://h/x", "http://", "http://user@host/"] {
            assert!(matches!(client.get(address), Err(Error::Address { .. })), "{address}");
        }
    }
}
