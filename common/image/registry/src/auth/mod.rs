//! Authentication: the `Authorization` header for one repository.

mod challenge;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use ureq::http::header;

use crate::{
    Error,
    credentials::Credentials,
    http::{Answer, Http},
    url::{Url, encode},
};
use challenge::Challenge;

/// The maximum size of a token server's answer, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// The state of the authentication with a registry.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The registry's host.
    registry: String,
    credentials: Option<Credentials>,
    /// The scope to ask for, `repository:<name>:pull` or similar.
    scope: String,
    /// The latest header, from the last authentication.
    header: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authority {
    pub(crate) fn new(registry: String, credentials: Option<Credentials>, scope: String) -> Self {
        Self { registry, credentials, scope, header: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header to send.
    pub(crate) fn header(&self) -> Option<String> {
        self.lock().clone()
    }

    /// A new header to use instead of `used`, which `answer` rejected.
    ///
    /// # Errors
    /// The answer as an error if there is no other header. When the token cannot be fetched.
    pub(crate) fn renew(&self, http: &Http, used: Option<&str>, answer: Answer) -> Result<String, Error> {
        // The lock is held while the token is fetched, so that other threads wait and do not fetch their own.
        let mut header = self.lock();
        if let Some(newer) = header.as_deref().filter(|current| Some(*current) != used) {
            return Ok(newer.to_owned());
        }
        let headers = answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> =
            headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        for challenge in challenges {
            let new = match challenge {
                Challenge::Basic => self.credentials.as_ref().and_then(Credentials::basic),
                Challenge::Bearer { realm, service, scope } => {
                    let scopes = scopes(scope.as_deref().unwrap_or_default(), &self.scope);
                    Some(self.token(http, &answer, &realm, service.as_deref(), &scopes)?)
                }
            };
            if let Some(new) = new.filter(|new| Some(new.as_str()) != used) {
                *header = Some(new.clone());
                return Ok(new);
            }
        }
        *header = None;
        Err(self.refused(answer))
    }

    /// The answer as an error. If a missing program might have had the credentials, that is reported instead.
    fn refused(&self, answer: Answer) -> Error {
        let absence = self.credentials.as_ref().and_then(|found| found.absence(&self.registry));
        absence.unwrap_or_else(|| answer.refused(false))
    }

    /// Fetches a token from the registry's token server.
    fn token(
        &self,
        http: &Http,
        answer: &Answer,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<String, Error> {
        let realm = Url::parse(realm).map_err(|problem| answer.wrong(format!("token server: {problem}")))?;
        if self.credentials.as_ref().is_some_and(Credentials::are_secret)
            && answer.request.url.is_tls()
            && !realm.is_tls()
        {
            return Err(answer.wrong(format!("token server {realm} would get the password unencrypted")));
        }
        let reply = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let mut form = format!(
                    "grant_type=refresh_token&client_id=stave&refresh_token={}&scope={}",
                    encode(token),
                    encode(&scopes.join(" "))
                );
                if let Some(service) = service {
                    form += &format!("&service={}", encode(service));
                }
                let kind = (header::CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded".to_owned());
                http.send("POST", &realm, &[kind], Some((&mut form.as_bytes(), form.len() as u64)))?
            }
            credentials => {
                let mut url = realm;
                if let Some(service) = service {
                    url = url.with("service", service);
                }
                for scope in scopes {
                    url = url.with("scope", scope);
                }
                let basic = credentials.as_ref().and_then(Credentials::basic);
                let header: Vec<_> =
                    basic.map(|basic| (header::AUTHORIZATION.as_str(), basic)).into_iter().collect();
                http.send("GET", &url, &header, None)?
            }
        };
        if !reply.status.is_success() {
            return Err(self.refused(reply));
        }
        let request = reply.request.clone();
        let wrong = |problem: String| Error::Answer { request: request.clone(), problem };
        let content = reply.read(MAX_TOKEN)?;
        let token: Token =
            serde_json::from_slice(&content).map_err(|error| wrong(format!("not a token: {error}")))?;
        // Servers in Go write an empty string for the one that they do not give.
        let token = [token.token, token.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = token.ok_or_else(|| wrong("not a token: none in it".to_owned()))?;
        match token.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(format!("Bearer {token}")),
            false => Err(wrong("not a token: it has spaces or control characters".to_owned())),
        }
    }
}

/// The scopes to ask for: those that the registry names (one string may hold several; Docker's token
/// authentication, "Resource scope") and our own. One token then covers everything.
fn scopes(named: &str, own: &str) -> Vec<String> {
    let mut scopes: Vec<String> =
        [own].into_iter().filter(|own| !own.is_empty()).map(str::to_owned).collect();
    for scope in named.split(' ').filter(|scope| !scope.is_empty()) {
        let same = |other: &&mut String| {
            let resource = |scope: &str| scope.rsplit_once(':').map(|(resource, _)| resource.to_owned());
            resource(other) == resource(scope)
        };
        match scopes.iter_mut().find(same) {
            Some(known) => {
                let had: Vec<String> =
                    known.rsplit(':').next().unwrap_or_default().split(',').map(str::to_owned).collect();
                let actions = scope.rsplit(':').next().unwrap_or_default().split(',');
                for action in actions.filter(|action| !had.iter().any(|own| own == action)) {
                    known.push_str(&format!(",{action}"));
                }
            }
            None => scopes.push(scope.to_owned()),
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::scopes;

    #[test]
    fn one_token_for_all_that_is_about_to_be_done() {
        let own = "repository:a/b:pull,push";
        for (named, expected) in [
            ("", vec![own]),
            ("repository:a/b:pull", vec![own]),
            ("repository:a/b:pull,delete", vec!["repository:a/b:pull,push,delete"]),
            ("repository:a/b:pull,push repository:c:pull", vec![own, "repository:c:pull"]),
            ("registry:catalog:*", vec![own, "registry:catalog:*"]),
        ] {
            assert_eq!(scopes(named, own), expected, "{named}");
        }
    }
}
