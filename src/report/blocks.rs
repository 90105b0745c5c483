//! The tests that a summary names, in blocks: tests without a result of their own that share a reason
//! share a block.

use std::collections::HashMap;

use crate::junit::{Entry, Word};
use crate::model::{Attempt, Outcome, Verdict};

/// How many tests of a block are named.
const NAMED: usize = 5;
/// How many batches of a block are searched for a log.
const SEARCHED: usize = 5;

/// Tests that are shown together.
pub(super) struct Block<'a> {
    /// How many tests have which word, in order of appearance.
    pub(super) words: Vec<(Word, usize)>,
    /// The first few IDs.
    pub(super) ids: Vec<&'a str>,
    /// What went wrong; empty where nothing says so.
    pub(super) reason: &'a str,
    /// How many of its attempts failed, for a test of its own.
    pub(super) attempts: Option<Attempts>,
    /// The batches whose logs tell more.
    pub(super) batches: Vec<u32>,
    /// The logs are all there is to explain it.
    pub(super) is_stated: bool,
}

/// The attempts at a test that ran more than once.
pub(super) struct Attempts {
    pub(super) failed: usize,
    pub(super) all: usize,
}

impl Block<'_> {
    /// How many tests it has.
    pub(super) fn tests(&self) -> usize {
        self.words.iter().map(|(_, tests)| tests).sum()
    }

    fn add(&mut self, word: Word, batch: Option<u32>) {
        match self.words.iter_mut().find(|(known, _)| *known == word) {
            Some((_, tests)) => *tests += 1,
            None => self.words.push((word, 1)),
        }
        if self.batches.len() < SEARCHED && batch.is_some_and(|batch| !self.batches.contains(&batch)) {
            self.batches.extend(batch);
        }
    }
}

/// The blocks of all tests that neither passed nor were skipped.
pub(super) fn blocks<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block<'a>> = Vec::new();
    let mut by_reason: HashMap<&'a str, usize> = HashMap::new();
    for entry in entries {
        let last_bad = entry.attempts.iter().rev().find(|attempt| attempt.result.outcome.is_bad());
        let Some(word) = word(entry.verdict, last_bad) else { continue };
        // Where the runner ran a test again itself, the attempt that passed has the texts of the failure.
        let last_bad =
            last_bad.or_else(|| entry.attempts.iter().find(|attempt| attempt.result.flaky_in_runner));
        let (reason, batch) = match entry.verdict {
            Verdict::NotRun(reason) => (&*reason.text, reason.batch),
            _ => (
                last_bad.and_then(|attempt| attempt.result.headline()).unwrap_or_default(),
                last_bad.map(|attempt| attempt.batch),
            ),
        };
        let is_stated = match entry.verdict {
            Verdict::NotRun(_) => true,
            _ => last_bad.and_then(|attempt| attempt.result.details.as_ref()).is_some_and(|d| d.is_stated),
        };
        // A failure is the test's own, even if others fail alike.
        let is_shared = !reason.is_empty() && !matches!(word, Word::Failed | Word::Flaky);
        if let Some(place) = by_reason.get(reason).filter(|_| is_shared) {
            let block = &mut blocks[*place];
            block.add(word, batch);
            block.attempts = None;
            block.is_stated &= is_stated;
            if block.ids.len() < NAMED {
                block.ids.push(entry.id);
            }
            continue;
        }
        if is_shared {
            by_reason.insert(reason, blocks.len());
        }
        let mut block = Block {
            words: Vec::new(),
            ids: vec![entry.id],
            reason,
            attempts: attempts(entry.attempts),
            batches: Vec::new(),
            is_stated,
        };
        block.add(word, batch);
        blocks.push(block);
    }
    blocks
}

fn word(verdict: &Verdict, last_bad: Option<&Attempt>) -> Option<Word> {
    match verdict {
        Verdict::Passed | Verdict::Skipped => None,
        Verdict::Flaky => Some(Word::Flaky),
        Verdict::NotRun(_) => Some(Word::NotRun),
        Verdict::Failed => Some(match last_bad.map(|attempt| attempt.result.outcome) {
            Some(Outcome::TimedOut) => Word::TimedOut,
            Some(Outcome::Errored) => Word::Errored,
            _ => Word::Failed,
        }),
    }
}

fn attempts(attempts: &[Attempt]) -> Option<Attempts> {
    let failed = attempts.iter().filter(|attempt| attempt.result.outcome.is_bad()).count();
    (attempts.len() > 1).then_some(Attempts { failed, all: attempts.len() })
}
