//! The shell around all commands: arguments in, exit code out, and the one place that prints errors.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::color::{Palette, Terminals};
use crate::commands::collect::{self, NoTests};
use crate::commands::{OutputFormat, build, gc, init, logs, plan, validate};
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

const ABOUT: &str = "Run a test suite in parallel sandboxes";

const EXIT_CODES: &str = "\
Exit codes:
  0    all tests passed
  1    a test failed, or a discovered test has no result
  2    all tests passed, some of them only on a retry
  3    the command line or the configuration is invalid
  4    nothing could be run: discovery, the image, or every sandbox failed
  130  interrupted";

const PLAN_NOTES: &str = "\
`plan` lists the tests but runs none. Predictions come from the history, or from the last report.
The knee is the number of sandboxes with the best trade-off between time and cost: beyond it, each
additional sandbox saves less than it costs.";

#[derive(Parser)]
#[command(name = "offload", version, about = ABOUT, after_help = EXIT_CODES)]
struct Arguments {
    /// Path to the configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "PATH",
        default_value = "offload.toml",
        display_order = 100
    )]
    config: PathBuf,
    /// Print more detail to stderr
    #[arg(short, long, global = true, display_order = 100)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests
    Run(Box<RunArguments>),
    /// List the tests without running them
    Collect {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
        /// What to do when no tests are found
        #[arg(long, value_enum, default_value_t = NoTests::Fail)]
        no_tests: NoTests,
    },
    /// Show the batches of a run, its predicted time, and the effect of more sandboxes
    #[command(after_help = PLAN_NOTES)]
    Plan {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
        /// Number of sandboxes to plan for, instead of `max_parallel`
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        parallel: Option<u32>,
    },
    /// Build the sandbox image, if necessary, and print its ID
    Build {
        /// Copy a directory into the image; can be repeated
        #[arg(long, value_name = "LOCAL:REMOTE", value_parser = run::copied)]
        copy_dir: Vec<String>,
        /// Set an environment variable in all sandboxes; can be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = run::variable)]
        env: Vec<(String, String)>,
        /// Rebuild the image even if a cached one exists
        #[arg(long)]
        no_cache: bool,
    },
    /// Show which image a run would use, and what has changed since it was built
    CheckpointStatus,
    /// Destroy sandboxes left behind by killed runs, and delete their temporary files
    Gc {
        /// List creates that gave no reliable ID, and forget them: you destroyed what they left
        #[arg(long)]
        forget: bool,
    },
    /// Check the configuration and print the settings in effect
    Validate,
    /// Create a configuration file
    Init {
        /// Provider that creates the sandboxes: local, default, or modal
        #[arg(short, long, value_name = "TYPE", default_value = "local")]
        provider: String,
        /// Framework that runs the tests: pytest, nextest, vitest, or default
        #[arg(short, long, value_name = "TYPE", default_value = "pytest")]
        framework: String,
    },
    /// Show the results of the last run
    Logs {
        /// Show only tests that failed
        #[arg(long)]
        failures: bool,
        /// Show only tests that errored, timed out, or were not run, and errors outside tests
        #[arg(long)]
        errors: bool,
        /// Show only the test with this ID; can be repeated
        #[arg(long = "test", value_name = "ID")]
        tests: Vec<String>,
        /// Show only tests whose ID matches this regular expression
        #[arg(long, value_name = "PATTERN")]
        test_regex: Option<String>,
    },
    /// Show or merge the test history
    #[command(subcommand)]
    History(HistoryCommand),
    /// End the local processes of a run that was killed; runs start this themselves
    #[command(name = guard::SUBCOMMAND, hide = true)]
    GuardProcesses {
        /// What the environment of these processes contains
        token: String,
    },
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
    let console = Console::new(&arguments, started);
    start_logging(arguments.verbose, &console.screen);
    let mut output = io::BufWriter::new(Output { stdout: io::stdout(), is_closed: false });
    let status = dispatch(&arguments, &console, &mut output).and_then(|status| {
        output.flush().context("cannot write to standard output")?;
        Ok(status)
    });
    let status = status.unwrap_or_else(|problem| report(&problem, &console.screen));
    ExitCode::from(status.code())
}

/// What a command has beside its arguments.
struct Console {
    /// When the program started.
    started: Instant,
    /// Standard error.
    screen: Screen,
    /// The colors of standard output.
    palette: Palette,
}

impl Console {
    /// Judges the two streams separately: one may be a terminal and the other a pipe.
    fn new(arguments: &Arguments, started: Instant) -> Console {
        let is_run = matches!(arguments.command, Command::Run(_));
        let is_plain = matches!(&arguments.command, Command::Run(flags) if flags.ci);
        let terminals = Terminals::new(is_plain, &|name| std::env::var(name).ok());
        let is_terminal = io::stderr().is_terminal();
        let has_bar = is_run && terminals.allow_drawing(is_terminal);
        let style = if has_bar { Style::Bar } else { Style::Lines };
        let screen = Screen::new(style, terminals.palette(is_terminal));
        Console { started, screen, palette: terminals.palette(io::stdout().is_terminal()) }
    }
}

/// Standard output. Once its reader is gone, further output is dropped and nothing else changes: the
/// verdict of a run does not depend on who reads it.
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

/// Reports what went wrong.
fn report(problem: &Problem, screen: &Screen) -> Status {
    screen.clear();
    let palette = screen.palette();
    let text = printable(&format!("{:#}", problem.error));
    screen.line(&format!("offload: {}: {text}", palette.red("error")));
    if let Some(hint) = &problem.hint {
        screen.line(&format!("\n  {}", palette.dim(format!("hint: {hint}"))));
    }
    problem.status
}

fn start_logging(verbose: bool, screen: &Screen) {
    let level = if verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn };
    let palette = screen.palette();
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Pipe(screen.log_target()))
        .format(move |output, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            let level = match record.level() {
                log::Level::Error => palette.red(level),
                log::Level::Warn => palette.yellow(level),
                _ => palette.dim(level),
            };
            writeln!(output, "offload: {level}: {}", printable(&record.args().to_string()))
        })
        .init();
}

fn dispatch(
    arguments: &Arguments,
    console: &Console,
    output: &mut (dyn Write + Send),
) -> Result<Status, Problem> {
    let config = arguments.config.as_path();
    let screen = &console.screen;
    match &arguments.command {
        Command::Run(flags) => run::run(config, flags, console, output),
        Command::Build { copy_dir, env, no_cache } => {
            let options =
                build::Options { env: env.clone(), copy_dirs: copy_dir.clone(), no_cache: *no_cache };
            build::run(&load(config)?, screen, &options, &cancel_on_signals()?, output)
        }
        Command::CheckpointStatus => build::status(&load(config)?, screen, &cancel_on_signals()?, output),
        Command::Gc { forget } => {
            let unknown = if *forget { gc::Unknown::Forget } else { gc::Unknown::Keep };
            gc::run(screen, unknown, &cancel_on_signals()?, output)
        }
        Command::Collect { format, no_tests } => {
            let cancel = cancel_on_signals()?;
            let options = collect::Options { format: *format, no_tests: *no_tests, env: &[] };
            collect::run(&load(config)?, &options, &cancel, output)
        }
        Command::Plan { format, parallel } => {
            let mut settings = load(config)?;
            if let Some(parallel) = parallel {
                settings.offload.max_parallel = *parallel as usize;
            }
            plan::run(&settings, &name(config), *format, &cancel_on_signals()?, output)
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
            logs::run(&report.output_dir.join(report.junit_file), &filter, console.palette, output)
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

/// The name of a configuration file, which is part of each key in the history.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
