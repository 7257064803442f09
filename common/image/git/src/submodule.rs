//! Parses `.gitmodules`: the addresses of the repositories whose commits are in a tree (gitmodules(5)).

use std::collections::BTreeMap;

/// The addresses of submodules, by their paths.
pub(crate) fn parse(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut path, mut url) = (None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            (path, url) = (None, None);
        } else if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_owned();
            match name.trim() {
                "path" => path = Some(value),
                "url" => url = Some(value),
                _ => {}
            }
            if let (Some(path), Some(url)) = (&path, &url) {
                found.insert(path.clone(), url.clone());
            }
        }
    }
    found
}

/// The full address of a submodule. `../other.git` is relative to the address of the repository.
pub(crate) fn resolve(url: &str, remote: &str) -> String {
    let mut base = remote.trim_end_matches('/').to_owned();
    let mut rest = url;
    if !rest.starts_with("./") && !rest.starts_with("../") {
        return rest.to_owned();
    }
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let root = base.find("://").map_or(0, |at| at + 3);
            // There is nothing above the root.
            if let Some(at) = base[root..].rfind('/') {
                base.truncate(root + at);
            }
        } else {
            break;
        }
    }
    format!("{base}/{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_submodules() {
        let text = "[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n[submodule \"b\"]\n  url=\"https://h/b\"\n  branch = x\n  path=b\n";
        let found = parse(text);
        assert_eq!(found["lib/a"], "../a.git");
        assert_eq!(found["b"], "https://h/b");
        assert_eq!(resolve("../a.git", "https://h/x/y.git"), "https://h/x/a.git");
        assert_eq!(resolve("./a", "https://h/x/y.git/"), "https://h/x/y.git/a");
        assert_eq!(resolve("../../../a", "https://h/x"), "https://h/a");
        assert_eq!(resolve("https://o/z", "https://h/x"), "https://o/z");
    }
}
