//! What a person sees while tests run: a bar at the bottom of a terminal, plain lines now and then elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::color::Palette;
use crate::event::Event;
use crate::words::count;

mod screen;

pub use screen::{Screen, Style};

/// Plain lines appear at most this often.
const LINE_PACE: Duration = Duration::from_secs(5);
/// A bar is drawn at most this often.
const BAR_PACE: Duration = Duration::from_millis(100);
/// The widest and the narrowest bar, without its brackets.
const BAR_WIDTH: std::ops::RangeInclusive<usize> = 10..=30;

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
        Progress { screen, total, running: BTreeMap::new(), last: Instant::now() }
    }

    /// Takes in one event.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Started { slot, batch } => {
                let name = format!("batch {} ({})", batch.index, count(batch.tests.len(), "test"));
                self.running.insert(*slot, Running { name, since: Instant::now() });
            }
            Event::Finished { slot, .. } | Event::Lost { slot, .. } | Event::Refused { slot, .. } => {
                self.running.remove(slot);
            }
            _ => {}
        }
    }

    /// Whether it is time to show something.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= if self.screen.is_drawn() { BAR_PACE } else { LINE_PACE }
    }

    /// Shows how many tests have a result, and how many of them are bad.
    pub fn show(&mut self, judged: usize, bad: usize) {
        self.last = Instant::now();
        let longest = self.running.values().min_by_key(|running| running.since);
        let longest = longest
            .map(|running| format!("longest: {} for {} s", running.name, running.since.elapsed().as_secs()));
        let state = State {
            judged,
            total: self.total,
            bad,
            running: self.running.len(),
            longest: longest.as_deref(),
        };
        if self.screen.is_drawn() {
            self.screen.draw(&|width| state.fit(width, self.screen.palette()));
        } else {
            self.screen.line(&format!("offload: {}", state.line()));
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.screen.clear();
    }
}

/// Where a run stands.
struct State<'a> {
    judged: usize,
    total: usize,
    bad: usize,
    running: usize,
    longest: Option<&'a str>,
}

impl State<'_> {
    fn line(&self) -> String {
        let State { judged, total, bad, running, .. } = self;
        let longest = self.longest.map(|longest| format!(", {longest}")).unwrap_or_default();
        format!("{judged} of {total} tests done, {bad} failed, {running} running{longest}")
    }

    /// As much as fits into `width` columns: first the numbers, then the bar, then the longest batch.
    fn fit(&self, width: usize, palette: Palette) -> String {
        let State { judged, total, bad, running, .. } = self;
        let (tests, failed) = (format!("{judged}/{total} tests"), format!("{bad} failed"));
        let running = format!("{running} running");
        let plain = format!("{tests}, {failed}, {running}");
        if plain.len() > width {
            return plain.chars().take(width).collect();
        }
        let failed = if *bad > 0 { palette.red(failed).to_string() } else { failed };
        let mut text = format!("{tests}, {failed}, {running}");
        let mut left = width - plain.len();
        let bar = left.saturating_sub("[] ".len()).min(*BAR_WIDTH.end());
        if BAR_WIDTH.contains(&bar) {
            let filled = bar * judged / (*total).max(1);
            let (filled, empty) = ("=".repeat(filled), " ".repeat(bar.saturating_sub(filled)));
            text = format!("[{filled}{empty}] {text}");
            left -= bar + "[] ".len();
        }
        if let Some(longest) = self.longest.filter(|longest| longest.len() + ", ".len() <= left) {
            text += &format!(", {longest}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_gives_way_to_the_numbers_and_nothing_is_wider_than_the_terminal() {
        let state = State {
            judged: 12,
            total: 40,
            bad: 1,
            running: 3,
            longest: Some("longest: batch 5 (3 tests) for 12 s"),
        };
        for (width, expected) in [
            (
                117,
                "[=========                     ] 12/40 tests, 1 failed, 3 running, longest: batch 5 (3 tests) for 12 s",
            ),
            (57, "[======                ] 12/40 tests, 1 failed, 3 running"),
            (40, "12/40 tests, 1 failed, 3 running"),
            (14, "12/40 tests, 1"),
            (0, ""),
        ] {
            assert_eq!(state.fit(width, Palette::default()), expected);
        }
        for width in 0..200 {
            assert!(state.fit(width, Palette::default()).len() <= width);
        }
    }
}
