//! Reads a history: in blocks of whole lines, on all cores, never the whole text at once. What cannot be
//! read costs itself, and is counted.

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

/// How much is read and handed to a core at a time.
const BLOCK: u64 = 1 << 20;
/// A line longer than this is no record, and is not kept in memory.
const LONGEST_LINE: usize = 64 << 20;

/// What was passed over in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lines that are no records.
    pub lines: usize,
    /// Samples of good lines that are none: negative, infinite, years long, malformed.
    pub samples: usize,
    /// The number of the first line with a fault, counted from 1; 0 if there is none.
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
        let told = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| words::count(count, &format!("unreadable {noun}")));
        let told: Vec<String> = told.collect();
        write!(formatter, "{} passed over, the first in line {}", told.join(" and "), self.first)
    }
}

impl History {
    /// Reads the file at `path`; one that does not exist is an empty history. What cannot be read in it
    /// is passed over with one warning.
    ///
    /// # Errors
    /// When the file cannot be read or is no regular file.
    pub fn load(path: &Path) -> Result<History> {
        match files::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(History::default()),
            file => read_file(path, file),
        }
    }

    /// The same for a file that must exist.
    ///
    /// # Errors
    /// When the file is missing, cannot be read or is no regular file.
    pub fn load_existing(path: &Path) -> Result<History> {
        read_file(path, files::open(path))
    }

    /// Reads lines in any order, several of one test as what two branches know of it.
    ///
    /// # Errors
    /// Those of `input`; no text is an error.
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

/// Blocks of whole lines; only the last one may end without a newline.
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
                // No JSON starts like this: what follows of the line will not be read as one.
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

/// One line.
struct Entry {
    config: Arc<str>,
    id: Box<str>,
    record: Record,
}

/// What was in one block; the first fault is counted from its start.
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
        // A slice can always be read. This search is several times faster than `split`.
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

/// A text that is borrowed from the line where it has no escapes in it.
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

type RawSample<'a> = (Text<'a>, u64, f64);

/// The names of runs and configurations, each kept once for a block.
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

    /// The record of a line, and how many of its samples were dropped.
    fn entry(&mut self, line: &str) -> Option<(Entry, usize)> {
        if let Ok(line) = serde_json::from_str::<Line<'_, RawSample<'_>>>(line) {
            return Some(self.build(line, Some));
        }
        // One bad sample need not cost the others.
        let line = serde_json::from_str::<Line<'_, &RawValue>>(line).ok()?;
        Some(self.build(line, |sample| serde_json::from_str(sample.get()).ok()))
    }

    fn build<'a, S>(&mut self, line: Line<'a, S>, read: fn(S) -> Option<RawSample<'a>>) -> (Entry, usize) {
        let Line { k: (config, id), v: Known { n, f, last_run, ok, fail } } = line;
        let told = ok.len() + fail.len();
        let mut samples = |raw: Vec<S>| -> Vec<Sample> {
            let mut samples = Vec::with_capacity(raw.len());
            let good = raw.into_iter().filter_map(read).filter(|(_, _, seconds)| is_duration(*seconds));
            // Zero has a sign, which would make two samples of one.
            samples.extend(good.map(|(run, at, seconds)| Sample {
                run: self.keep(&run.0),
                at,
                seconds: seconds + 0.0,
            }));
            samples
        };
        let (passed, failed) = (samples(ok), samples(fail));
        let dropped = told - passed.len() - failed.len();
        let record = Record { attempts: n, failures: f, last_run: self.keep(&last_run.0), passed, failed };
        (Entry { config: self.keep(&config.0), id: id.0.into(), record: record.settle() }, dropped)
    }
}

fn gather(mut entries: Vec<Entry>) -> History {
    // Several lines of one test are merged in an order of their own, so that theirs does not matter.
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
