//! Converts bytes in any encoding to UTF-8 without characters that XML forbids.

use std::io::{self, Read};

use super::escape::allowed;

const BLOCK: usize = 64 * 1024;
/// The number of bytes to examine for a byte order mark and an XML declaration.
const SNIFFED: usize = 256;
/// Windows-1252 from 0x80 to 0x9F. Also used for Latin-1, as browsers do.
const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Also for unknown encodings; invalid bytes become U+FFFD.
    Utf8,
    SingleByte,
    Utf16 {
        big_endian: bool,
    },
}

/// Decodes a stream block by block.
pub(super) struct Decoder<R> {
    source: R,
    encoding: Option<Encoding>,
    raw: Vec<u8>,
    /// The number of bytes at the start of `raw` that are not decoded yet.
    filled: usize,
    text: String,
    /// The first half of a UTF-16 surrogate pair at the end of the last block.
    unpaired: Option<u16>,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(source: R) -> Decoder<R> {
        let raw = vec![0; BLOCK];
        Decoder { source, encoding: None, raw, filled: 0, text: String::new(), unpaired: None }
    }

    /// The next piece of text, which may be empty; `None` at the end.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<&str>> {
        let count = self.fill()?;
        let at_end = count == 0;
        if at_end && self.filled == 0 && self.unpaired.is_none() {
            return Ok(None);
        }
        let encoding = match self.encoding {
            Some(encoding) => encoding,
            None => self.sniff()?,
        };
        self.text.clear();
        let taken = match encoding {
            Encoding::Utf8 => self.decode_utf8(at_end),
            Encoding::SingleByte => self.decode_single_bytes(),
            Encoding::Utf16 { big_endian } => self.decode_utf16(big_endian, at_end),
        };
        self.raw.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        if let std::borrow::Cow::Owned(cleaned) = allowed(&self.text) {
            self.text = cleaned;
        }
        Ok(Some(&self.text))
    }

    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.source.read(&mut self.raw[self.filled..]) {
                Ok(count) => {
                    self.filled += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Detects the encoding and removes a byte order mark.
    fn sniff(&mut self) -> io::Result<Encoding> {
        while self.filled < SNIFFED && self.fill()? > 0 {}
        let start = &self.raw[..self.filled];
        let (mark, encoding) = match start {
            [0xEF, 0xBB, 0xBF, ..] => (3, Encoding::Utf8),
            [0xFE, 0xFF, ..] => (2, Encoding::Utf16 { big_endian: true }),
            [0xFF, 0xFE, ..] => (2, Encoding::Utf16 { big_endian: false }),
            [0, b'<', ..] => (0, Encoding::Utf16 { big_endian: true }),
            [b'<', 0, ..] => (0, Encoding::Utf16 { big_endian: false }),
            _ => (0, declared(&start[..start.len().min(SNIFFED)])),
        };
        self.raw.copy_within(mark..self.filled, 0);
        self.filled -= mark;
        self.encoding = Some(encoding);
        Ok(encoding)
    }

    fn decode_utf8(&mut self, at_end: bool) -> usize {
        let bytes = &self.raw[..self.filled];
        // Usually all is valid, and finding that out is far faster than looking at each character.
        if let Ok(valid) = std::str::from_utf8(bytes) {
            self.text.push_str(valid);
            return bytes.len();
        }
        let mut taken = 0;
        for chunk in bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let may_go_on = taken + invalid.len() == bytes.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if may_go_on && !at_end {
                break;
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        taken
    }

    fn decode_single_bytes(&mut self) -> usize {
        for byte in &self.raw[..self.filled] {
            self.text.push(match byte {
                0x80..=0x9F => WINDOWS_1252.chars().nth(usize::from(byte - 0x80)).unwrap_or_default(),
                _ => char::from(*byte),
            });
        }
        self.filled
    }

    fn decode_utf16(&mut self, big_endian: bool, at_end: bool) -> usize {
        let whole = self.filled & !1;
        let units = self.raw[..whole].chunks_exact(2).map(|pair| match big_endian {
            true => u16::from_be_bytes([pair[0], pair[1]]),
            false => u16::from_le_bytes([pair[0], pair[1]]),
        });
        let mut units: Vec<u16> = self.unpaired.take().into_iter().chain(units).collect();
        if !at_end && units.last().is_some_and(|unit| (0xD800..0xDC00).contains(unit)) {
            self.unpaired = units.pop();
        }
        let characters = char::decode_utf16(units);
        self.text.extend(characters.map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)));
        if at_end && whole < self.filled {
            self.text.push(char::REPLACEMENT_CHARACTER);
            return self.filled;
        }
        whole
    }
}

/// The encoding that an XML declaration at the start of `bytes` names. A declared UTF-16 is wrong, since the
/// declaration could be read as single bytes.
fn declared(bytes: &[u8]) -> Encoding {
    let start = String::from_utf8_lossy(bytes);
    let label = start
        .trim_start()
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"))
        .and_then(|(declaration, _)| declaration.split_once("encoding"))
        .and_then(|(_, value)| value.split(['"', '\'']).nth(1))
        .unwrap_or_default()
        .to_ascii_lowercase();
    match label.as_str() {
        "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "latin-1" | "l1" | "windows-1252"
        | "cp1252" | "iso-8859-15" => Encoding::SingleByte,
        _ => Encoding::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns its bytes in pieces of a fixed size, with an interrupt before each.
    struct Slow<'a>(&'a [u8], usize, bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn decode(bytes: &[u8]) -> String {
        let whole = decode_by(bytes, usize::MAX);
        for step in [1, 2, 3, 5] {
            assert_eq!(decode_by(bytes, step), whole, "in steps of {step}");
        }
        whole
    }

    fn decode_by(bytes: &[u8], step: usize) -> String {
        let mut decoder = Decoder::new(Slow(bytes, step, false));
        let mut text = String::new();
        while let Some(piece) = decoder.next_piece().unwrap() {
            text.push_str(piece);
        }
        text
    }

    #[test]
    fn utf_8_with_and_without_mark_is_the_same() {
        assert_eq!(decode("\u{feff}<a>é日😀</a>".as_bytes()), "<a>é日😀</a>");
        assert_eq!(decode("<a>é日😀</a>".as_bytes()), "<a>é日😀</a>");
    }

    #[test]
    fn utf_16_is_read_in_both_orders_with_and_without_mark() {
        let text = "<a>é日😀</a>";
        for mark in ["\u{feff}", ""] {
            let units: Vec<u16> = format!("{mark}{text}").encode_utf16().collect();
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            assert_eq!(decode(&little), text);
            assert_eq!(decode(&big), text);
        }
    }

    #[test]
    fn characters_split_across_reads_are_whole() {
        let text = format!("<a>{}</a>", "é日😀".repeat(SNIFFED));
        assert_eq!(decode(text.as_bytes()), text);
    }

    #[test]
    fn surrogate_pairs_split_across_reads_are_whole() {
        let text = format!("<a>{}</a>", "😀".repeat(SNIFFED));
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&little), text);
    }

    #[test]
    fn broken_pairs_and_an_odd_byte_are_replaced() {
        assert_eq!(decode(&[0xFF, 0xFE, 0x3D, 0xD8, b'x', 0, b'y']), "\u{fffd}x\u{fffd}");
        assert_eq!(decode(&[0xFF, 0xFE, 0x3D, 0xD8]), "\u{fffd}");
    }

    #[test]
    fn a_declared_latin_1_is_believed_and_a_declared_utf_16_is_not() {
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xE9\x80</a>";
        assert!(decode(latin).ends_with("<a>é€</a>"));
        let net = "<?xml version=\"1.0\" encoding=\"utf-16\"?><a>é</a>";
        assert!(decode(net.as_bytes()).ends_with("<a>é</a>"));
    }

    #[test]
    fn bytes_that_are_not_utf_8_and_forbidden_characters_are_replaced() {
        assert_eq!(decode(b"a\xFFb\xC3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(decode("a\0\u{1b}\u{ffff}\t\r\nb".as_bytes()), "a\u{fffd}\u{fffd}\u{fffd}\t\r\nb");
    }
}
