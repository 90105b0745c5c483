//! Reads `[provider]`.

use std::time::Duration;

use super::check;
use super::read::{Table, Value};
use super::{CommandProvider, Local, Modal, Provider, ProviderType};

/// Modal's limit.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

pub(super) fn read(table: &mut Table<'_>) -> Option<Provider> {
    let Some(kind) = table.need("type", |value| value.choice()) else {
        table.leave_open();
        return None;
    };
    Some(match kind {
        ProviderType::Local => Provider::Local(local(table)),
        ProviderType::Default => Provider::Command(command(table)),
        ProviderType::Modal => Provider::Modal(modal(table)),
    })
}

fn local(table: &mut Table<'_>) -> Local {
    Local {
        working_dir: table.read("working_dir", Value::path),
        env: table.read("env", check::variables).unwrap_or_default(),
        shell: table.read("shell", Value::filled).unwrap_or_else(|| "/bin/sh".to_owned()),
        secret_env: table.read("secret_env", check::names).unwrap_or_default(),
    }
}

fn command(table: &mut Table<'_>) -> CommandProvider {
    let provider = CommandProvider {
        prepare_command: table.read("prepare_command", Value::optional).flatten(),
        patch_command: table.read("patch_command", Value::optional).flatten(),
        create_command: table.need("create_command", Value::filled).unwrap_or_default(),
        exec_command: table.need("exec_command", Value::filled).unwrap_or_default(),
        destroy_command: table.need("destroy_command", Value::filled).unwrap_or_default(),
        download_command: table.read("download_command", Value::optional).flatten(),
        sweep_command: table.read("sweep_command", Value::optional).flatten(),
        working_dir: table.read("working_dir", Value::path),
        timeout: table.read("timeout_secs", Value::seconds).unwrap_or(Duration::from_secs(3600)),
        copy_dirs: table.read("copy_dirs", check::copy_dirs).unwrap_or_default(),
        env: table.read("env", check::variables).unwrap_or_default(),
        cpu_cores: table.read("cpu_cores", Value::amount).unwrap_or(1.0),
        secret_env: table.read("secret_env", check::names).unwrap_or_default(),
    };
    if provider.prepare_command.is_none() && provider.create_command.contains("{image_id}") {
        table.fail("create_command", "contains `{image_id}`, but no `prepare_command` creates an image");
    }
    if !provider.exec_command.is_empty() && !provider.exec_command.contains("{command}") {
        table.fail("exec_command", "must contain `{command}`, the command to run");
    }
    if provider.download_command.as_ref().is_some_and(|command| !command.contains("{paths}")) {
        table.fail("download_command", "must contain `{paths}`, the paths to copy");
    }
    if provider.sweep_command.as_ref().is_some_and(|command| !command.contains("{run_name}")) {
        table.fail("sweep_command", "must contain `{run_name}`, the run whose sandboxes to destroy");
    }
    if provider.prepare_command.is_none() && provider.patch_command.is_some() {
        table.fail("patch_command", "requires a `prepare_command` that creates the image to patch");
    }
    provider
}

fn modal(table: &mut Table<'_>) -> Modal {
    let seconds = |table: &mut Table<'_>, key: &'static str, default: u64| {
        table.read(key, Value::seconds).unwrap_or(Duration::from_secs(default))
    };
    let provider = Modal {
        dockerfile: table.read("dockerfile", Value::path),
        include_cwd: table.read("include_cwd", Value::boolean).unwrap_or(false),
        copy_dirs: table.read("copy_dirs", check::copy_dirs).unwrap_or_default(),
        env: table.read("env", check::variables).unwrap_or_default(),
        cpu_cores: table.read("cpu_cores", Value::amount).unwrap_or(0.125),
        memory_gb: table.read("memory_gb", Value::amount),
        experimental_options: table
            .read("experimental_options", options)
            .unwrap_or_else(|| serde_json::json!({})),
        app: table.read("app", Value::filled).unwrap_or_else(|| "offload".to_owned()),
        sdk_version: table.read("sdk_version", Value::filled),
        timeout: seconds(table, "timeout_secs", 3600),
        sandbox_timeout: seconds(table, "sandbox_timeout_secs", 4 * 3600),
        idle_timeout: seconds(table, "idle_timeout_secs", 300),
        creates_per_second: table.read("creates_per_second", Value::amount).unwrap_or(5.0),
        secret_env: table.read("secret_env", check::names).unwrap_or_default(),
    };
    if provider.creates_per_second < 0.001 {
        table.fail("creates_per_second", "must be at least 0.001");
    }
    if provider.sandbox_timeout > LONGEST_LIFE {
        table.fail("sandbox_timeout_secs", "must be at most 86400, the limit of Modal");
    }
    provider
}

/// A table with any content.
fn options(value: &Value<'_>) -> Option<serde_json::Value> {
    value.entries(|_, _| None::<()>)?;
    value.json()
}
