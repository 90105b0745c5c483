//! Masks secret values in texts and streams, even if a value is split across writes.

use std::io::{self, Write};

/// Replaces a secret.
pub const STARS: &str = "***";

/// The number of quoting levels: from a plain value to a sandbox's shell within a provider's.
const QUOTES: usize = 4;

/// On which side a part of a text was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The text before it is missing.
    Before,
    /// The text after it is missing.
    Behind,
    /// Both are missing.
    Both,
}

/// The secret values of a run.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    secrets: Vec<Vec<u8>>,
    /// For each byte, whether a secret starts with it. This is a fast path for most of a text.
    first: Vec<bool>,
}

impl Mask {
    /// A mask for `values`. Empty ones are ignored, and the longest match wins.
    pub fn new(values: impl IntoIterator<Item = String>) -> Mask {
        // Commands may contain it in nested quotes.
        let quoted = |value: String| {
            let again = |text: &String| text.contains('\'').then(|| text.replace('\'', "'\\''"));
            std::iter::successors(Some(value), again).take(QUOTES)
        };
        let values = values.into_iter().filter(|value| !value.is_empty()).flat_map(quoted);
        let mut secrets: Vec<Vec<u8>> = values.map(String::into_bytes).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let mut first = vec![false; 256];
        for secret in &secrets {
            first[usize::from(secret[0])] = true;
        }
        Mask { secrets, first }
    }

    /// Whether there are no secrets.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Replaces every secret in `text` with `***`.
    pub fn hide(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut hidden = Vec::with_capacity(text.len());
        let rest = self.pass(text.as_bytes(), true, &mut hidden);
        debug_assert_eq!(rest, text.len());
        String::from_utf8_lossy(&hidden).into_owned()
    }

    /// Like [`Mask::hide`], for a part of a text; also replaces the rest of a secret where the text was cut.
    pub fn hide_part(&self, text: &str, cut: Cut) -> String {
        let (bytes, mut hidden) = (text.as_bytes(), Vec::with_capacity(text.len()));
        let mut start = 0;
        if cut != Cut::Behind {
            let left = |secret: &Vec<u8>| (1..secret.len()).find(|from| bytes.starts_with(&secret[*from..]));
            let lengths = self.secrets.iter().filter_map(|secret| Some(secret.len() - left(secret)?));
            start = lengths.max().unwrap_or(0);
        }
        if start > 0 {
            hidden.extend_from_slice(STARS.as_bytes());
        }
        let done = start + self.pass(&bytes[start..], cut == Cut::Before, &mut hidden);
        if done < bytes.len() {
            hidden.extend_from_slice(STARS.as_bytes());
        }
        String::from_utf8_lossy(&hidden).into_owned()
    }

    /// Like [`Mask::hide`], for the last bytes of a text, at most `limit`, which may start within a secret.
    pub fn hide_tail(&self, text: &str, limit: u64) -> String {
        if (text.len() as u64) < limit { self.hide(text) } else { self.hide_part(text, Cut::Before) }
    }

    /// Like [`Mask::hide`], for a text that was cut before `mark`, possibly within a secret.
    pub fn hide_before(&self, mark: char, text: &str) -> String {
        match text.split_once(mark) {
            Some((part, rest)) => format!("{}{mark}{}", self.hide_part(part, Cut::Behind), self.hide(rest)),
            None => self.hide(text),
        }
    }

    /// Masks `bytes` into `output` and returns how many were processed. Unless this is the `last` part, a possible
    /// start of a secret at the end is not processed.
    fn pass(&self, bytes: &[u8], last: bool, output: &mut Vec<u8>) -> usize {
        if self.is_empty() {
            output.extend_from_slice(bytes);
            return bytes.len();
        }
        let mut place = 0;
        while place < bytes.len() {
            let plain = bytes[place..].iter().take_while(|byte| !self.first[usize::from(**byte)]).count();
            output.extend_from_slice(&bytes[place..place + plain]);
            place += plain;
            let rest = &bytes[place..];
            if rest.is_empty() {
                break;
            }
            if !last
                && self.secrets.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest))
            {
                return place;
            }
            match self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    output.extend_from_slice(STARS.as_bytes());
                    place += secret.len();
                }
                None => {
                    output.push(bytes[place]);
                    place += 1;
                }
            }
        }
        place
    }
}

/// A writer that masks secrets. [`Masked::finish`] writes what is held back at the end.
pub struct Masked<'a, W: Write> {
    mask: &'a Mask,
    inner: W,
    held: Vec<u8>,
}

impl<'a, W: Write> Masked<'a, W> {
    /// Masks what is written to `inner`.
    pub fn new(mask: &'a Mask, inner: W) -> Masked<'a, W> {
        Masked { mask, inner, held: Vec::new() }
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// Those of the inner writer.
    pub fn finish(mut self) -> io::Result<()> {
        self.forward(true)?;
        self.inner.flush()
    }

    fn forward(&mut self, last: bool) -> io::Result<()> {
        let mut output = Vec::with_capacity(self.held.len());
        let done = self.mask.pass(&self.held, last, &mut output);
        self.held.drain(..done);
        self.inner.write_all(&output)
    }
}

impl<W: Write> Write for Masked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        self.forward(false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_split_across_writes_is_masked() {
        let mask = Mask::new(["hunter2".into(), String::new(), "hunter".into(), "nter2x".into()]);
        let text = b"a hunter2 b hunterhunter2 hunt hunter2 hun";
        for cut in 0..text.len() {
            let mut output = Vec::new();
            let mut masked = Masked::new(&mask, &mut output);
            masked.write_all(&text[..cut]).unwrap();
            masked.write_all(&text[cut..]).unwrap();
            masked.finish().unwrap();
            assert_eq!(String::from_utf8(output).unwrap(), "a *** b ****** hunt *** hun", "cut at {cut}");
        }
        assert_eq!(mask.hide("é hunter2 hunt"), "é *** hunt");
        assert_eq!(Mask::new(["hunter".into(), "hunter2".into()]).hide("hunter2"), "***");
    }

    #[test]
    fn a_quoted_secret_is_masked() {
        let secret = "it's \"s3cr3t\" $x";
        let mask = Mask::new([secret.into()]);
        let once = shell_words::join(["env", secret]);
        let twice = shell_words::join(["sh", "-c", &once]);
        let thrice = shell_words::join(["docker", "exec", &twice]);
        for text in [secret, &once, &twice, &thrice] {
            let hidden = mask.hide(text);
            assert!(hidden.contains("***") && !hidden.contains("s3cr3t"), "{hidden}");
        }
    }

    #[test]
    fn no_part_of_a_secret_is_left_at_a_cut() {
        let mask = Mask::new(["s3cr3t é value".into()]);
        let text = "a s3cr3t é value b s3cr3t é value c";
        for place in (0..text.len()).filter(|place| text.is_char_boundary(*place)) {
            let (start, end) = text.split_at(place);
            for hidden in [mask.hide_part(start, Cut::Behind), mask.hide_part(end, Cut::Before)] {
                assert!(!hidden.contains(['s', '3', 'é', 'v', 'e']), "cut at {place}: {hidden}");
            }
        }
        assert_eq!(mask.hide_part("lue b s3cr3t é value c s3", Cut::Both), "*** b *** c ***");
        assert_eq!(mask.hide_before('…', "x s3cr3t…y"), "x ***…y");
        assert_eq!((mask.hide_tail("e a", 4), mask.hide_tail("e a", 3)), ("e a".into(), "*** a".into()));
    }
}
