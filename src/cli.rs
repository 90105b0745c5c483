//! The shell around all commands: arguments in, exit code out, and the one place that prints errors.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::commands::collect::{self, Format, NoTests};
use crate::commands::{build, gc, init, logs, plan, validate};
use crate::config::{self, Config};
use crate::error::{Problem, Status, printable};
use crate::process::guard;
use crate::progress::{Screen, Style};

mod history;
mod run;
mod signals;

use history::HistoryCommand;
use run::RunArguments;
use signals::cancel_on_signals;

const EXIT_CODES: &str = "\
Exit codes:
  0    all tests passed
  1    a test failed, or a discovered test has no result
  2    all tests passed, some of them only on a retry
  3    the command line or the configuration is wrong
  4    nothing could be run: discovery, the image or every sandbox failed
  130  interrupted";

const PLANS: &str = "\
Nothing is run but the listing of tests. Times are predicted from the history, else from the last
report. The knee is the number of sandboxes with the best ratio of efficiency to time: beyond it
each further sandbox brings less than it costs.";

#[derive(Parser)]
#[command(name = "offload", version, about = "Runs a test suite in many sandboxes at once", after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "PATH", default_value = "offload.toml")]
    config: PathBuf,
    /// Tell more on standard error
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests
    Run(Box<RunArguments>),
    /// List the tests and run none
    Collect {
        /// How the list is written
        #[arg(short, long, value_enum, default_value_t = ListFormat::Text)]
        format: ListFormat,
        /// What it means when there are no tests
        #[arg(long, value_enum, default_value_t = Nothing::Fail)]
        no_tests: Nothing,
    },
    /// Show what a run would do, how long it would take, and what more sandboxes would bring
    #[command(after_help = PLANS)]
    Plan {
        /// How it is written
        #[arg(short, long, value_enum, default_value_t = ListFormat::Text)]
        format: ListFormat,
        /// For so many sandboxes instead of `max_parallel`
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        parallel: Option<u32>,
    },
    /// Make the image of the sandboxes, without running tests, and print its id
    Build {
        /// Copy a directory into the image; may be repeated
        #[arg(long, value_name = "LOCAL:REMOTE", value_parser = run::copied)]
        copy_dir: Vec<String>,
        /// Set a variable in all sandboxes; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = run::variable)]
        env: Vec<(String, String)>,
        /// Build the image afresh
        #[arg(long)]
        no_cache: bool,
    },
    /// Show what a run would do for its image: which one it has, and what has changed since
    CheckpointStatus,
    /// Destroy the sandboxes that runs left which were killed, and remove their temporary files
    Gc,
    /// Check the configuration and show what it says
    Validate,
    /// Write a new configuration
    Init {
        /// What makes the sandboxes
        #[arg(short, long, value_name = "TYPE", default_value = "local")]
        provider: String,
        /// What runs the tests
        #[arg(short, long, value_name = "TYPE", default_value = "pytest")]
        framework: String,
    },
    /// Show the results of the last run
    Logs {
        /// Only tests that failed
        #[arg(long)]
        failures: bool,
        /// Only tests that errored, timed out or were not run
        #[arg(long)]
        errors: bool,
        /// Only the test with this id; may be repeated
        #[arg(long = "test", value_name = "ID")]
        tests: Vec<String>,
        /// Only tests in whose id this regular expression is found
        #[arg(long, value_name = "PATTERN")]
        test_regex: Option<String>,
    },
    /// Show or merge what is known of the tests from earlier runs
    #[command(subcommand)]
    History(HistoryCommand),
    /// End the local processes of a run that was killed; runs start this themselves
    #[command(name = guard::SUBCOMMAND, hide = true)]
    GuardProcesses {
        /// What the environment of these processes contains
        token: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ListFormat {
    Text,
    Json,
}

impl From<ListFormat> for Format {
    fn from(format: ListFormat) -> Format {
        match format {
            ListFormat::Text => Format::Text,
            ListFormat::Json => Format::Json,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Nothing {
    Pass,
    Warn,
    Fail,
}

impl From<Nothing> for NoTests {
    fn from(nothing: Nothing) -> NoTests {
        match nothing {
            Nothing::Pass => NoTests::Pass,
            Nothing::Warn => NoTests::Warn,
            Nothing::Fail => NoTests::Fail,
        }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stream changes nothing about the exit code.
            let _ = error.print();
            let status = if error.use_stderr() { Status::Usage } else { Status::Passed };
            return ExitCode::from(status.code());
        }
    };
    let screen = Screen::new(style(&arguments));
    start_logging(arguments.verbose, &screen);
    let mut output = io::BufWriter::new(Output { stdout: io::stdout(), is_closed: false });
    let status = dispatch(&arguments, &screen, started, &mut output).and_then(|status| {
        output.flush().context("cannot write to standard output")?;
        Ok(status)
    });
    let status = status.unwrap_or_else(|problem| tell(&problem, screen));
    ExitCode::from(status.code())
}

/// Standard output. Once its reader has gone, what is written to it is dropped, and nothing else
/// changes: the verdict of a run does not depend on who reads it.
struct Output {
    stdout: io::Stdout,
    is_closed: bool,
}

impl Output {
    fn unless_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(otherwise)
            }
            result => result,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = if self.is_closed { Ok(bytes.len()) } else { self.stdout.write(bytes) };
        self.unless_closed(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = if self.is_closed { Ok(()) } else { self.stdout.flush() };
        self.unless_closed(result, ())
    }
}

/// Tells what went wrong.
fn tell(problem: &Problem, mut screen: Screen) -> Status {
    let mut text = printable(&format!("offload: error: {:#}\n", problem.error));
    if let Some(hint) = &problem.hint {
        text += &format!("\n  hint: {hint}\n");
    }
    // With stderr closed there is nobody to tell.
    let _ = screen.write_all(text.as_bytes());
    problem.status
}

/// A bar only for `run` on a terminal that nobody said was none.
fn style(arguments: &Arguments) -> Style {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "false");
    match &arguments.command {
        Command::Run(flags) if !flags.ci && !set("CI") && !set("NO_COLOR") && io::stderr().is_terminal() => {
            Style::Bar
        }
        _ => Style::Lines,
    }
}

fn start_logging(verbose: bool, screen: &Screen) {
    let level = if verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn };
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Pipe(Box::new(screen.clone())))
        .format(|output, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(output, "offload: {level}: {}", printable(&record.args().to_string()))
        })
        .init();
}

fn dispatch(
    arguments: &Arguments,
    screen: &Screen,
    started: Instant,
    output: &mut (dyn Write + Send),
) -> Result<Status, Problem> {
    let config = arguments.config.as_path();
    match &arguments.command {
        Command::Run(flags) => run::run(config, flags, screen, started, output),
        Command::Build { copy_dir, env, no_cache } => {
            let options =
                build::Options { env: env.clone(), copy_dirs: copy_dir.clone(), no_cache: *no_cache };
            build::run((&load(config)?, screen), &options, &cancel_on_signals()?, output)
        }
        Command::CheckpointStatus => build::status((&load(config)?, screen), &cancel_on_signals()?, output),
        Command::Gc => gc::run(screen, &cancel_on_signals()?, output),
        Command::Collect { format, no_tests } => {
            let cancel = cancel_on_signals()?;
            collect::run(&load(config)?, ((*format).into(), (*no_tests).into()), &[], &cancel, output)
        }
        Command::Plan { format, parallel } => {
            let mut settings = load(config)?;
            if let Some(parallel) = parallel {
                settings.offload.max_parallel = *parallel as usize;
            }
            plan::run(&settings, &name(config), (*format).into(), &cancel_on_signals()?, output)
        }
        Command::Validate => validate::run(config, output),
        Command::Init { provider, framework } => {
            let provider = provider.parse().map_err(Problem::usage)?;
            let framework = framework.parse().map_err(Problem::usage)?;
            init::run(config, provider, framework, &mut io::stderr())
        }
        Command::Logs { failures, errors, tests, test_regex } => {
            let report = load(config)?.report;
            let filter = logs::Filter {
                failures: *failures,
                errors: *errors,
                ids: tests.clone(),
                pattern: test_regex.clone(),
            };
            logs::run(&report.output_dir.join(report.junit_file), &filter, output)
        }
        Command::History(command) => history::dispatch(config, command, output),
        Command::GuardProcesses { token } => {
            guard::watch(token, io::stdin());
            Ok(Status::Passed)
        }
    }
}

fn load(path: &Path) -> Result<Config, Problem> {
    Ok(config::load(path, &|name| std::env::var(name).ok())?)
}

/// The name of a configuration file, by which the history knows its tests.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
