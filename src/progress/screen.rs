//! Standard error, shared by log lines and the bar: lines are written whole, above the bar.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::color::Palette;
use crate::error::printable;

/// Carriage return, and erase to the end of the line.
const ERASE: &str = "\r\x1b[K";
/// The width of a terminal that does not report one.
const USUAL_WIDTH: usize = 80;
/// Columns kept free: the last one, where some terminals wrap, and two for `^C`.
const MARGIN: usize = 3;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A bar that is redrawn in place.
    Bar,
    /// A line every few seconds.
    Lines,
}

/// Standard error. Clones share the bar.
#[derive(Clone, Debug)]
pub struct Screen {
    style: Style,
    palette: Palette,
    /// The bar as it stands on the terminal; empty where there is none.
    bar: Arc<Mutex<String>>,
}

impl Screen {
    /// A screen with or without a bar.
    pub fn new(style: Style, palette: Palette) -> Screen {
        Screen { style, palette, bar: Arc::default() }
    }

    /// The colors of standard error.
    pub fn palette(&self) -> Palette {
        self.palette
    }

    /// Whether what is shown is redrawn in place.
    pub fn is_drawn(&self) -> bool {
        self.style == Style::Bar
    }

    /// Reports what is being done before there are tests to count; without a bar only in the log.
    pub fn announce(&self, what: &str) {
        if self.is_drawn() {
            self.draw(&|width| cut(&printable(what), width));
        } else {
            log::info!("{what}");
        }
    }

    /// Reports what is going on before there are tests to count: in place of the last report, or on a
    /// line of its own.
    pub fn tell(&self, what: &str) {
        if self.is_drawn() {
            self.announce(what);
        } else {
            self.line(&format!("offload: {what}"));
        }
    }

    /// Writes whole lines, above the bar if there is one.
    pub fn line(&self, text: &str) {
        self.above_bar(&format!("{}\n", text.trim_end_matches('\n')));
    }

    /// A log target that writes only whole lines.
    pub fn log_target(&self) -> Box<dyn Write + Send> {
        Box::new(io::LineWriter::new(Lines(self.clone())))
    }

    /// Draws the bar; `text` makes it at most as wide as it is told, colors aside.
    pub(super) fn draw(&self, text: &dyn Fn(usize) -> String) {
        let mut bar = self.lock();
        *bar = text(width().saturating_sub(MARGIN));
        put(&format!("{ERASE}{bar}"));
    }

    /// Removes the bar.
    pub fn clear(&self) {
        let mut bar = self.lock();
        if !bar.is_empty() {
            bar.clear();
            put(ERASE);
        }
    }

    fn above_bar(&self, lines: &str) {
        let bar = self.lock();
        if bar.is_empty() {
            put(lines);
        } else {
            put(&format!("{ERASE}{lines}{bar}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer behind a [`io::LineWriter`], which hands it whole lines.
struct Lines(Screen);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.above_bar(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes in one call. A closed stderr must not end the run.
fn put(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The width of the terminal now; its window may be resized at any time.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0).unwrap_or(USUAL_WIDTH)
}

/// `text` on one line of at most `width` columns; characters beyond ASCII count as two, since some are.
fn cut(text: &str, width: usize) -> String {
    let mut used = 0;
    let fits = |letter: &char| {
        used += if letter.is_ascii() { 1 } else { 2 };
        used <= width
    };
    text.lines().next().unwrap_or_default().replace('\t', " ").chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_one_line_that_fits() {
        assert_eq!(cut("one\ttwo\nthree", 80), "one two");
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("日本語", 5), "日本");
    }
}
