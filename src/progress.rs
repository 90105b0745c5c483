//! What a person sees while tests run: one bar on a terminal, plain lines now and then elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::event::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come at most this often.
const PACE: Duration = Duration::from_secs(5);

/// Standard error, shared by log lines and the bar without tearing each other.
#[derive(Clone, Debug)]
pub struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    /// A screen with room for a bar, or for plain lines only.
    pub fn new(style: Style) -> Screen {
        let bar =
            (style == Style::Bar).then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
        Screen { bar }
    }
}

impl Screen {
    /// Says what is being done before there are tests to count.
    pub fn announce(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
                bar.set_style(
                    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.set_message(what.to_owned());
                bar.tick();
            }
            None => log::info!("{what}"),
        }
    }
}

impl Screen {
    /// Whether what is shown is drawn over again and again.
    pub fn is_drawn(&self) -> bool {
        self.bar.is_some()
    }

    /// Says what is going on before there are tests to count: in the place of what was said before, or in
    /// a line of its own.
    pub fn tell(&self, what: &str) {
        if self.is_drawn() {
            self.announce(what);
        } else {
            // A closed stderr must not end the run.
            let _ = writeln!(io::stderr(), "offload: {what}");
        }
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A bar that is drawn again and again.
    Bar,
    /// A line every few seconds.
    Lines,
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write_all(bytes);
        match &self.bar {
            Some(bar) => bar.suspend(write)?,
            None => write()?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A batch that runs now.
#[derive(Debug)]
struct Running {
    name: String,
    since: Instant,
}

/// The progress of one run.
#[derive(Debug)]
pub struct Progress {
    screen: Screen,
    total: usize,
    running: BTreeMap<usize, Running>,
    last: Instant,
}

impl Progress {
    /// Starts to show progress through `total` tests.
    pub fn new(screen: Screen, total: usize) -> Progress {
        if let Some(bar) = &screen.bar {
            bar.set_length(total as u64);
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            bar.set_message("");
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tests, {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Progress { screen, total, running: BTreeMap::new(), last: Instant::now() }
    }

    /// Takes in one event.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Started { slot, batch } => {
                let name = format!("batch {} ({} tests)", batch.index, batch.tests.len());
                self.running.insert(*slot, Running { name, since: Instant::now() });
            }
            Event::Finished { slot, .. } | Event::Lost { slot, .. } | Event::Refused { slot, .. } => {
                self.running.remove(slot);
            }
            _ => {}
        }
    }

    /// Whether it is time to show something; plain lines are rare, a bar is quick.
    pub fn is_due(&self) -> bool {
        let pace = if self.screen.bar.is_some() { Duration::from_millis(100) } else { PACE };
        self.last.elapsed() >= pace
    }

    /// Shows how many tests are judged, and how many of them badly.
    pub fn show(&mut self, judged: usize, bad: usize) {
        self.last = Instant::now();
        let longest = self.running.values().min_by_key(|running| running.since);
        let longest = longest.map(|running| {
            format!(", longest: {} for {} s", running.name, running.since.elapsed().as_secs())
        });
        let state = format!("{bad} failed, {} running{}", self.running.len(), longest.unwrap_or_default());
        match &self.screen.bar {
            Some(bar) => {
                bar.set_position(judged as u64);
                bar.set_message(state);
            }
            None => {
                // A closed stderr must not end the run.
                let _ = writeln!(self.screen, "offload: {judged} of {} tests done, {state}", self.total);
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.screen.bar {
            bar.finish_and_clear();
        }
    }
}
