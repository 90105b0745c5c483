//! The emulator of Modal's server, a process of its own for each test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Project, modal, wait_until};

/// A server that runs; dropping it ends it with all that it has made.
pub struct Emulator {
    child: Child,
    state: TempDir,
    url: String,
}

impl Emulator {
    /// `None` where Modal's SDK cannot be had.
    pub fn start() -> Option<Emulator> {
        let tools = modal()?;
        let state = TempDir::with_prefix("offload-modal-").unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/modal/emulator.py");
        let target = tools.parent().unwrap().parent().unwrap();
        let said = File::create(state.path().join("said")).unwrap();
        let child = Command::new(tools.join("bin/python"))
            .arg(script)
            .arg("--state")
            .arg(state.path())
            .arg("--share")
            .arg(target)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut emulator = Emulator { child, state, url: String::new() };
        let file = emulator.path("url");
        wait_until("the emulator is ready", Duration::from_secs(60), || file.exists());
        emulator.url = fs::read_to_string(file).unwrap().trim().to_owned();
        Some(emulator)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// `project` with everything that leads the SDK here and nowhere else.
    pub fn serve(&self, project: Project) -> Project {
        let tools = modal().unwrap();
        let shared = tools.parent().unwrap();
        let path = |name: &str| project.path().join(name).display().to_string();
        let (state, config) = (path("state"), path("no-config"));
        // In the project it would be part of the image.
        let temporary = self.path("tmp").display().to_string();
        fs::create_dir_all(&temporary).unwrap();
        project
            .tool(&tools.join("bin"))
            .env("MODAL_SERVER_URL", &self.url)
            .env("MODAL_TOKEN_ID", "ak-test")
            .env("MODAL_TOKEN_SECRET", "as-test")
            .env("MODAL_CONFIG_PATH", &config)
            .env("OFFLOAD_STATE_DIR", &state)
            .env("TMPDIR", &temporary)
            .env("UV_CACHE_DIR", &shared.join("uv-cache").display().to_string())
            .env("XDG_CACHE_HOME", &shared.join("modal-scripts").display().to_string())
    }

    /// The RPCs of these names so far, with what is known of each; of all without names.
    pub fn calls(&self, names: &[&str]) -> Vec<Value> {
        let text = fs::read_to_string(self.path("calls.jsonl")).unwrap_or_default();
        let calls = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let named = |call: &Value| {
            let rpc = call["rpc"].as_str().unwrap_or_default().trim_end_matches("V2");
            names.is_empty() || names.contains(&rpc)
        };
        calls.filter(named).collect()
    }

    /// The names of all RPCs so far.
    pub fn names(&self) -> Vec<String> {
        let name = |call: &Value| call["rpc"].as_str().unwrap_or_default().trim_end_matches("V2").to_owned();
        self.calls(&[]).iter().map(name).collect()
    }

    /// What runs have left in the directory for temporary files; uv keeps its locks there.
    pub fn temporary(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("tmp")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with("uv-")).collect()
    }

    /// How many sandboxes live.
    pub fn live(&self) -> usize {
        fs::read_dir(self.path("live")).map_or(0, Iterator::count)
    }

    /// Says what goes wrong from now on.
    pub fn faults(&self, rules: &Value) {
        let new = self.path("faults.new");
        fs::write(&new, rules.to_string()).unwrap();
        fs::rename(new, self.path("faults.json")).unwrap();
    }

    /// Loses all images.
    pub fn lose_images(&self) {
        for entry in fs::read_dir(self.path("images")).unwrap().flatten() {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let child = &mut self.child;
        wait_until("the emulator has ended", Duration::from_secs(30), || child.try_wait().unwrap().is_some());
    }
}
