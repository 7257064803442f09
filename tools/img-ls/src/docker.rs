//! Rows in the form of `docker images`, and its filters.

use oci::{
    Layout, Reference,
    summary::{Summary, human_size},
    timestamp,
};
use serde_json::{Map, Value, json};
use toolkit::{
    listing::{Bounds, Filters, Row},
    prelude::*,
    rows,
};

/// The fields, with their headings (docs.docker.com, "docker image ls", Format).
pub(crate) const HEADINGS: [(&str, &str); 10] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// The keys of `--filter`.
const FILTERS: [&str; 5] = ["before", "dangling", "label", "reference", "since"];

/// A row for each name of an image, or one for an image without a name.
pub(crate) fn named(image: &Summary) -> Vec<Value> {
    let row = |repository: &str, tag: &str| {
        json!({
            "repository": repository, "tag": tag, "id": image.id, "digest": image.digest, "created": image.created,
            "size": image.size, "platform": image.platform,
        })
    };
    let names = image.references.iter().filter_map(|name| name.parse::<Reference>().ok());
    let named: Vec<_> =
        names.map(|name| row(&name.familiar_name(), name.tag().unwrap_or("<none>"))).collect();
    if named.is_empty() { vec![row("<none>", "<none>")] } else { named }
}

/// A row of [`named`] as Docker has it.
pub(crate) fn row(row: &Value, no_trunc: bool) -> Row {
    let id = rows::word(&row["id"]);
    let short = id.strip_prefix("sha256:").and_then(|digits| digits.get(..12)).unwrap_or(&id).to_owned();
    let created = row["created"].as_str().and_then(timestamp::parse);
    let at = created.map(|seconds| timestamp::format(seconds).replace('T', " ").replace('Z', " +0000 UTC"));
    let fields = json!({
        "ID": if no_trunc { id } else { short },
        "Repository": row["repository"],
        "Tag": row["tag"],
        "Digest": row["digest"],
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| timestamp::ago(then, timestamp::now())),
        "CreatedAt": at.unwrap_or_else(|| "N/A".to_owned()),
        "Size": human_size(row["size"].as_u64().unwrap_or_default()),
        // Docker has these here, too, and knows them in `system df` only.
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    });
    Row { fields, labels: Map::new() }
}

/// The images that the filters of `docker images` keep. As there, only the names that fit `reference` stay.
///
/// # Errors
/// When a filter is unknown, or names an image that is not there.
pub(crate) fn filtered(
    layout: &Layout,
    images: Vec<Summary>,
    filters: &[(String, String)],
) -> Result<Vec<Summary>> {
    let filters = Filters::new(filters, &FILTERS)?;
    let born = |image: &Summary| image.created.as_deref().and_then(timestamp::parse);
    let bounds = Bounds::new(filters, |_, name| {
        let digest = layout.find(name)?.digest().to_string();
        let all = layout.summaries()?;
        Ok(all.iter().find(|own| own.digest == digest).and_then(born))
    })?;
    let mut kept = Vec::new();
    for mut image in images {
        let dangling = image.references.is_empty();
        let fitting = |name: &String| filters.any("reference", |pattern| fits(name, pattern));
        image.references.retain(fitting);
        let is_kept = filters.truth("dangling", dangling)?
            && (!image.references.is_empty() || filters.of("reference").next().is_none())
            && (filters.of("label").next().is_none() || filters.labels(&labels(layout, &image)))
            && bounds.hold(|| Some(born(&image)));
        if is_kept {
            kept.push(image);
        }
    }
    Ok(kept)
}

fn labels(layout: &Layout, image: &Summary) -> Map<String, Value> {
    let found = layout.find(&image.digest).and_then(|descriptor| layout.image(&descriptor, None));
    let config = found.ok().and_then(|image| image.configuration.config().clone());
    let labels = config.and_then(|config| config.labels().clone()).unwrap_or_default();
    labels.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// Whether an image's name fits a pattern of a shell, with or without its tag: `busybox`, `bus*:1.*`, `*/web`.
fn fits(name: &str, pattern: &str) -> bool {
    let Ok(reference) = name.parse::<Reference>() else { return false };
    let familiar = reference.familiar_name();
    let full = format!("{familiar}:{}", reference.tag().unwrap_or_default());
    [familiar.as_str(), &full, name].iter().any(|name| matches(name.as_bytes(), pattern.as_bytes()))
}

/// A pattern with `*` and `?`, which do not stand for a slash (Go's `path.Match`).
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut place, mut star) = (0, 0, None);
    while at < text.len() {
        match pattern.get(place) {
            Some(b'*') => {
                star = Some((place, at));
                place += 1;
            }
            Some(b'?') if text[at] != b'/' => (at, place) = (at + 1, place + 1),
            Some(byte) if *byte == text[at] => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((after, from)) if text[from] != b'/' => {
                    star = Some((after, from + 1));
                    (at, place) = (from + 1, after + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[place.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names() {
        for (name, pattern, fit) in [
            ("docker.io/library/busybox:latest", "busybox", true),
            ("docker.io/library/busybox:latest", "bus*", true),
            ("docker.io/library/busybox:latest", "busybox:l?test", true),
            ("docker.io/library/busybox:latest", "busy", false),
            ("docker.io/library/busybox:latest", "*:1", false),
            ("example.org/a/web:1", "example.org/*/web", true),
            ("example.org/a/web:1", "example.org/*", false),
            ("example.org/a/web:1", "*", false),
            ("example.org/a/web:1", "", false),
        ] {
            assert_eq!(fits(name, pattern), fit, "{name} {pattern}");
        }
    }
}
