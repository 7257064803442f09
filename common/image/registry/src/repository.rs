//! A repository of a registry: sends requests, with authentication.

use std::{
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ureq::http::header;

use crate::{
    Error,
    auth::Authority,
    credentials::Credentials,
    http::{Answer, Http, MAX_REDIRECTIONS},
    retry::Attempts,
    url::Url,
};

/// The kind of access to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
    Delete,
}

/// A repository at one of its places.
#[derive(Debug)]
pub(crate) struct Repository {
    http: Http,
    base: Url,
    name: String,
    authority: Authority,
    retries: u32,
    /// Whether the registry has answered yet.
    reached: AtomicBool,
    /// Whether another place can be tried if this one fails.
    dispensable: bool,
}

/// Makes the body of a request and its size in bytes. Called for each attempt.
pub(crate) type MakeBody<'a> = &'a mut dyn FnMut() -> Result<(Box<dyn Read + 'a>, u64), Error>;

impl Repository {
    pub(crate) fn new(
        http: Http,
        base: Url,
        name: &str,
        access: Access,
        retries: u32,
        credentials: Option<Credentials>,
    ) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
            Access::Delete => "pull,delete",
        };
        let scope = format!("repository:{name}:{actions}");
        Self::of_scope(http, base, (name.to_owned(), scope), retries, credentials)
    }

    fn of_scope(
        http: Http,
        base: Url,
        (name, scope): (String, String),
        retries: u32,
        credentials: Option<Credentials>,
    ) -> Self {
        let authority = Authority::new(base.authority().to_owned(), credentials, scope);
        Self { http, base, name, authority, retries, reached: AtomicBool::new(false), dispensable: false }
    }

    /// A registry as a whole, for checking credentials.
    pub(crate) fn whole(http: Http, base: Url, retries: u32, credentials: Credentials) -> Self {
        Self::of_scope(http, base, Default::default(), retries, Some(credentials))
    }

    /// Marks the repository as one of several places. Until it has answered, its errors are not retried.
    pub(crate) fn dispensable(self) -> Self {
        Self { dispensable: true, ..self }
    }

    /// `/v2/<name>/<rest>`.
    pub(crate) fn url(&self, rest: &str) -> Result<Url, Error> {
        let path = format!("/v2/{}/{rest}", self.name);
        self.base.join(&path).map_err(|_| Error::Host(self.base.to_string()))
    }

    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.retries)
    }

    /// Calls `act`, with retries.
    pub(crate) fn patiently<T>(
        &self,
        tell: &dyn Fn(&Error, Duration),
        mut act: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut attempts = self.attempts();
        loop {
            match act() {
                // A mistyped host name should fail at once, not after half a minute.
                Err(error) if !self.reached.load(Ordering::Relaxed) && self.is_absent(&error) => {
                    return Err(error);
                }
                Err(error) => attempts.wait(error, tell)?,
                result => return result,
            }
        }
    }

    /// Sends a request, authenticates, and follows redirections. The answer may have any status.
    ///
    /// # Errors
    /// When there is no answer, or authentication fails.
    pub(crate) fn ask<'a>(
        &self,
        method: &'static str,
        url: Url,
        headers: &[(&'static str, String)],
        mut body: Option<MakeBody<'a>>,
    ) -> Result<Answer, Error> {
        let (mut url, mut redirections, mut renewals) = (url, 0, 0);
        loop {
            // Credentials are sent only to the registry itself, not to a host it redirects to.
            let at_home = url.same_origin(&self.base);
            let authorization = if at_home { self.authority.header() } else { None };
            let mut headers = headers.to_vec();
            headers.extend(authorization.clone().map(|value| (header::AUTHORIZATION.as_str(), value)));
            let answer = match &mut body {
                Some(make) => {
                    let (mut reader, size) = make()?;
                    self.http.send(method, &url, &headers, Some((&mut reader, size)))
                }
                None => self.http.send(method, &url, &headers, None),
            }?;
            self.reached.store(true, Ordering::Relaxed);
            match answer.status.as_u16() {
                401 if at_home && renewals < 2 => {
                    renewals += 1;
                    self.authority.renew(&self.http, authorization.as_deref(), answer)?;
                }
                status if redirects(status, method) => {
                    redirections += 1;
                    if redirections > MAX_REDIRECTIONS {
                        return Err(answer.wrong(format!("more than {MAX_REDIRECTIONS} redirections")));
                    }
                    url = answer.onward()?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Like [`Repository::ask`], but the answer must have one of these statuses.
    pub(crate) fn expect<'a>(
        &self,
        method: &'static str,
        url: Url,
        headers: &[(&'static str, String)],
        body: Option<MakeBody<'a>>,
        statuses: &[u16],
    ) -> Result<Answer, Error> {
        let answer = self.ask(method, url, headers, body)?;
        let status = answer.status;
        match statuses.contains(&status.as_u16()) {
            true => Ok(answer),
            false if status.is_success() || status.is_redirection() => {
                Err(answer.wrong(format!("answered {status}")))
            }
            false => {
                let elsewhere = !answer.request.url.same_origin(&self.base);
                Err(answer.refused(elsewhere))
            }
        }
    }

    fn is_absent(&self, error: &Error) -> bool {
        matches!(error, Error::Connection { cause, .. } if self.dispensable || cause.is_absence())
    }
}

/// Whether to repeat the request at the new address (RFC 9110, section 15.4). Statuses 301 to 303 turn other
/// methods into GET, so they are followed only for GET and HEAD.
fn redirects(status: u16, method: &str) -> bool {
    match status {
        301..=303 => matches!(method, "GET" | "HEAD"),
        307 | 308 => true,
        _ => false,
    }
}
