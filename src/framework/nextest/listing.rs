//! Reads the output of `cargo nextest list --message-format json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::framework::Listed;
use crate::model::GroupIndex;

/// The tests and binaries of a listing.
pub(super) struct Read {
    /// The selected tests, ordered by binary.
    pub tests: Vec<Listed>,
    /// The content of the file for `--binaries-metadata`.
    pub binaries: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct List {
    rust_build_meta: Value,
    rust_suites: BTreeMap<String, Binary>,
}

#[derive(Deserialize)]
struct Binary {
    /// `listed` or `skipped`; missing in older versions.
    status: Option<String>,
    #[serde(default)]
    testcases: BTreeMap<String, Test>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Test {
    filter_match: Match,
}

#[derive(Deserialize)]
struct Match {
    status: String,
}

/// Reads `stdout`; `id` builds a test id from a binary's id and a test's name. The binary's id is the file of its
/// tests, so that they are kept together.
pub(super) fn read(stdout: &str, id: impl Fn(&str, &str) -> String, group: GroupIndex) -> Result<Read> {
    let start = stdout.find('{').context("cargo nextest list printed no JSON")?;
    let list: List =
        serde_json::from_str(&stdout[start..]).context("cannot parse the output of cargo nextest list")?;
    let mut tests = Vec::new();
    let mut binaries = Map::new();
    for (binary_id, binary) in list.rust_suites {
        match binary.status.as_deref() {
            None | Some("listed" | "skipped" | "skipped-default-filter") => {}
            Some(other) => bail!("cargo nextest list did not list binary `{binary_id}`: {other}"),
        }
        let file: Arc<str> = binary_id.as_str().into();
        for (name, test) in &binary.testcases {
            if test.filter_match.status == "matches" {
                tests.push(Listed::new(group, id(&binary_id, name), Some(file.clone())));
            }
        }
        let mut facts = binary.rest;
        facts.remove("cwd");
        binaries.insert(binary_id, Value::Object(facts));
    }
    let binaries = json!({ "rust-build-meta": list.rust_build_meta, "rust-binaries": binaries });
    Ok(Read { tests, binaries: binaries.to_string() })
}
