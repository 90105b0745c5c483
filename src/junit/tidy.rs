//! Prepares any report for a strict XML parser, in bounded memory: converts it to UTF-8, removes comments,
//! declarations, CDATA, unknown entities and forbidden characters, and shortens long texts and attribute values.
//! Errors in tags are left to the parser.
//!
//! The parser is slow on texts and values, so it sees a number in place of each, for which [`Tidy::take`] returns the
//! text.

use std::io::{self, Read};

use memchr::{memchr, memchr2, memchr3};

use super::cut::Cut;
use super::decode::Decoder;
use super::escape::is_forbidden;
use super::kept::Kept;

/// The maximum size of an attribute value; large, since ids must not be shortened.
const LONGEST_VALUE: usize = 1 << 20;
/// The maximum length of a reference, without `&` and `;`.
const LONGEST_REFERENCE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After `<`, while it is unclear what it starts.
    Opened,
    /// In a tag, outside attribute values.
    Tag,
    /// In an attribute value, with its quote.
    Value(u8),
    /// After `&`, in a value with this quote, or in text.
    Reference(Option<u8>),
    /// With the number of preceding dashes.
    Comment(u8),
    /// With the number of preceding closing brackets.
    Cdata(u8),
    /// `<? … ?>`; whether the last character was a question mark.
    Instruction(bool),
    /// `<! … >`, with the nesting depth and the open quote.
    Declaration {
        depth: u32,
        quote: Option<u8>,
    },
}

/// Reads tidied XML.
pub(super) struct Tidy<R> {
    source: Decoder<R>,
    lexer: Lexer,
    consumed: usize,
    ended: bool,
}

impl<R: Read> Tidy<R> {
    /// Tidies `source`; texts keep at most `longest_text` bytes.
    pub(super) fn new(source: R, longest_text: usize) -> Tidy<R> {
        let lexer = Lexer {
            state: State::Text,
            text: Cut::new(longest_text),
            value: Cut::new(LONGEST_VALUE),
            held: Vec::new(),
            out: Vec::new(),
            kept: Kept::default(),
        };
        Tidy { source: Decoder::new(source), lexer, consumed: 0, ended: false }
    }

    /// The text that `number` stands for.
    pub(super) fn take(&mut self, number: &str) -> String {
        self.lexer.kept.take(number)
    }

    /// Refills the buffer, which must be used up.
    #[cold]
    fn refill(&mut self) -> io::Result<()> {
        self.lexer.out.clear();
        self.consumed = 0;
        while self.lexer.out.is_empty() && !self.ended {
            match self.source.next_piece()? {
                Some(piece) => self.lexer.read(piece.as_bytes()),
                None => {
                    self.ended = true;
                    self.lexer.end();
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Tidy<R> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.consumed == self.lexer.out.len() {
            self.refill()?;
        }
        let left = &self.lexer.out[self.consumed..];
        // The parser reads single bytes.
        if let ([first], [byte, ..]) = (&mut *buffer, left) {
            *first = *byte;
            self.consumed += 1;
            return Ok(1);
        }
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.consumed += count;
        Ok(count)
    }
}

struct Lexer {
    state: State,
    /// The text since the last tag; references and CDATA are resolved.
    text: Cut,
    /// The current attribute value so far; references are resolved.
    value: Cut,
    /// The input so far of a reference, or after `<`.
    held: Vec<u8>,
    out: Vec<u8>,
    kept: Kept,
}

impl Lexer {
    fn read(&mut self, mut piece: &[u8]) {
        while let Some(byte) = piece.first() {
            let taken = match self.state {
                State::Text => self.read_text(piece),
                State::Opened => self.read_opened(*byte),
                State::Tag => self.read_tag(piece),
                State::Value(quote) => self.read_value(piece, quote),
                State::Reference(quote) => self.read_reference(*byte, quote),
                State::Comment(dashes) => self.read_comment(*byte, dashes),
                State::Cdata(brackets) => self.read_cdata(piece, brackets),
                State::Instruction(after_mark) => self.read_instruction(*byte, after_mark),
                State::Declaration { depth, quote } => self.read_declaration(*byte, depth, quote),
            };
            piece = &piece[taken..];
        }
    }

    /// Flushes what is held at the end of the input; an open tag stays open.
    fn end(&mut self) {
        if let State::Reference(quote) = self.state {
            self.give_up_reference(quote);
        }
        self.flush_text();
        if matches!(self.state, State::Opened | State::Declaration { .. }) {
            self.out.push(b'<');
        }
    }

    fn flush_text(&mut self) {
        if !self.text.is_blank() {
            self.kept.put(self.text.text(), &mut self.out);
        }
        self.text.clear();
    }

    fn read_text(&mut self, piece: &[u8]) -> usize {
        let end = memchr2(b'<', b'&', piece).unwrap_or(piece.len());
        self.text.push(&piece[..end]);
        let Some(byte) = piece.get(end) else { return end };
        self.held.clear();
        self.state = if *byte == b'<' { State::Opened } else { State::Reference(None) };
        end + 1
    }

    fn read_opened(&mut self, byte: u8) -> usize {
        if byte == b'?' && self.held.is_empty() {
            self.state = State::Instruction(false);
            return 1;
        }
        self.held.push(byte);
        match self.held.as_slice() {
            b"!--" => self.state = State::Comment(0),
            b"![CDATA[" => self.state = State::Cdata(0),
            held if b"!--".starts_with(held) || b"![CDATA[".starts_with(held) => {}
            [b'!', ..] => {
                self.state = State::Declaration { depth: 1, quote: None };
                return 0;
            }
            _ => {
                self.flush_text();
                self.out.push(b'<');
                self.state = State::Tag;
                return 0;
            }
        }
        1
    }

    fn read_tag(&mut self, piece: &[u8]) -> usize {
        let end = memchr3(b'"', b'\'', b'>', piece).unwrap_or(piece.len());
        self.out.extend_from_slice(&piece[..end]);
        let Some(byte) = piece.get(end) else { return end };
        if *byte == b'>' {
            self.out.push(b'>');
            self.state = State::Text;
        } else {
            self.out.push(b'"');
            self.value.clear();
            self.state = State::Value(*byte);
        }
        end + 1
    }

    fn read_value(&mut self, piece: &[u8], quote: u8) -> usize {
        let end = memchr2(quote, b'&', piece).unwrap_or(piece.len());
        self.value.push(&piece[..end]);
        let Some(byte) = piece.get(end) else { return end };
        if *byte == quote {
            self.kept.put(self.value.text(), &mut self.out);
            self.out.push(b'"');
            self.state = State::Tag;
        } else {
            self.held.clear();
            self.state = State::Reference(Some(quote));
        }
        end + 1
    }

    fn read_reference(&mut self, byte: u8, quote: Option<u8>) -> usize {
        if byte == b';' {
            match resolve(&self.held) {
                Some(character) => {
                    let mut bytes = [0; 4];
                    let bytes = character.encode_utf8(&mut bytes).as_bytes();
                    self.run(quote).push(bytes);
                    self.leave_reference(quote);
                    return 1;
                }
                None => self.give_up_reference(quote),
            }
        } else if (byte.is_ascii_alphanumeric() || byte == b'#') && self.held.len() < LONGEST_REFERENCE {
            self.held.push(byte);
            return 1;
        } else {
            self.give_up_reference(quote);
        }
        0
    }

    fn run(&mut self, quote: Option<u8>) -> &mut Cut {
        if quote.is_some() { &mut self.value } else { &mut self.text }
    }

    /// Treats what looked like a reference as text.
    fn give_up_reference(&mut self, quote: Option<u8>) {
        let held = std::mem::take(&mut self.held);
        self.run(quote).push(b"&");
        self.run(quote).push(&held);
        self.leave_reference(quote);
    }

    fn leave_reference(&mut self, quote: Option<u8>) {
        self.state = quote.map_or(State::Text, State::Value);
    }

    fn read_comment(&mut self, byte: u8, dashes: u8) -> usize {
        self.state = match byte {
            b'-' => State::Comment((dashes + 1).min(2)),
            b'>' if dashes == 2 => State::Text,
            _ => State::Comment(0),
        };
        1
    }

    fn read_cdata(&mut self, piece: &[u8], brackets: u8) -> usize {
        match piece[0] {
            b']' if brackets == 2 => self.text.push(b"]"),
            b']' => self.state = State::Cdata(brackets + 1),
            b'>' if brackets == 2 => self.state = State::Text,
            _ => {
                self.text.push(&b"]]"[..usize::from(brackets)]);
                self.state = State::Cdata(0);
                let end = memchr(b']', piece).unwrap_or(piece.len());
                self.text.push(&piece[..end]);
                return end;
            }
        }
        1
    }

    fn read_instruction(&mut self, byte: u8, after_mark: bool) -> usize {
        self.state = if after_mark && byte == b'>' { State::Text } else { State::Instruction(byte == b'?') };
        1
    }

    fn read_declaration(&mut self, byte: u8, depth: u32, quote: Option<u8>) -> usize {
        let (depth, quote) = match (byte, quote) {
            (_, Some(open)) => (depth, quote.filter(|_| byte != open)),
            (b'"' | b'\'', None) => (depth, Some(byte)),
            (b'<', None) => (depth + 1, None),
            (b'>', None) => (depth - 1, None),
            _ => (depth, None),
        };
        self.state = if depth == 0 { State::Text } else { State::Declaration { depth, quote } };
        1
    }
}

/// The character that `&held;` stands for, or U+FFFD for a forbidden one; `None` if XML does not define it.
fn resolve(held: &[u8]) -> Option<char> {
    let name = std::str::from_utf8(held).ok()?;
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => name.strip_prefix('#')?,
    };
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16),
        None => (number, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let character = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    Some(character.filter(|character| !is_forbidden(*character)).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidy(input: &str) -> String {
        let whole = tidy_by(input, usize::MAX);
        for step in [1, 2, 3, 7] {
            assert_eq!(tidy_by(input, step), whole, "in steps of {step}");
        }
        whole
    }

    fn tidy_by(input: &str, step: usize) -> String {
        let mut tidy = Tidy::new(io::empty(), 100);
        for piece in input.as_bytes().chunks(step) {
            tidy.lexer.read(piece);
        }
        tidy.lexer.end();
        with_texts(&mut tidy)
    }

    /// What the parser sees, with texts and values in place of their numbers.
    fn with_texts(tidy: &mut Tidy<io::Empty>) -> String {
        let out = String::from_utf8(std::mem::take(&mut tidy.lexer.out)).unwrap();
        let mut whole = String::new();
        for piece in out.split_inclusive(['"', '<', '>']) {
            let number: String = piece.chars().take_while(char::is_ascii_digit).collect();
            whole += &tidy.take(&number);
            whole += &piece[number.len()..];
        }
        whole
    }

    #[test]
    fn comments_declarations_and_instructions_are_removed() {
        let input = "<?xml version='1.1'?><!DOCTYPE a [<!ENTITY b '>'> ]>\
                     <a><!-- - -- <b> ---><b/><?c d?e?></a>";
        assert_eq!(tidy(input), "<a><b/></a>");
    }

    #[test]
    fn cdata_becomes_text() {
        assert_eq!(tidy("<a><![CDATA[<x> & ]] ]]]]>y<![CDATA[]]></a>"), "<a><x> & ]] ]]y</a>");
    }

    #[test]
    fn references_are_resolved_or_taken_literally() {
        let input = "<a b='&#x1B;&quot;&nbsp;&&#65;&#xFFFFFFFFF;'>&lt;&#27;&#0;&b &#; &</a>";
        let expected = "<a b=\"\u{fffd}\"&nbsp;&A\u{fffd}\">\
                        <\u{fffd}\u{fffd}&b &#; &</a>";
        assert_eq!(tidy(input), expected);
    }

    #[test]
    fn values_keep_line_ends_and_may_contain_markup() {
        assert_eq!(tidy("<a b='<\n\">'/>"), "<a b=\"<\n\">\"/>");
    }

    #[test]
    fn what_is_open_at_the_end_stays_open() {
        assert_eq!(tidy("<a>x<b c='d"), "<a>x<b c=\"");
        assert_eq!(tidy("<a>x<"), "<a>x<");
        assert_eq!(tidy("<a>x<![CDATA[y]"), "<a>xy");
        assert_eq!(tidy("<a><b c=\"x&am"), "<a><b c=\"");
    }

    #[test]
    fn long_text_is_shortened() {
        let output = tidy(&format!("<a>{}&amp;<![CDATA[{}]]></a>", "x".repeat(300), "y".repeat(300)));
        let expected = format!("<a>{}\n[... 501 bytes left out ...]\n{}</a>", "x".repeat(50), "y".repeat(50));
        assert_eq!(output, expected);
    }
}
