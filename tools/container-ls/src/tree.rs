//! Containers as a tree: layers, snapshots and their forks, mounts, networks, ports, process.

use std::collections::BTreeSet;

use document::{
    Document, Id, Instance,
    members::{Image, Layers, On, Place, Rootfs},
};
use operation::Scope;
use serde::{Deserialize, Serialize};
use toolkit::prelude::Result;

use super::{container::Container, mounted::Mounted};

/// A line of the tree, and the lines below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) text: String,
    pub(crate) below: Vec<Node>,
}

/// A container that is to be drawn.
pub(crate) struct Drawn {
    id: Id,
    instance: Option<Instance>,
    /// The container and the snapshot that it stands on.
    on: Option<(Id, Instance, u32)>,
    title: String,
    /// What it has, without its snapshots.
    parts: Vec<Node>,
    /// How many snapshots it has.
    snapshots: usize,
}

/// A line without control characters, characters that change the direction of text, and characters that XML does not
/// have: what an image or a command is called may be hostile.
fn line(text: impl Into<String>) -> String {
    let text: String = text.into();
    let is_plain = |one: char| {
        !one.is_control()
            && !matches!(one, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|one| if is_plain(one) { one } else { '\u{fffd}' }).collect()
}

fn leaf(text: impl Into<String>) -> Node {
    Node { text: line(text), below: Vec::new() }
}

/// The parts under a heading. `None` if there are none.
fn under(heading: &str, parts: impl Iterator<Item = String>) -> Option<Node> {
    let below: Vec<_> = parts.map(leaf).collect();
    (!below.is_empty()).then(|| Node { text: heading.to_owned(), below })
}

impl Drawn {
    /// The container of a record.
    ///
    /// # Errors
    /// When the record is malformed.
    pub(crate) fn new(scope: &Scope, id: &Id, record: &Document) -> Result<Self> {
        let container = Container::new(scope, id, record, false)?;
        let rootfs: Option<Rootfs> = record.get()?;
        let image: Option<Image> = record.get()?;
        let name =
            image.map(|image| image.reference.unwrap_or_else(|| image.descriptor.digest().to_string()));
        let title = [Some(container.name.to_string()), Some(container.status.clone()), name];
        let layers = record.get::<Layers>()?.map(|layers| layers.0).unwrap_or_default();
        let layers = layers.into_iter().map(|layer| match layer.place {
            Place::Directory(path) | Place::Erofs(path) => path.display().to_string(),
        });
        let files = rootfs.iter().flat_map(|rootfs| {
            let top = rootfs.upper.as_ref().map(|path| format!("written to {}", path.display()));
            [Some(format!("mounted on {}", rootfs.path.display())), top].into_iter().flatten()
        });
        let attachments = record.attachments()?;
        let networks = attachments.iter().map(|one| {
            let addresses: Vec<_> = one.addresses().map(|address| address.to_string()).collect();
            format!("{}: {} on {}, {}", one.name, one.interface, link(&one.on), addresses.join(", "))
        });
        let process = container.pid.map(|pid| format!("{pid}: {}", container.command.join(" ")));
        let parts = [
            under("layers", layers),
            under("files", files),
            under("mounts", container.mounts.iter().map(mount)),
            under("networks", networks),
            under("ports", container.ports.iter().cloned()),
            under("process", process.into_iter()),
        ];
        let fork = rootfs.as_ref().and_then(|rootfs| rootfs.fork.clone());
        Ok(Self {
            id: id.clone(),
            instance: container.instance,
            on: fork.map(|fork| (fork.container, fork.instance, fork.snapshot)),
            title: line(title.into_iter().flatten().collect::<Vec<_>>().join("  ")),
            parts: parts.into_iter().flatten().collect(),
            snapshots: rootfs.as_ref().map_or(0, Rootfs::snapshots),
        })
    }

    /// Whether it stands on a snapshot of `other`.
    fn is_fork_of(&self, other: &Self) -> bool {
        let same = |(id, instance, _): &(Id, Instance, u32)| {
            *id == other.id && Some(instance) == other.instance.as_ref()
        };
        self.on.as_ref().is_some_and(same)
    }
}

/// The bridge or the parent of an attachment, in words.
fn link(on: &On) -> String {
    match on {
        On::Bridge(bridge) => format!("bridge {}", bridge.name),
        On::Parent(parent) => format!("{} of {}", parent.driver, parent.name),
    }
}

fn mount(one: &Mounted) -> String {
    let what = one.source.as_ref().map_or_else(|| one.r#type.clone(), |source| source.display().to_string());
    format!("{} from {what}{}", one.destination.display(), if one.readonly { ", read-only" } else { "" })
}

/// The tree of all containers. A fork is below the snapshot that it stands on, if that container is drawn as well.
pub(crate) fn grow(all: &[Drawn]) -> Vec<Node> {
    let mut seen = BTreeSet::new();
    let is_root = |one: &&Drawn| !all.iter().any(|other| one.is_fork_of(other));
    let mut roots: Vec<_> = all.iter().filter(is_root).map(|one| node(one, all, &mut seen)).collect();
    // Forks of each other: no tools make them, and none of them is lost.
    for one in all {
        if !seen.contains(&one.id) {
            roots.push(node(one, all, &mut seen));
        }
    }
    roots
}

fn node<'a>(one: &'a Drawn, all: &'a [Drawn], seen: &mut BTreeSet<&'a Id>) -> Node {
    seen.insert(&one.id);
    let mut below = one.parts.clone();
    let mut snapshots = Vec::new();
    for number in 0..=one.snapshots {
        let stands = |other: &&Drawn| {
            other.is_fork_of(one)
                && other.on.as_ref().is_some_and(|(_, _, on)| usize::try_from(*on) == Ok(number))
        };
        let mut forks = Vec::new();
        for fork in all.iter().filter(stands) {
            if !seen.contains(&fork.id) {
                forks.push(node(fork, all, seen));
            }
        }
        if number > 0 || !forks.is_empty() {
            snapshots.push(Node { text: format!("{}@{number}", one.id), below: forks });
        }
    }
    if !snapshots.is_empty() {
        below.push(Node { text: "snapshots".to_owned(), below: snapshots });
    }
    Node { text: one.title.clone(), below }
}

/// The tree as text.
pub(crate) fn text(nodes: &[Node]) -> String {
    let mut lines = String::new();
    for node in nodes {
        lines += &format!("{}\n", node.text);
        branches(&node.below, "", &mut lines);
    }
    lines
}

fn branches(nodes: &[Node], before: &str, lines: &mut String) {
    for (index, node) in nodes.iter().enumerate() {
        let is_last = index + 1 == nodes.len();
        let (branch, trunk) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        *lines += &format!("{before}{branch}{}\n", node.text);
        branches(&node.below, &format!("{before}{trunk}"), lines);
    }
}

/// The height of a line of the picture, in pixels.
const LINE: usize = 20;
/// How far a line is to the right of the one that it belongs to.
const INDENT: usize = 24;
/// The width of a character of the picture's font.
const CHARACTER: usize = 9;
/// The space around the picture.
const MARGIN: usize = 12;

/// The tree as a picture (SVG 1.1).
pub(crate) fn svg(nodes: &[Node]) -> String {
    let mut picture = Picture::default();
    for node in nodes {
        picture.draw(node, 0, None);
    }
    let (width, height) = (picture.width + 2 * MARGIN, picture.lines * LINE + 2 * MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <title>Containers</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <g fill=\"none\" stroke=\"gray\">\n{}</g>\n\
         <g font-family=\"monospace\" font-size=\"14\" fill=\"black\">\n{}</g>\n</svg>\n",
        picture.branches, picture.texts
    )
}

#[derive(Default)]
struct Picture {
    lines: usize,
    width: usize,
    branches: String,
    texts: String,
}

impl Picture {
    /// Draws a node in the next line. `from` is the line of the one that it belongs to.
    fn draw(&mut self, node: &Node, depth: usize, from: Option<usize>) {
        let (own, x) = (self.lines, MARGIN + depth * INDENT);
        let y = |line: usize| MARGIN + line * LINE + LINE / 2;
        if let Some(from) = from {
            let trunk = x - INDENT + 6;
            self.branches += &format!("<path d=\"M{trunk} {} V{} H{}\"/>\n", y(from) + 8, y(own), x - 4);
        }
        let weight = if depth == 0 { " font-weight=\"bold\"" } else { "" };
        self.texts +=
            &format!("<text x=\"{x}\" y=\"{}\"{weight}>{}</text>\n", y(own) + 5, escaped(&node.text));
        self.width = self.width.max(depth * INDENT + node.text.chars().count() * CHARACTER);
        self.lines += 1;
        for below in &node.below {
            self.draw(below, depth + 1, Some(own));
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(id: &str, on: Option<(&str, u32)>, snapshots: usize) -> Drawn {
        let instance = |id: &str| -> Instance { serde_json::from_str(&format!("\"{id}\"")).unwrap() };
        Drawn {
            id: id.parse().unwrap(),
            instance: Some(instance(id)),
            on: on.map(|(container, number)| (container.parse().unwrap(), instance(container), number)),
            title: id.to_owned(),
            parts: vec![leaf("a\u{1b}[31m<&>")],
            snapshots,
        }
    }

    #[test]
    fn forks_are_below_their_snapshots() {
        let all = [
            drawn("web", None, 2),
            drawn("try", Some(("web", 2)), 0),
            drawn("old", Some(("web", 0)), 0),
            drawn("lost", Some(("gone", 1)), 0),
        ];
        let tree = grow(&all);
        assert_eq!(
            text(&tree),
            "web\n├─ a\u{fffd}[31m<&>\n└─ snapshots\n   ├─ web@0\n   │  └─ old\n   │     └─ a\u{fffd}[31m<&>\n   ├─ web@1\n   \
             └─ web@2\n      └─ try\n         └─ a\u{fffd}[31m<&>\nlost\n└─ a\u{fffd}[31m<&>\n"
        );
        let picture = svg(&tree);
        assert_eq!(picture.matches("<text").count(), 12);
        assert_eq!(picture.matches("<path").count(), 10);
        assert!(
            picture.contains(">a\u{fffd}[31m&lt;&amp;&gt;</text>") && picture.contains("height=\"264\""),
            "{picture}"
        );
    }

    #[test]
    fn forks_of_each_other_are_drawn_once() {
        let all = [drawn("a", Some(("b", 0)), 0), drawn("b", Some(("a", 0)), 0)];
        assert_eq!(
            text(&grow(&all)).matches("├─ a\u{fffd}").count()
                + text(&grow(&all)).matches("└─ a\u{fffd}").count(),
            2
        );
    }
}
