//! Keeps the beginning and the end of a text, in bounded memory.

use std::borrow::Cow;

const LEFT: &str = "\n[... ";
const OUT: &str = " bytes left out ...]\n";

/// A text that loses its middle once it exceeds a limit.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    limit: usize,
    /// The first bytes, at most `limit`.
    head: Vec<u8>,
    /// The last bytes after `head`, at most twice `limit`.
    tail: Vec<u8>,
    total: u64,
}

impl Cut {
    /// An empty text that will keep at most `limit` bytes, plus a line that says how much is missing.
    pub(super) fn new(limit: usize) -> Cut {
        Cut { limit, head: Vec::new(), tail: Vec::new(), total: 0 }
    }

    /// Appends a piece, which may end within a character.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.limit - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        if rest.len() >= self.limit {
            self.tail.clear();
            self.tail.extend_from_slice(&rest[rest.len() - self.limit..]);
        } else if !rest.is_empty() {
            if self.tail.len() + rest.len() > 2 * self.limit {
                self.tail.drain(..self.tail.len().saturating_sub(self.limit));
            }
            self.tail.extend_from_slice(rest);
        }
    }

    /// Whether only white space was added.
    pub(super) fn is_blank(&self) -> bool {
        self.head.iter().all(u8::is_ascii_whitespace) && self.tail.is_empty()
    }

    /// The number of bytes added.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.tail.clear();
        self.total = 0;
    }

    /// The text. If it is too long, a line in the middle says how many bytes are missing.
    pub(super) fn text(&self) -> Cow<'_, str> {
        if self.total <= self.limit as u64 {
            // Far faster than looking at each character.
            return match std::str::from_utf8(&self.head) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => String::from_utf8_lossy(&self.head),
            };
        }
        let half = self.limit / 2;
        let (head, middle) = self.head.split_at(half);
        let head = whole_characters_at_end(head);
        let from_tail = self.tail.len().min(half);
        let from_middle = (half - from_tail).min(middle.len());
        let mut end = middle[middle.len() - from_middle..].to_vec();
        end.extend_from_slice(&self.tail[self.tail.len() - from_tail..]);
        let end = whole_characters_at_start(&end);
        let missing = self.total - (head.len() + end.len()) as u64;
        let (head, end) = (String::from_utf8_lossy(head), String::from_utf8_lossy(end));
        Cow::Owned(format!("{head}{LEFT}{missing}{OUT}{end}"))
    }

    /// The text, unless it is blank.
    pub(super) fn written(&self) -> Option<String> {
        (!self.is_blank()).then(|| self.text().into_owned())
    }
}

/// Splits a text that lost its middle: the part before, the line that says so, and the part after.
pub fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let mark = text.find(LEFT)?;
    let end = mark + text[mark..].find(OUT)? + OUT.len();
    Some((&text[..mark], &text[mark..end], &text[end..]))
}

/// `text` limited to `limit` bytes, as by [`Cut`].
pub(super) fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let mut cut = Cut::new(limit);
    cut.push(text.as_bytes());
    Cow::Owned(cut.text().into_owned())
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// `bytes` without an incomplete last character; a complete one may be dropped, too.
fn whole_characters_at_end(bytes: &[u8]) -> &[u8] {
    match bytes.iter().rposition(|byte| !is_continuation(*byte)) {
        Some(start) if bytes[start] >= 0x80 => &bytes[..start],
        _ => bytes,
    }
}

/// `bytes` without an incomplete first character.
fn whole_characters_at_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_continuation(*byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_within_the_limit_is_kept_exactly() {
        assert_eq!(shorten("0123456789", 10), "0123456789");
    }

    #[test]
    fn a_long_text_keeps_its_ends_no_matter_how_it_is_pushed() {
        let text: String = (0..1000).map(|number| format!("{number:04}")).collect();
        for step in [1, 7, 64, 4000] {
            let mut cut = Cut::new(40);
            for piece in text.as_bytes().chunks(step) {
                cut.push(piece);
                assert!(cut.tail.len() <= 80);
            }
            let expected = "00000001000200030004\n[... 3960 bytes left out ...]\n09950996099709980999";
            assert_eq!(cut.text(), expected, "step {step}");
        }
    }

    #[test]
    fn a_text_just_over_the_limit_loses_only_the_excess() {
        assert_eq!(shorten("0123456789a", 10), "01234\n[... 1 bytes left out ...]\n6789a");
    }

    #[test]
    fn the_line_in_place_of_the_middle_is_found() {
        let text = shorten("0123456789abc", 10).into_owned();
        let line = "\n[... 3 bytes left out ...]\n";
        assert_eq!(parts(&text), Some(("01234", line, "89abc")));
        assert_eq!(parts(&format!("{line}é")), Some(("", line, "é")));
        assert_eq!(parts("\n[... bytes left ou"), None);
    }

    #[test]
    fn no_character_is_split() {
        for length in 5..40 {
            let text = "é日😀x".repeat(length);
            for limit in 2..30 {
                assert!(!shorten(&text, limit).contains('\u{FFFD}'));
            }
        }
    }
}
