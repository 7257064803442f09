//! Lists the tags of a repository (OCI distribution-spec, "Listing Tags").

use oci::{Reference, layout::MAX_JSON};
use serde::Deserialize;
use ureq::http::header;

use crate::{
    Client, Error,
    http::{self, Answer},
    repository::{Access, Repository},
    url::Url,
};

/// How many tags to ask for at a time.
const PAGE: u32 = 1000;
/// The maximum number of pages, for a million tags.
const MAX_PAGES: u32 = 1000;
/// The maximum size of all names together, in bytes.
const MAX_NAMES: usize = 128 << 20;

#[derive(Deserialize)]
struct List {
    /// Go writes null for an empty list.
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository, sorted by name.
    ///
    /// # Errors
    /// When the registry rejects the request, or its answer is not a list.
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
            // A list whose next page is empty, or is the same page, would never end.
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

/// The next page: `Link: <address>; rel="next"` (RFC 8288).
///
/// # Errors
/// When the header is malformed: without the next page, the list would be a part of itself.
pub(crate) fn following(answer: &Answer) -> Result<Option<Url>, Error> {
    let wrong = |problem: &str| answer.wrong(format!("Link: {problem}"));
    for link in answer.headers.get_all(header::LINK) {
        let link = link.to_str().map_err(|_| wrong("it is not in ASCII"))?;
        if let Some(target) = next(link).map_err(wrong)? {
            return answer.request.url.join(target).map(Some).map_err(|problem| wrong(&problem.to_string()));
        }
    }
    Ok(None)
}

/// The address of the link with the relation `next`, in a list of links. Addresses and quoted values may have
/// commas and semicolons in them.
fn next(list: &str) -> Result<Option<&str>, &'static str> {
    let mut rest = list.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let link = rest.strip_prefix('<').ok_or("an address is not in <>")?;
        let (target, parameters) = link.split_once('>').ok_or("an address has no end")?;
        rest = parameters.trim_start();
        // Only the first `rel` of a link counts.
        let mut relation: Option<String> = None;
        while let Some(parameter) = rest.strip_prefix(';') {
            let parameter = parameter.trim_start();
            let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
            let (name, after) = parameter.split_at(end);
            let (value, after) = match after.strip_prefix('=') {
                Some(value) => value_of(value.trim_start())?,
                None => (String::new(), after),
            };
            if name.trim().eq_ignore_ascii_case("rel") {
                relation.get_or_insert(value);
            }
            rest = after.trim_start();
        }
        let mut relations = relation.iter().flat_map(|relation| relation.split_ascii_whitespace());
        if relations.any(|relation| relation.eq_ignore_ascii_case("next")) {
            return Ok(Some(target));
        }
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err("there is something between two links");
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Ok(None)
}

/// The value of a parameter, a token or a quoted string (RFC 9110, section 5.6), and what follows it.
fn value_of(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
        return Ok((token.trim_end().to_owned(), rest));
    };
    let (value, rest) = http::quoted(quoted);
    Ok((value, rest.ok_or("a quoted value has no end")?))
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn links() {
        for (link, expected) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Ok(Some("/v2/a/tags/list?n=2&last=b"))),
            ("<https://h/x>;rel=next", Ok(Some("https://h/x"))),
            (r#"</first>; rel="first", </next>; title="x"; REL="Next""#, Ok(Some("/next"))),
            (r#"</x?last=a,b;c>; rel="next""#, Ok(Some("/x?last=a,b;c"))),
            (r#"</x>; title="a, b; rel=x \", <c>"; rel="next""#, Ok(Some("/x"))),
            (r#"</x>; title="a,b", </y> ; rel = "last next" , </z>; rel=next"#, Ok(Some("/y"))),
            (r#"</x>; crossorigin; rel="prev"; rel="next""#, Ok(None)),
            (r#"</x>; rel="prev""#, Ok(None)),
            ("", Ok(None)),
            (" , ", Ok(None)),
            (r#"/x; rel="next""#, Err("an address is not in <>")),
            ("</x; rel=next", Err("an address has no end")),
            (r#"</x>; rel="next"#, Err("a quoted value has no end")),
            ("</x> </y>; rel=next", Err("there is something between two links")),
        ] {
            assert_eq!(next(link), expected, "{link}");
        }
    }
}
