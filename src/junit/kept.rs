//! Texts that bypass the parser, which sees numbers in their place.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write as _;

/// Texts by number.
#[derive(Default)]
pub(super) struct Kept {
    /// The number of the first text.
    first: usize,
    texts: VecDeque<String>,
}

impl Kept {
    /// Stores a text and writes its number.
    pub(super) fn put(&mut self, text: Cow<'_, str>, out: &mut Vec<u8>) {
        if self.texts.is_empty() {
            self.first = 0;
        }
        // Writing to memory does not fail.
        let _ = write!(out, "{}", self.first + self.texts.len());
        self.texts.push_back(text.into_owned());
    }

    /// Removes and returns a text. Drops those before it, since the parser keeps the order.
    pub(super) fn take(&mut self, number: &str) -> String {
        let Some(place) = number.parse::<usize>().ok().and_then(|number| number.checked_sub(self.first))
        else {
            return String::new();
        };
        if place >= self.texts.len() {
            return String::new();
        }
        self.texts.drain(..place);
        self.first += place + 1;
        self.texts.pop_front().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_gives_its_text_once_even_if_some_are_skipped() {
        let (mut kept, mut out) = (Kept::default(), Vec::new());
        for text in ["a", "b", "c"] {
            kept.put(Cow::Borrowed(text), &mut out);
        }
        assert_eq!(out, b"012");
        let taken = ["1", "1", "0", "2", "3", "x", ""].map(|number| kept.take(number));
        assert_eq!(taken, ["b", "", "", "c", "", "", ""]);
    }

    #[test]
    fn numbers_start_again_when_nothing_is_kept() {
        let (mut kept, mut out) = (Kept::default(), Vec::new());
        for text in ["a", "b"] {
            kept.put(Cow::Borrowed(text), &mut out);
            assert_eq!(kept.take("0"), text);
        }
        assert_eq!(out, b"00");
    }
}
