//! The flags of `offload run`.

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::{Console, cancel_on_signals, load};
use crate::commands::collect::NoTests;
use crate::commands::run;
use crate::config::{self, Config, Provider};
use crate::error::{Problem, Status};
use crate::trace::{Trace, Track};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RunArguments {
    /// Maximum number of concurrent sandboxes
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// List the tests without running them
    #[arg(long)]
    collect_only: bool,
    /// Copy a directory into each sandbox; can be repeated
    #[arg(long, value_name = "LOCAL:REMOTE", value_parser = copied)]
    copy_dir: Vec<String>,
    /// Set an environment variable in all sandboxes; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Rebuild the image even if a cached one exists
    #[arg(long)]
    no_cache: bool,
    /// Use this image instead of building one
    #[arg(long, value_name = "ID")]
    override_image_id: Option<String>,
    /// Write a timeline for Perfetto to `{output_dir}/trace.json`
    #[arg(long)]
    trace: bool,
    /// Stop the run at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Show the estimated cost of the sandboxes
    #[arg(long)]
    show_estimated_cost: bool,
    /// Record the results in the history file
    #[arg(long)]
    record_history: bool,
    /// Print plain lines without colors instead of a progress bar
    #[arg(long)]
    pub(super) ci: bool,
    /// What to do when no tests are found
    #[arg(long, value_enum, default_value_t = NoTests::Fail)]
    no_tests: NoTests,
}

/// Reads `LOCAL:REMOTE`.
pub(super) fn copied(text: &str) -> Result<String, String> {
    config::split_copy_dir(text).map(|_| text.to_owned()).ok_or_else(|| "expected LOCAL:REMOTE".into())
}

/// Reads `KEY=VALUE`.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// Runs `offload run`.
pub(super) fn run(
    path: &Path,
    flags: &RunArguments,
    console: &Console,
    output: &mut (dyn Write + Send),
) -> Result<Status, Problem> {
    let cancel = cancel_on_signals()?;
    let trace = if flags.trace { Trace::on(console.started) } else { Trace::off() };
    let span = trace.span(Track::Phases, || "config".into());
    let mut config = load(path)?;
    drop(span);
    if let Some(parallel) = flags.parallel {
        config.offload.max_parallel = parallel as usize;
    }
    check_flags(flags, &config)?;
    let options = run::Options {
        config: path.to_owned(),
        copy_dirs: flags.copy_dir.clone(),
        no_cache: flags.no_cache,
        image: flags.override_image_id.clone(),
        show_cost: flags.show_estimated_cost,
        record_history: flags.record_history,
        collect_only: flags.collect_only,
        env: flags.env.clone(),
        fail_fast: flags.fail_fast,
        no_tests: flags.no_tests,
        trace,
        screen: console.screen.clone(),
        palette: console.palette,
    };
    run::run(&config, &options, &cancel, output)
}

/// Rejects flags that cannot work with this configuration, and warns about those without effect.
fn check_flags(flags: &RunArguments, config: &Config) -> Result<(), Problem> {
    if config.shares_result_file() {
        return Err(Problem::usage("local sandboxes would overwrite each other's result file")
            .hint("use `{result_file}` in `run_command`, or run with `--parallel 1`"));
    }
    if flags.record_history && config.history.is_none() {
        return Err(Problem::usage("`--record-history` requires a [history] section in the configuration"));
    }
    if !matches!(config.provider, Provider::Local(_)) {
        return Ok(());
    }
    if !flags.copy_dir.is_empty() {
        return Err(Problem::usage(
            "`--copy-dir` requires a provider whose sandboxes have their own files; `local` ones do not",
        ));
    }
    if flags.override_image_id.is_some() {
        return Err(Problem::usage("`--override-image-id` requires the provider `modal`"));
    }
    if flags.no_cache {
        log::warn!("`--no-cache` has no effect: the provider `local` builds no image");
    }
    if flags.show_estimated_cost {
        log::warn!("`--show-estimated-cost` has no effect: the provider `local` costs nothing");
    }
    Ok(())
}
