//! `offload build` and `offload checkpoint-status`: the image of the sandboxes, without a run.

use std::io::{self, Write};

use anyhow::Context;

use super::sandboxes::{self, ImageChoice, SandboxSource};
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::Config;
use crate::error::{Problem, Status};
use crate::image;
use crate::progress::Screen;
use crate::words::count;

/// The flags of `build`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables for all tests.
    pub env: Vec<(String, String)>,
    /// More directories to copy into the image, as `local:remote`.
    pub copy_dirs: Vec<String>,
    /// Build the image even where a cached one would do.
    pub no_cache: bool,
}

fn has_no_image() -> Problem {
    Problem::usage("the sandboxes of this configuration have no image")
        .hint("name the command that makes one in `prepare_command` in [provider], or use another provider")
}

/// Finds or builds the image and writes its id to `output`.
///
/// # Errors
/// When there is none, or it cannot be made.
pub fn run(
    config: &Config,
    screen: &Screen,
    options: &Options,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, &options.env)?;
    let source = SandboxSource::new(config, &setup, &options.copy_dirs, screen, cancel)?;
    let choice = if options.no_cache { ImageChoice::Fresh } else { ImageChoice::Cached };
    let found = sandboxes::image(&source, choice, cancel)?;
    if found.image.lacks.is_some() {
        log::info!("what has changed since its commit will be brought to each sandbox");
    }
    let id = found.image.id.ok_or_else(has_no_image)?;
    writeln!(output, "{id}").and_then(|()| output.flush()).context("cannot write the id of the image")?;
    Ok(Status::Passed)
}

/// Shows what a run would do for its image.
///
/// # Errors
/// When there is none, or the repository cannot be read.
pub fn status(
    config: &Config,
    screen: &Screen,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, &[])?;
    let source = SandboxSource::new(config, &setup, &[], screen, cancel)?;
    let wanted = source.wanted().filter(|wanted| wanted.builder.makes_images()).ok_or_else(has_no_image)?;
    let status = wanted.status()?;
    let written = match status {
        Some(status) => write(&status, output),
        None => writeln!(output, "there is no git commit to keep an image for: each run makes one"),
    };
    written.context("cannot write the status")?;
    Ok(Status::Passed)
}

fn write(status: &image::Status, output: &mut dyn Write) -> io::Result<()> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    writeln!(output, "recipe   {}", short(&status.key))?;
    let inputs: Vec<_> = status.inputs.iter().map(|path| path.to_string_lossy()).collect();
    writeln!(output, "inputs   {}", if inputs.is_empty() { "none".into() } else { inputs.join(", ") })?;
    writeln!(output, "commit   {}", short(&status.head))?;
    match &status.cached {
        Some((commit, behind, image)) => {
            let behind = count(*behind, "commit");
            writeln!(output, "image    {image} of commit {}, {behind} behind", short(commit))?;
        }
        None => writeln!(output, "image    none: the next run makes one")?,
    }
    let (files, bytes) = status.changes;
    let what = count(files, "file");
    match (files, status.can_patch) {
        (0, _) => writeln!(output, "changes  none")?,
        (_, true) => {
            writeln!(output, "changes  {what}, {} KiB: brought as a thin diff", bytes.div_ceil(1024))?
        }
        (_, false) => {
            writeln!(
                output,
                "changes  {what}, {} KiB: a run makes an image of its own",
                bytes.div_ceil(1024)
            )?;
        }
    }
    output.flush()
}
