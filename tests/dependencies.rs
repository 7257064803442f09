//! Dependencies point one way: tools → toolkit → document; tools → domain crates → operation; never up, and
//! never sideways between image, network and process (docs/architecture.md).

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;
use testkit::repository;

/// What a crate may depend on: whole domains, or single crates (`operation` is one of `pipe`). A domain is a folder of
/// `common/`. The crates of `tooling` join domains, each only those that it needs, so they have a line each. Tools may
/// depend on every crate, and nobody depends on a tool.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("pipe", &["pipe", "filesystem"]),
    ("kernel", &["operation"]),
    ("filesystem", &["operation", "kernel", "filesystem"]),
    ("transport", &[]),
    ("image", &["operation", "filesystem", "transport", "image"]),
    ("network", &["operation", "kernel", "filesystem", "transport", "network"]),
    ("process", &["operation", "kernel", "filesystem", "process"]),
    ("attachment", &["pipe", "network"]),
    ("attach-flags", &["pipe", "network", "attachment"]),
    ("builder", &["operation", "filesystem", "image", "network", "process"]),
    ("plugin", &["pipe", "network", "attachment"]),
    ("remote", &["pipe", "image"]),
    ("limits", &["pipe"]),
    ("life", &["operation", "document", "filesystem", "process"]),
    ("union", &["pipe", "filesystem", "image"]),
    ("testkit", &["kernel"]),
];

/// A package of the workspace.
struct Package {
    /// The crate's directory below `common/`, or `tools`, or `tests`.
    domain: String,
    /// The names of the packages on which it depends, outside of its tests.
    dependencies: Vec<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let manifest = package["manifest_path"].as_str().unwrap();
        let below = manifest.strip_prefix(&format!("{}/", repository().display())).unwrap();
        let domain = below.strip_prefix("common/").unwrap_or(below).split('/').next().unwrap().to_owned();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let needed = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let dependencies = needed.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), Package { domain, dependencies })
    });
    packages.collect()
}

/// Why a crate of `domain` must not depend on `dependency`. None if it may.
fn forbidden(
    packages: &BTreeMap<String, Package>,
    domain: &str,
    name: &str,
    dependency: &str,
) -> Option<String> {
    let Some(other) = packages.get(dependency) else {
        let library = !["tools", "tests"].contains(&domain)
            && !["toolkit", "remote", "limits", "attach-flags"].contains(&name);
        return (library && domain != "testkit" && ["clap", "anyhow"].contains(&dependency))
            .then(|| "a library knows neither the command line nor anyhow".to_owned());
    };
    match (name, dependency) {
        (_, "testkit") => return Some("testkit is for tests alone".to_owned()),
        ("operation", _) => return Some("operation stands alone".to_owned()),
        ("document", "toolkit") => return Some("the document does not know its readers".to_owned()),
        _ => {}
    }
    let row_name = match domain {
        "tools" | "tests" => return (other.domain == "tools").then(|| "nobody depends on a tool".to_owned()),
        "tooling" => name,
        domain => domain,
    };
    let Some((_, allowed)) = ALLOWED.iter().find(|(row, _)| *row == row_name) else {
        return Some(format!("{row_name} is not in the table ALLOWED"));
    };
    let is_allowed = allowed.contains(&other.domain.as_str()) || allowed.contains(&dependency);
    (!is_allowed).then(|| format!("{row_name} may use {allowed:?} only"))
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    assert!(packages.len() > 20, "only {} packages were found", packages.len());
    let mut wrong = Vec::new();
    for (name, package) in &packages {
        for dependency in &package.dependencies {
            let reason = forbidden(&packages, &package.domain, name, dependency);
            wrong.extend(reason.map(|reason| format!("{name} → {dependency}: {reason}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// docs/architecture.md shows where each crate of `common/` belongs.
#[test]
fn the_page_of_the_architecture_names_every_crate() {
    let page = std::fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    let diagram = page.split("```").nth(1).unwrap();
    let words: Vec<&str> =
        diagram.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').collect();
    let packages = packages();
    let crates =
        packages.iter().filter(|(_, package)| !["tools", "tests"].contains(&package.domain.as_str()));
    let missing: Vec<_> =
        crates.map(|(name, _)| name).filter(|name| !words.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "not in the diagram: {missing:?}");
}

#[test]
fn asynchronous_code_stays_in_netlink() {
    for (name, package) in packages() {
        let runtime = package
            .dependencies
            .iter()
            .find(|name| ["tokio", "rtnetlink", "futures"].contains(&name.as_str()));
        assert!(name == "netlink" || runtime.is_none(), "{name} → {runtime:?}");
    }
}

/// `.cargo/pins` is `Cargo.lock` without the lines that name the registry.
#[test]
fn what_is_built_is_what_is_pinned() {
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let (pins, lock) = (read(".cargo/pins"), read("Cargo.lock"));
    assert!(!pins.contains("://"), "a file of the repository names a host");
    let stripped: String = lock.split_inclusive('\n').filter(|line| !line.starts_with("source = ")).collect();
    assert!(stripped == pins, "Cargo.lock is not what .cargo/pins lists: run scripts/lock --update");
}

#[test]
fn every_tool_has_a_thin_main() {
    for (name, package) in packages() {
        if package.domain != "tools" {
            continue;
        }
        let main =
            std::fs::read_to_string(repository().join("tools").join(&name).join("src/main.rs")).unwrap();
        assert!(main.starts_with("//! "), "{name}: main.rs starts with what the tool does");
        let lines = main.lines().count();
        assert!(lines <= 200, "{name}: main.rs has {lines} lines; what is more than a main goes to common/");
    }
}

/// A tool without unit tests is not built a second time for them (`test = false`). A tool with unit tests is.
#[test]
fn tests_inside_of_tools_are_run() {
    for (name, package) in packages() {
        if package.domain != "tools" {
            continue;
        }
        let directory = repository().join("tools").join(&name);
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let output =
            Command::new("grep").args(["-rlF", "#[test]"]).arg(directory.join("src")).output().unwrap();
        let inside = String::from_utf8(output.stdout).unwrap();
        assert_eq!(manifest.contains("\ntest = false\n"), inside.is_empty(), "{name}: tests in {inside:?}");
    }
}

/// The one file that is shipped has all tools, under their names, and nothing else.
#[test]
fn one_file_has_all_tools() {
    let main = std::fs::read_to_string(repository().join("tools/stave-tools/src/main.rs")).unwrap();
    let listed: Vec<String> = main
        .lines()
        .filter_map(|line| line.trim().strip_suffix("/src/main.rs\";"))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let name = words[0].trim_matches('"');
            assert_eq!(words[1..], [name.replace('-', "_"), format!("\"../../{name}")], "{line}");
            name.to_owned()
        })
        .collect();
    let programs = ["example-web", "stave-tools"];
    let is_tool = |(name, package): &(&String, &Package)| {
        package.domain == "tools" && !programs.contains(&name.as_str())
    };
    let packages = packages();
    let tools: Vec<&String> = packages.iter().filter(is_tool).map(|(name, _)| name).collect();
    assert_eq!(listed.iter().collect::<Vec<_>>(), tools);
}
