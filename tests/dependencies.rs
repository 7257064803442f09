//! Dependencies point one way: tools → toolkit → document and operation; domain crates → operation.
//! (docs/architecture.md)

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;
use testkit::repository;

/// What lies between the tools and the domains: it may know the document and the command line.
const CONTRACT: [&str; 3] = ["operation", "document", "toolkit"];

/// The packages of the workspace: name → (folder, names of the packages that it depends on outside of its tests).
fn packages() -> BTreeMap<String, (String, Vec<String>)> {
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
        let folder =
            manifest.strip_prefix(&format!("{}/", repository().display())).unwrap().split('/').next();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let needed = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let names = needed.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), (folder.unwrap().to_owned(), names))
    });
    packages.collect()
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    assert!(packages.len() > 20, "only {} packages were found", packages.len());
    let folder = |name: &str| packages.get(name).map(|(folder, _)| folder.as_str());
    let mut wrong = Vec::new();
    for (name, (own_folder, dependencies)) in &packages {
        for dependency in dependencies {
            let reason = match (own_folder.as_str(), name.as_str(), dependency.as_str()) {
                (_, _, "testkit") => Some("testkit is for tests alone"),
                (_, _, other) if folder(other) == Some("tools") => Some("nobody depends on a tool"),
                ("common", "testkit", _) => None,
                ("common", "toolkit", _) => None,
                ("common", _, "clap" | "anyhow") => {
                    Some("a library knows neither the command line nor anyhow")
                }
                ("common", "operation", other) if folder(other).is_some() => Some("operation stands alone"),
                ("common", "document", "toolkit") => Some("the document does not know who reads it"),
                ("common", domain, "document" | "toolkit") if !CONTRACT.contains(&domain) => {
                    Some("a domain crate does not know the document")
                }
                _ => None,
            };
            wrong.extend(reason.map(|reason| format!("{name} → {dependency}: {reason}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn asynchronous_code_stays_in_netlink() {
    for (name, (_, dependencies)) in packages() {
        let runtime =
            dependencies.iter().find(|name| ["tokio", "rtnetlink", "futures"].contains(&name.as_str()));
        assert!(name == "netlink" || runtime.is_none(), "{name} → {runtime:?}");
    }
}

#[test]
fn every_tool_has_a_thin_main() {
    for (name, (folder, _)) in packages() {
        if folder != "tools" {
            continue;
        }
        let main =
            std::fs::read_to_string(repository().join("tools").join(&name).join("src/main.rs")).unwrap();
        assert!(main.starts_with("//! "), "{name}: main.rs starts with what the tool does");
        let lines = main.lines().count();
        assert!(lines <= 200, "{name}: main.rs has {lines} lines; what is more than a main goes to common/");
    }
}
