//! Parses `WWW-Authenticate` (RFC 9110, section 11.6.1): the credentials that a registry asks for.

use std::collections::HashMap;

use crate::http;

/// A scheme of authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token from the server at `realm` (OCI distribution-spec and Docker's token authentication).
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The known challenges in a header, in the order of the header.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, after) = take_token(rest);
        if word.is_empty() {
            break;
        }
        let spaced = after.trim_start();
        match (spaced.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = take_value(value.trim_start());
                parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), HashMap::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, mut parameters: HashMap<String, String>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service").filter(|service| !service.is_empty()),
            scope: parameters.remove("scope").filter(|scope| !scope.is_empty()),
        }),
        _ => None,
    }
}

fn take_token(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', '=', ',', '"']).unwrap_or(text.len());
    text.split_at(end)
}

/// Takes a token or a quoted string.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (value, rest) = http::quoted(quoted);
    // One that never ends goes to the end of the header.
    (value, rest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        for (header, expected) in [
            ("Basic realm=\"Registry Realm\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://a/token",service="reg",scope="repository:a/b:pull,push""#,
                vec![bearer("https://a/token", Some("reg"), Some("repository:a/b:pull,push"))],
            ),
            (r#"Bearer realm=https://a/t , service=s"#, vec![bearer("https://a/t", Some("s"), None)]),
            (
                r#"Negotiate, Bearer realm="x\"y", Basic realm="z, w""#,
                vec![bearer("x\"y", None, None), Challenge::Basic],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="never ends"#, vec![bearer("never ends", None, None)]),
            (r#"="x""#, vec![]),
            ("", vec![]),
            (r#"Digest realm="a", nonce="b""#, vec![]),
            ("\"", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
