//! What the shipped program is made of: licences that allow it, one version of each crate, and a reason
//! beside each direct dependency.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in two versions, and why.
const TWICE: [(&str, &str); 0] = [];

/// What cargo knows of all packages, for every system.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |more: &[&str]| {
        let words = ["metadata", "--locked", "--format-version", "1"];
        let mut command = Command::new(&cargo);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(words).args(more).output().unwrap()
    };
    // Crates of other systems are downloaded only where somebody asks for them.
    let offline = ask(&["--offline"]);
    let output = if offline.status.success() { offline } else { ask(&[]) };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

/// The packages of the shipped program: what it needs, and what that needs, not for tests.
fn shipped(metadata: &Value) -> Vec<&Value> {
    let nodes = list(&metadata["resolve"], "nodes");
    let by_id: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let mut waiting = vec![metadata["resolve"]["root"].as_str().unwrap()];
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !found.insert(id) {
            continue;
        }
        let is_part = |edge: &&Value| list(edge, "dep_kinds").iter().any(|kind| kind["kind"] != "dev");
        let edges = list(by_id[id], "deps").iter().filter(is_part);
        waiting.extend(edges.map(|edge| edge["pkg"].as_str().unwrap()));
    }
    list(metadata, "packages")
        .iter()
        .filter(|package| found.contains(package["id"].as_str().unwrap()))
        .collect()
}

/// Whether a licence expression can be met with allowed ones.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace("  ", " ");
    // Without parentheses `AND` binds closer than `OR`; those of crates stand round an alternative.
    let part = |text: &str| {
        text.split(" OR ").any(|one| one.split(" AND ").all(|one| ALLOWED.contains(&one.trim())))
    };
    match (expression.find('('), expression.find(')')) {
        (Some(open), Some(close)) if open < close => {
            let inner = part(&expression[open + 1..close]);
            let one = if inner { "MIT" } else { "refused" };
            is_allowed(&format!("{}{one}{}", &expression[..open], &expression[close + 1..]))
        }
        _ => part(&expression),
    }
}

#[test]
fn licences_are_read_as_expressions() {
    for good in
        ["MIT", "MIT OR GPL-3.0", "Apache-2.0/GPL-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "Zlib AND MIT"]
    {
        assert!(is_allowed(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR MPL-2.0) AND MIT", ""] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn every_part_of_the_program_has_a_licence_that_allows_it() {
    let metadata = metadata();
    let packages = shipped(&metadata);
    assert!(packages.len() > 20, "{}", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or_default()))
        .map(|package| format!("{} ({})", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join(", "));
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in shipped(&metadata) {
        versions
            .entry(package["name"].as_str().unwrap())
            .or_default()
            .push(package["version"].as_str().unwrap());
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (name, versions) in &versions {
        assert!(TWICE.iter().any(|(known, _)| known == name), "{name}: {}", versions.join(", "));
    }
    for (name, reason) in TWICE {
        assert!(versions.contains_key(name), "{name} is there once: `{reason}` is no longer needed");
    }
}

#[test]
fn each_direct_dependency_says_what_it_is_for() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, table) = text.split_once("[dependencies]\n").unwrap();
    let table = table.split("\n[").next().unwrap();
    let mut is_said = false;
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        assert!(line.starts_with('#') || is_said, "no comment above `{line}`");
        is_said = line.starts_with('#');
    }
}

#[test]
fn the_package_has_all_that_the_program_is_built_from() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["package", "--list", "--locked", "--offline", "--allow-dirty"];
    let output = Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packed = String::from_utf8(output.stdout).unwrap();
    let packed: BTreeSet<&Path> = packed.lines().map(Path::new).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut included = 0;
    for source in packed.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(root.join(source)).unwrap();
        for rest in text.split("include_str!(\"").skip(1) {
            let wanted = root.join(source.parent().unwrap()).join(rest.split('"').next().unwrap());
            let wanted = wanted.canonicalize().unwrap();
            let wanted = wanted.strip_prefix(root.canonicalize().unwrap()).unwrap();
            assert!(packed.contains(wanted), "{} includes {}", source.display(), wanted.display());
            included += 1;
        }
    }
    assert!(included >= 5, "{included}");
    for wanted in ["Cargo.lock", "LICENSE", "README.md", "src/main.rs"] {
        assert!(packed.contains(Path::new(wanted)), "{wanted}");
    }
}
