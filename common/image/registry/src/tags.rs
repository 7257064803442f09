//! The tags of a repository (OCI distribution-spec, "Listing Tags").

use oci::{Reference, layout::MAX_JSON};
use serde::Deserialize;
use ureq::http::header;

use crate::{
    Client, Error,
    http::Answer,
    repository::{Access, Repository},
    url::Url,
};

/// How many tags are asked for at a time.
const PAGE: u32 = 1000;
/// The limit of pages: a million tags.
const MAX_PAGES: u32 = 1000;
/// The limit of all names together, in bytes.
const MAX_NAMES: usize = 128 << 20;

#[derive(Deserialize)]
struct List {
    /// Go writes null for none.
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository, in the order of their names.
    ///
    /// # Errors
    /// When the registry refuses, or its answer is not a list.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        let repository = self.repository(repository, Access::Pull)?;
        let mut next = Some(repository.url("tags/list")?.with("n", &PAGE.to_string()));
        let (mut tags, mut size) = (Vec::new(), 0);
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { break };
            let page = page(&repository, url.clone())?;
            size += page.tags.iter().map(String::len).sum::<usize>();
            if size > MAX_NAMES {
                let problem = format!("its tags have more than {} MiB", MAX_NAMES >> 20);
                return Err(Error::Content { name: url.to_string(), problem });
            }
            // A list that goes on with nothing, or where it is, never ends.
            next = page.next.filter(|next| !page.tags.is_empty() && *next != url);
            tags.extend(page.tags);
        }
        tags.sort();
        Ok(tags)
    }
}

struct Page {
    tags: Vec<String>,
    next: Option<Url>,
}

fn page(repository: &Repository, url: Url) -> Result<Page, Error> {
    repository.patiently(&|_, _| {}, || {
        let answer = repository.expect("GET", url.clone(), &[], None, &[200])?;
        let (request, next) = (answer.request.clone(), following(&answer)?);
        let content = answer.read(MAX_JSON)?;
        let list: List = oci::json::from_slice(&content)
            .map_err(|error| Error::Answer { request, problem: format!("not a list of tags: {error}") })?;
        Ok(Page { tags: list.tags.unwrap_or_default(), next })
    })
}

/// Where the list goes on: `Link: <address>; rel="next"` (RFC 8288).
pub(crate) fn following(answer: &Answer) -> Result<Option<Url>, Error> {
    let Some(target) = answer.header(header::LINK).and_then(next) else { return Ok(None) };
    answer.request.url.join(target).map(Some).map_err(|problem| answer.wrong(format!("Link: {problem}")))
}

fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn links() {
        for (link, expected) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("<https://h/x>;rel=next", Some("https://h/x")),
            (r#"</first>; rel="first", </next>; title="x"; REL="Next""#, Some("/next")),
            (r#"</x>; rel="prev""#, None),
            ("/x", None),
            ("", None),
        ] {
            assert_eq!(next(link), expected, "{link}");
        }
    }
}
