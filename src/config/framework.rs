//! Reads `[framework]`.

use super::check;
use super::read::{Table, Value};
use super::{Framework, FrameworkKind, FrameworkType};

pub(super) fn read(table: &mut Table<'_>) -> Option<Framework> {
    let Some(kind) = table.need("type", |value| value.choice()) else {
        table.leave_open();
        return None;
    };
    let id_format = |table: &mut Table<'_>, default: &str| {
        table.read("test_id_format", check::id_format).unwrap_or_else(|| default.to_owned())
    };
    let (test_id_format, kind) = match kind {
        FrameworkType::Pytest => (id_format(table, "{name}"), pytest(table)),
        FrameworkType::Nextest => (id_format(table, "{classname} {name}"), nextest(table)),
        FrameworkType::Vitest => (id_format(table, "{classname} > {name}"), vitest(table)),
        FrameworkType::Default => custom(table),
    };
    let discovery_args = match kind {
        // `discover_command` has its own arguments.
        FrameworkKind::Custom { .. } => None,
        _ => table.read("discovery_args", check::words),
    };
    Some(Framework {
        kind,
        env: table.read("env", check::variables).unwrap_or_default(),
        prepend_path: table.read("prepend_path", check::names).unwrap_or_default(),
        discovery_args,
        test_id_format,
    })
}

fn pytest(table: &mut Table<'_>) -> FrameworkKind {
    FrameworkKind::Pytest {
        paths: table.read("paths", check::names),
        command: table.read("command", check::program).unwrap_or_else(|| "python -m pytest".to_owned()),
        run_args: table.read("run_args", check::words),
    }
}

fn nextest(table: &mut Table<'_>) -> FrameworkKind {
    FrameworkKind::Nextest {
        package: table.read("package", Value::filled),
        features: table.read("features", check::names).unwrap_or_default(),
        bin: table.read("bin", Value::filled),
        include_ignored: table.read("include_ignored", Value::boolean).unwrap_or(false),
        run_args: table.read("run_args", check::words),
    }
}

fn vitest(table: &mut Table<'_>) -> FrameworkKind {
    FrameworkKind::Vitest {
        command: table.read("command", check::program).unwrap_or_else(|| "npx vitest".to_owned()),
        run_args: table.read("run_args", check::words),
    }
}

fn custom(table: &mut Table<'_>) -> (String, FrameworkKind) {
    let discover_command = |value: &Value<'_>| {
        let text = value.filled()?;
        if text.contains("{filters}") { Some(text) } else { value.fail("must contain `{filters}`") }
    };
    let kind = FrameworkKind::Custom {
        discover_command: table.need("discover_command", discover_command).unwrap_or_default(),
        run_command: table.need("run_command", Value::filled).unwrap_or_default(),
        result_file: table.read("result_file", Value::filled),
        working_dir: table.read("working_dir", Value::path),
    };
    // Without a result file the format is not used, but the key is still required.
    let has_result_file = table.has("result_file");
    let id_format = |value: &Value<'_>| {
        if has_result_file { check::id_format(value) } else { value.text() }
    };
    (table.need("test_id_format", id_format).unwrap_or_default(), kind)
}
