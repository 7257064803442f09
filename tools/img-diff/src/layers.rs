//! Compares the files of two images' layers.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
};

use archive::{Decompressed, Entry, Limits, Reader};
use oci::{
    Digest, Image, Layout,
    digest::{Algorithm, Hashing},
    spec::Descriptor,
};
use serde_json::{Map, Value, json};
use toolkit::prelude::*;

use super::Difference;

/// The properties of a file.
type Facts = Map<String, Value>;

/// The properties, in the order in which they are reported.
const FACTS: [&str; 10] =
    ["kind", "mode", "uid", "gid", "time", "link", "device", "attributes", "size", "content"];

/// Compares each layer with the layer of the same number.
pub(crate) fn compare(layout: &Layout, a: &Image, b: &Image, found: &mut Vec<Difference>) -> Result<()> {
    let (a, b) = (a.layers()?, b.layers()?);
    for number in 0..a.len().max(b.len()) {
        match (a.get(number), b.get(number)) {
            (Some((own, own_id)), Some((other, other_id))) if own_id != other_id => {
                files(number, &read(layout, own)?, &read(layout, other)?, found);
            }
            // The same content, compressed differently.
            (Some((own, _)), Some((other, _))) if own.digest() != other.digest() => {
                let [a, b] = [own, other].map(|layer| json!([layer.media_type(), layer.digest()]));
                found.push(Difference { layer: Some(number), path: String::new(), what: "blob", a, b });
            }
            (Some(_), Some(_)) => {}
            (one, other) => {
                let id = |layer: Option<&(&Descriptor, Digest)>| json!(layer.map(|(_, id)| id.to_string()));
                let (a, b) = (id(one), id(other));
                found.push(Difference { layer: Some(number), path: String::new(), what: "layer", a, b });
            }
        }
    }
    Ok(())
}

fn files(
    number: usize,
    a: &BTreeMap<String, Facts>,
    b: &BTreeMap<String, Facts>,
    found: &mut Vec<Difference>,
) {
    let mut add = |path: &str, what, a: Value, b: Value| {
        found.push(Difference { layer: Some(number), path: path.to_owned(), what, a, b });
    };
    for (path, own) in a {
        match b.get(path) {
            None => add(path, "file", own["kind"].clone(), Value::Null),
            Some(other) => {
                for what in FACTS.into_iter().filter(|what| own.get(*what) != other.get(*what)) {
                    let value = |facts: &Facts| facts.get(what).cloned().unwrap_or_default();
                    add(path, what, value(own), value(other));
                }
            }
        }
    }
    for (path, other) in b.iter().filter(|(path, _)| !a.contains_key(*path)) {
        add(path, "file", Value::Null, other["kind"].clone());
    }
    // The entries are the same. Their order differs, or something that is not in an entry.
    if a == b {
        add("", "archive", Value::Null, Value::Null);
    }
}

/// The properties of each file of a layer, by path.
fn read(layout: &Layout, layer: &Descriptor) -> Result<BTreeMap<String, Facts>> {
    let failed = |error: io::Error| anyhow!("read layer {}: {error}", layer.digest());
    let blob = layout.blob_reader(layer)?;
    let content = Decompressed::new(blob, Limits::default()).map_err(failed)?;
    let mut reader = Reader::new(content);
    let mut files = BTreeMap::new();
    while let Some(entry) = reader.next().map_err(|error| failed(error.into()))? {
        let content = content_of(&mut reader).map_err(failed)?;
        let path = String::from_utf8_lossy(&entry.path).trim_end_matches('/').to_owned();
        files.insert(path, facts(&entry, &content));
    }
    Ok(files)
}

/// The SHA-256 digest of an entry's content.
fn content_of<R: BufRead>(reader: &mut Reader<R>) -> io::Result<Digest> {
    let mut hash = Hashing::new(io::sink(), Algorithm::Sha256);
    loop {
        let data = reader.data().map_err(io::Error::from)?;
        let length = data.len();
        if length == 0 {
            return Ok(hash.finish().1);
        }
        io::Write::write_all(&mut hash, data)?;
        reader.consume(length);
    }
}

fn facts(entry: &Entry, content: &Digest) -> Facts {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut facts = Facts::new();
    let mut add = |name: &str, value: Value| drop(facts.insert(name.to_owned(), value));
    add("kind", json!(format!("{:?}", entry.kind)));
    add("mode", json!(format!("{:o}", entry.mode)));
    add("uid", json!(entry.uid));
    add("gid", json!(entry.gid));
    let time = match entry.mtime.nanoseconds {
        0 => json!(oci::timestamp::format(entry.mtime.seconds)),
        nanoseconds => json!(format!("{} +{nanoseconds} ns", oci::timestamp::format(entry.mtime.seconds))),
    };
    add("time", time);
    if !entry.link.is_empty() {
        add("link", json!(text(&entry.link)));
    }
    if entry.device != (0, 0) {
        add("device", json!([entry.device.0, entry.device.1]));
    }
    let attributes: BTreeMap<String, String> =
        entry.xattrs.iter().map(|(name, value)| (text(name), text(value))).collect();
    if !attributes.is_empty() {
        add("attributes", json!(attributes));
    }
    add("size", json!(entry.size));
    add("content", json!(content.to_string()));
    facts
}
