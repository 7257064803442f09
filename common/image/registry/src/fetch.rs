//! A file on any web server, in the way that registries are reached: the same certificates, proxies and limits.

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
                return Err(answer.refused());
            }
            let modified = answer.header("last-modified").and_then(http_date);
            return Ok(Download { modified, body: answer.into_body() });
        }
        let problem = format!("more than {MAX_REDIRECTS} redirections");
        Err(Error::Address { address: url.to_string(), problem })
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7); older forms are taken for none.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.trim().split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    oci::timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses() {
        let client = Client::new(crate::Options::default());
        for address in ["x", "ftp://h/x", "http://", "http://user@host/"] {
            assert!(matches!(client.get(address), Err(Error::Address { .. })), "{address}");
        }
    }
}
