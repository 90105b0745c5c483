//! Values that must not be seen: masked in texts and in streams, also across two writes.

use std::io::{self, Write};

const STARS: &[u8] = b"***";

/// The secret values of a run.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    secrets: Vec<Vec<u8>>,
}

impl Mask {
    /// A mask for `values`; empty ones are left out, the longest match wins.
    pub fn new(values: impl IntoIterator<Item = String>) -> Mask {
        let mut secrets: Vec<Vec<u8>> =
            values.into_iter().filter(|value| !value.is_empty()).map(String::into_bytes).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Mask { secrets }
    }

    /// Whether nothing is secret.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// `text` with every secret replaced by `***`.
    pub fn hide(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut hidden = Vec::with_capacity(text.len());
        let rest = self.pass(text.as_bytes(), true, &mut hidden);
        debug_assert_eq!(rest, text.len());
        String::from_utf8_lossy(&hidden).into_owned()
    }

    /// Moves what is decided of `bytes` to `output` and tells how much that was. What may be the
    /// start of a secret stays undecided until more is known, or `last`.
    fn pass(&self, bytes: &[u8], last: bool, output: &mut Vec<u8>) -> usize {
        let mut place = 0;
        while place < bytes.len() {
            let rest = &bytes[place..];
            if !last
                && self.secrets.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest))
            {
                return place;
            }
            match self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    output.extend_from_slice(STARS);
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

/// A writer that passes everything on but the secrets. What it holds back at the end is written by
/// [`Masked::finish`].
pub struct Masked<'a, W: Write> {
    mask: &'a Mask,
    inner: W,
    held: Vec<u8>,
}

impl<'a, W: Write> Masked<'a, W> {
    /// A masking writer in front of `inner`.
    pub fn new(mask: &'a Mask, inner: W) -> Masked<'a, W> {
        Masked { mask, inner, held: Vec::new() }
    }

    /// Writes what is still held back.
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
    fn a_secret_is_masked_wherever_the_writes_are_cut() {
        let mask = Mask::new(["hunter2".into(), String::new(), "hunter".into(), "nter2x".into()]);
        let text = b"a hunter2 b hunterhunter2 hunt hunter2";
        for cut in 0..text.len() {
            let mut output = Vec::new();
            let mut masked = Masked::new(&mask, &mut output);
            masked.write_all(&text[..cut]).unwrap();
            masked.write_all(&text[cut..]).unwrap();
            masked.finish().unwrap();
            assert_eq!(String::from_utf8(output).unwrap(), "a *** b ****** hunt ***", "cut at {cut}");
        }
        assert_eq!(mask.hide("é hunter2 hunt"), "é *** hunt");
        assert_eq!(Mask::new(["hunter".into(), "hunter2".into()]).hide("hunter2"), "***");
    }
}
