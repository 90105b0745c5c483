//! Shows a configuration, with defaults filled in.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::{Choice, Config, Framework, FrameworkKind, FrameworkType, Provider, ProviderType};
use crate::mask::{Mask, STARS};

/// Settings under a heading.
struct Section {
    title: String,
    rows: Vec<(String, String)>,
}

impl Section {
    fn new(title: impl Into<String>) -> Section {
        Section { title: title.into(), rows: Vec::new() }
    }

    fn add(mut self, key: &str, value: impl Display) -> Section {
        self.rows.push((key.to_owned(), value.to_string()));
        self
    }

    fn maybe(self, key: &str, value: Option<impl Display>) -> Section {
        match value {
            Some(value) => self.add(key, value),
            None => self,
        }
    }

    fn seconds(self, key: &str, value: Duration) -> Section {
        self.add(key, value.as_secs_f64())
    }

    fn list(self, key: &str, values: &[String]) -> Section {
        if values.is_empty() { self } else { self.add(key, values.join(", ")) }
    }

    fn variable(self, name: &str, value: &str) -> Section {
        self.add(&format!("env.{name}"), value)
    }
}

impl Config {
    /// All settings that are set or have a default, in aligned lines under the names of their tables. `secrets` and
    /// the values of secret variables are replaced by `***`.
    pub fn summary(&self, secrets: &[String]) -> String {
        let mask = Mask::new(secrets.iter().cloned());
        let sections = self.sections();
        let keys = sections.iter().flat_map(|section| &section.rows).map(|(key, _)| key.chars().count());
        let width = keys.max().unwrap_or(0);
        let mut text = String::new();
        for (index, section) in sections.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            _ = writeln!(text, "{gap}[{}]", section.title);
            for (key, value) in &section.rows {
                let value = mask.hide(value);
                let value = value.trim_end().replace('\n', &format!("\n{:1$}", "", width + 4));
                _ = writeln!(text, "{}", format!("  {key:width$}  {value}").trim_end());
            }
        }
        text
    }

    fn sections(&self) -> Vec<Section> {
        let secret = self.secret_env();
        let variable = |section: Section, (name, value): &(String, String)| {
            section.variable(name, if secret.contains(name) { STARS } else { value })
        };
        let provider = self.test_env().iter().fold(provider(&self.provider), variable);
        let framework = self.framework.env.iter().fold(framework(&self.framework), variable);
        let mut sections = vec![
            offload(self),
            provider.list("secret_env", secret),
            framework.list("prepend_path", &self.framework.prepend_path),
        ];
        for group in &self.groups {
            sections.push(
                Section::new(format!("groups.{}", group.name))
                    .add("retry_count", group.retry_count)
                    .maybe("filters", Some(&group.filters).filter(|filters| !filters.is_empty()))
                    .add("schedule_individual", group.schedule_individual)
                    .add("keep_together", group.keep_together.name())
                    .maybe("max_parallel", group.max_parallel),
            );
        }
        sections.push(
            Section::new("report")
                .add("output_dir", self.report.output_dir.display())
                .add("junit", self.report.junit)
                .add("junit_file", &self.report.junit_file)
                .list("download_globs", &self.report.download_globs)
                .add("download_globs_failure_only", self.report.download_globs_failure_only),
        );
        if let Some(history) = &self.history {
            sections.push(
                Section::new("history")
                    .add("record_history", history.record.name())
                    .add("path", history.path.display())
                    .add("reservoir_size", history.reservoir_size)
                    .seconds("default_duration_secs", history.default_duration),
            );
        }
        if let Some(checkpoint) = &self.checkpoint {
            sections.push(Section::new("checkpoint").list("build_inputs", &checkpoint.build_inputs));
        }
        if let Some(cost) = &self.cost {
            sections.push(
                Section::new("cost")
                    .add("usd_per_core_second", cost.usd_per_core_second)
                    .add("usd_per_gib_second", cost.usd_per_gib_second),
            );
        }
        sections
    }
}

fn offload(config: &Config) -> Section {
    let offload = &config.offload;
    Section::new("offload")
        .add("max_parallel", offload.max_parallel)
        .maybe("max_parallel_collection", offload.max_parallel_collection)
        .seconds("test_timeout_secs", offload.test_timeout)
        .seconds("discovery_timeout_secs", offload.discovery_timeout)
        .maybe("working_dir", offload.working_dir.as_ref().map(|path| path.display()))
        .maybe("sandbox_repo_root", offload.sandbox_repo_root.as_ref())
        .maybe("sandbox_project_root", offload.sandbox_project_root.as_ref())
        .maybe("sandbox_init_cmd", offload.sandbox_init_cmd.as_ref())
        .maybe("post_patch_cmd", offload.post_patch_cmd.as_ref())
        .add("impatiently_requeue_batches", config.requeues_impatiently())
}

fn provider(provider: &Provider) -> Section {
    let section = Section::new("provider");
    match provider {
        Provider::Local(local) => section
            .add("type", ProviderType::Local.name())
            .maybe("working_dir", local.working_dir.as_ref().map(|path| path.display()))
            .add("shell", &local.shell),
        Provider::Command(command) => section
            .add("type", ProviderType::Default.name())
            .maybe("prepare_command", command.prepare_command.as_ref())
            .maybe("patch_command", command.patch_command.as_ref())
            .add("create_command", &command.create_command)
            .add("exec_command", &command.exec_command)
            .add("destroy_command", &command.destroy_command)
            .maybe("download_command", command.download_command.as_ref())
            .maybe("sweep_command", command.sweep_command.as_ref())
            .maybe("working_dir", command.working_dir.as_ref().map(|path| path.display()))
            .seconds("timeout_secs", command.timeout)
            .list("copy_dirs", &command.copy_dirs)
            .add("cpu_cores", command.cpu_cores),
        Provider::Modal(modal) => section
            .add("type", ProviderType::Modal.name())
            .maybe("dockerfile", modal.dockerfile.as_ref().map(|path| path.display()))
            .add("include_cwd", modal.include_cwd)
            .list("copy_dirs", &modal.copy_dirs)
            .add("cpu_cores", modal.cpu_cores)
            .maybe("memory_gb", modal.memory_gb)
            .add("experimental_options", &modal.experimental_options)
            .add("app", &modal.app)
            .maybe("sdk_version", modal.sdk_version.as_ref())
            .seconds("timeout_secs", modal.timeout)
            .seconds("sandbox_timeout_secs", modal.sandbox_timeout)
            .seconds("idle_timeout_secs", modal.idle_timeout)
            .add("creates_per_second", modal.creates_per_second),
    }
}

fn framework(framework: &Framework) -> Section {
    let section = Section::new("framework");
    let section = match &framework.kind {
        FrameworkKind::Pytest { paths, command, run_args } => section
            .add("type", FrameworkType::Pytest.name())
            .add("command", command)
            .list("paths", paths.as_deref().unwrap_or_default())
            .maybe("run_args", run_args.as_ref()),
        FrameworkKind::Nextest { package, features, bin, include_ignored, run_args } => section
            .add("type", FrameworkType::Nextest.name())
            .maybe("package", package.as_ref())
            .list("features", features)
            .maybe("bin", bin.as_ref())
            .add("include_ignored", include_ignored)
            .maybe("run_args", run_args.as_ref()),
        FrameworkKind::Vitest { command, run_args } => section
            .add("type", FrameworkType::Vitest.name())
            .add("command", command)
            .maybe("run_args", run_args.as_ref()),
        FrameworkKind::Custom { discover_command, run_command, result_file, working_dir } => section
            .add("type", FrameworkType::Default.name())
            .add("discover_command", discover_command)
            .add("run_command", run_command)
            .maybe("result_file", result_file.as_ref())
            .maybe("working_dir", working_dir.as_ref().map(|path| path.display())),
    };
    section
        .maybe("discovery_args", framework.discovery_args.as_ref())
        .add("test_id_format", &framework.test_id_format)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const TEXT: &str = r#"
[provider]
type = "default"
create_command = """
start --key ${KEY}
wait"""
exec_command = "in {sandbox_id} {command}"
destroy_command = "end"
secret_env = ["TOKEN", "KEY"]
[provider.env]
TOKEN = "abc"
PLAIN = "x"
[framework]
type = "vitest"
env = { TOKEN = "other" }
[groups.all]
"#;

    #[test]
    fn the_summary_is_aligned_and_shows_no_secret() {
        let environment = |name: &str| (name == "KEY").then(|| "hush".to_owned());
        let config = parse(TEXT, "x.toml", &environment).unwrap();
        let summary = config.summary(&config.secrets(&environment));
        for secret in ["abc", "hush", "other"] {
            assert!(!summary.contains(secret), "{summary}");
        }
        let expected = "\
[provider]
  type                         default
  create_command               start --key ***
                               wait
  exec_command                 in {sandbox_id} {command}
  destroy_command              end
  timeout_secs                 3600
  cpu_cores                    1
  env.TOKEN                    ***
  env.PLAIN                    x
  secret_env                   TOKEN, KEY
";
        assert!(summary.contains(expected), "{summary}");
        assert!(summary.contains(
            "  env.TOKEN                    ***\n\n[groups.all]\n  retry_count                  0\n"
        ));
    }
}
