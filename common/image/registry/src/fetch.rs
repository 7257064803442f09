//! Downloads a file from any web server, with the same certificates, proxies and limits as for registries.

use std::{io, time::SystemTime};

use ureq::http::header;

use crate::{
    Client, Error,
    http::{Answer, AnswerBody, Http, MAX_REDIRECTIONS},
    retry::Attempts,
    url::{Url, authorization_in, without_user},
};

/// A file being downloaded.
pub struct Download {
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
    /// `Content-Encoding`, in lower case: how the server has compressed the file on the way. None for not at all.
    pub encoding: Option<String>,
    body: AnswerBody,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("modified", &self.modified).finish_non_exhaustive()
    }
}

impl Download {
    /// Reads the next bytes into `buffer` and returns their number; 0 at the end.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.body.read(buffer)
    }
}

/// An answer to a request.
pub struct Reply {
    /// `Content-Type`; empty if there is none.
    pub media_type: String,
    body: AnswerBody,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("media_type", &self.media_type).finish_non_exhaustive()
    }
}

impl io::Read for Reply {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(io::Error::other)
    }
}

impl Client {
    /// Downloads the file at `address` (`http://…` or `https://…`). Redirections are followed. `authorization`, or else
    /// a user and password in the address, is sent only to the host of `address`.
    ///
    /// # Errors
    /// [`Error::Address`]; when there is no answer, or the server rejects the request.
    pub fn get(&self, address: &str, authorization: Option<String>) -> Result<Download, Error> {
        let headers: Vec<_> =
            authorization.map(|value| (header::AUTHORIZATION.as_str(), value)).into_iter().collect();
        let answer = self.answer(address, &headers, None)?;
        let modified = answer.date(header::LAST_MODIFIED).map(seconds);
        let encoding = answer.header(header::CONTENT_ENCODING).map(str::to_ascii_lowercase);
        let encoding = encoding.filter(|encoding| !matches!(encoding.as_str(), "" | "identity"));
        Ok(Download { modified, encoding, body: answer.into_body() })
    }

    /// Sends a request with these headers: a POST if there is a body, otherwise a GET. Redirections are
    /// followed. An `Authorization` header is sent only to the host of `address`.
    ///
    /// # Errors
    /// [`Error::Address`]; when there is no answer, or the server rejects the request.
    pub fn ask(
        &self,
        address: &str,
        headers: &[(&'static str, String)],
        body: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let answer = self.answer(address, headers, body)?;
        let media_type = answer.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
        Ok(Reply { media_type, body: answer.into_body() })
    }

    /// Sends a request, with retries. Returns a successful answer.
    fn answer(
        &self,
        address: &str,
        headers: &[(&'static str, String)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Error> {
        let wrong = |problem| Error::Address { address: without_user(address), problem };
        let first = Url::parse(&without_user(address)).map_err(wrong)?;
        let is_authorization = |(name, _): &(&str, String)| name.eq_ignore_ascii_case("authorization");
        let own = authorization_in(address).filter(|_| !headers.iter().any(is_authorization));
        let own = own.map(|value| (header::AUTHORIZATION.as_str(), value));
        let headers: Vec<_> = headers.iter().cloned().chain(own).collect();
        let mut attempts = Attempts::new(self.options().retries);
        loop {
            match self.follow(&first, &headers, body) {
                Err(error) => attempts.wait(error, |_, _| {})?,
                answer => return answer,
            }
        }
    }

    fn follow(
        &self,
        first: &Url,
        headers: &[(&'static str, String)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Error> {
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTIONS {
            let http = Http::new(self.options(), url.authority(), self.options().insecure)?;
            let headers: Vec<_> = headers
                .iter()
                .filter(|(name, _)| *name != header::AUTHORIZATION.as_str() || url.same_origin(first))
                .cloned()
                .collect();
            let answer = match body {
                Some(mut content) => {
                    let size = content.len() as u64;
                    http.send("POST", &url, &headers, Some((&mut content, size)))?
                }
                None => http.send("GET", &url, &headers, None)?,
            };
            let status = answer.status.as_u16();
            if matches!(status, 307 | 308) || body.is_none() && answer.status.is_redirection() {
                url = answer.onward()?;
            } else if !answer.status.is_success() {
                return Err(answer.refused(false));
            } else {
                return Ok(answer);
            }
        }
        let problem = format!("more than {MAX_REDIRECTIONS} redirections");
        Err(Error::Address { address: url.to_string(), problem })
    }
}

/// The time in seconds since 1970.
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
        for address in ["x", "ftp://h/x", "http://"] {
            assert!(matches!(client.get(address, None), Err(Error::Address { .. })), "{address}");
        }
    }
}
