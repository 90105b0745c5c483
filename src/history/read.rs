//! Reads a history in blocks of whole lines on all cores, without loading the whole text. Unreadable lines and
//! samples are skipped and counted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rayon::iter::{ParallelBridge, ParallelIterator};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::{History, Record, Sample, is_duration, merge};
use crate::files;
use crate::words;

/// The number of bytes to read at a time.
const BLOCK: u64 = 1 << 20;
/// A line longer than this is not a record and is not kept in memory.
const LONGEST_LINE: usize = 64 << 20;

/// What was skipped in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The number of lines that are not records.
    pub lines: usize,
    /// The number of invalid samples in valid lines: malformed, negative, infinite, or years.
    pub samples: usize,
    /// The number of the first line with a fault, from 1; 0 if there is none.
    pub first: usize,
}

impl Faults {
    fn add(&mut self, lines: usize, samples: usize, number: usize) {
        self.lines += lines;
        self.samples += samples;
        if lines + samples > 0 && self.first == 0 {
            self.first = number;
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.lines, "line"), (self.samples, "sample")];
        let counts = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| words::count(count, &format!("unreadable {noun}")));
        let counts: Vec<String> = counts.collect();
        write!(formatter, "skipped {}, the first in line {}", counts.join(" and "), self.first)
    }
}

impl History {
    /// Reads the file at `path`; a missing file is an empty history. Unreadable parts are skipped with a warning.
    ///
    /// # Errors
    /// If the file cannot be read or is not a regular file.
    pub fn load(path: &Path) -> Result<History> {
        match files::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(History::default()),
            file => read_file(path, file),
        }
    }

    /// The same for a file that must exist.
    ///
    /// # Errors
    /// If the file is missing, cannot be read or is not a regular file.
    pub fn load_existing(path: &Path) -> Result<History> {
        read_file(path, files::open(path))
    }

    /// Reads lines in any order. Several lines about one test are merged, as if from two branches.
    ///
    /// # Errors
    /// Those of `input`; invalid text is not an error.
    pub fn read(input: impl Read + Send) -> io::Result<(History, Faults)> {
        let blocks = Blocks { input, rest: Vec::new(), at_end: false };
        let mut parts = blocks
            .enumerate()
            .par_bridge()
            .map(|(number, block)| Ok((number, parse(&block?, number == 0))))
            .collect::<io::Result<Vec<(usize, Part)>>>()?;
        parts.sort_unstable_by_key(|(number, _)| *number);
        let (mut faults, mut lines) = (Faults::default(), 0);
        let mut entries = Vec::with_capacity(parts.iter().map(|(_, part)| part.entries.len()).sum());
        for (_, part) in parts {
            faults.add(part.faults.lines, part.faults.samples, lines + part.faults.first);
            lines += part.lines;
            entries.extend(part.entries);
        }
        Ok((gather(entries), faults))
    }
}

fn read_file(path: &Path, file: io::Result<File>) -> Result<History> {
    let (history, faults) = file
        .and_then(History::read)
        .with_context(|| format!("cannot read the history `{}`", path.display()))?;
    if faults != Faults::default() {
        log::warn!("history `{}`: {faults}", path.display());
    }
    Ok(history)
}

/// Splits the input into blocks of whole lines; only the last may end without a newline.
struct Blocks<R> {
    input: R,
    rest: Vec<u8>,
    at_end: bool,
}

impl<R: Read> Blocks<R> {
    fn fill(&mut self) -> io::Result<Vec<u8>> {
        let mut block = std::mem::take(&mut self.rest);
        loop {
            let start = block.len();
            if self.input.by_ref().take(BLOCK).read_to_end(&mut block)? == 0 {
                self.at_end = true;
                return Ok(block);
            }
            if let Some(end) = block[start..].iter().rposition(|byte| *byte == b'\n') {
                self.rest = block.split_off(start + end + 1);
                return Ok(block);
            }
            if block.len() > LONGEST_LINE {
                // This makes the rest of the line invalid JSON.
                block = vec![b'!'];
            }
        }
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at_end {
            return None;
        }
        let block = self.fill();
        self.at_end |= block.is_err();
        Some(block)
    }
}

/// The content of a line.
struct Entry {
    config: Arc<str>,
    id: Box<str>,
    record: Record,
}

/// The content of a block. Line numbers are relative to its start.
#[derive(Default)]
struct Part {
    entries: Vec<Entry>,
    lines: usize,
    faults: Faults,
}

fn parse(block: &[u8], is_first: bool) -> Part {
    let mut rest = if is_first { block.strip_prefix(b"\xef\xbb\xbf").unwrap_or(block) } else { block };
    let mut part = Part::default();
    let mut names = Names::default();
    while !rest.is_empty() {
        let start = rest;
        // Reading a slice cannot fail, and this search is several times faster than `split`.
        let length = rest.skip_until(b'\n').unwrap_or(start.len());
        part.lines += 1;
        let line = &start[..length];
        match std::str::from_utf8(line).ok().and_then(|line| names.entry(line)) {
            Some((entry, dropped)) => {
                part.faults.add(0, dropped, part.lines);
                part.entries.push(entry);
            }
            None if line.trim_ascii().is_empty() => {}
            None => part.faults.add(1, 0, part.lines),
        }
    }
    part
}

/// A text, borrowed from the line unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// A line whose samples are read as `S`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
struct Line<'a, S> {
    #[serde(borrow)]
    k: (Text<'a>, Text<'a>),
    #[serde(borrow)]
    v: Known<'a, S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
struct Known<'a, S> {
    n: u64,
    f: u64,
    #[serde(borrow)]
    last_run: Text<'a>,
    ok: Vec<S>,
    fail: Vec<S>,
}

/// Run, time in milliseconds, and duration in seconds.
#[derive(Deserialize)]
struct RawSample<'a>(#[serde(borrow)] Text<'a>, u64, f64);

/// The names of runs and configurations in a block, each stored once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn keep(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.0.get(text) {
            return Arc::clone(kept);
        }
        let kept: Arc<str> = text.into();
        self.0.insert(Arc::clone(&kept));
        kept
    }

    /// The content of a line, and how many of its samples were dropped.
    fn entry(&mut self, line: &str) -> Option<(Entry, usize)> {
        if let Ok(line) = serde_json::from_str::<Line<'_, RawSample<'_>>>(line) {
            return Some(self.build(line, Some));
        }
        // Keep the other samples if one is malformed.
        let line = serde_json::from_str::<Line<'_, &RawValue>>(line).ok()?;
        Some(self.build(line, |sample| serde_json::from_str(sample.get()).ok()))
    }

    fn build<'a, S>(&mut self, line: Line<'a, S>, read: fn(S) -> Option<RawSample<'a>>) -> (Entry, usize) {
        let Line { k: (config, id), v: Known { n, f, last_run, ok, fail } } = line;
        let count = ok.len() + fail.len();
        let mut samples = |raw: Vec<S>| -> Vec<Sample> {
            let mut samples = Vec::with_capacity(raw.len());
            let good = raw.into_iter().filter_map(read).filter(|sample| is_duration(sample.2));
            // Adding 0 turns -0 into 0, which would otherwise differ.
            samples.extend(good.map(|RawSample(run, at, seconds)| Sample {
                run: self.keep(&run.0),
                at,
                seconds: seconds + 0.0,
            }));
            samples
        };
        let (passed, failed) = (samples(ok), samples(fail));
        let dropped = count - passed.len() - failed.len();
        let record = Record { attempts: n, failures: f, last_run: self.keep(&last_run.0), passed, failed };
        (Entry { config: self.keep(&config.0), id: id.0.into(), record: record.settle() }, dropped)
    }
}

fn gather(mut entries: Vec<Entry>) -> History {
    // Sort lines about the same test by content, so that their order in the file does not matter.
    entries.sort_by(|one, other| {
        let by_key = one.config.cmp(&other.config).then_with(|| one.id.cmp(&other.id));
        by_key.then_with(|| one.record.cmp(&other.record))
    });
    entries.dedup_by(|next, kept| {
        let same = next.config == kept.config && next.id == kept.id;
        if same {
            kept.record = merge::without_base(&kept.record, &next.record);
        }
        same
    });
    let mut records: BTreeMap<Arc<str>, BTreeMap<Box<str>, Record>> = BTreeMap::new();
    let mut entries = entries.into_iter().peekable();
    while let Some(first) = entries.next() {
        let config = Arc::clone(&first.config);
        let others = std::iter::from_fn(|| entries.next_if(|next| next.config == config));
        let of_config = std::iter::once(first).chain(others).map(|entry| (entry.id, entry.record)).collect();
        records.insert(config, of_config);
    }
    History { records }
}
