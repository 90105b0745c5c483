//! Tests that stay together: parts of a batch have all tests of a key, and what runs again brings along the tests of its
//! key that come before it.

use std::collections::HashMap;

use super::{Collector, State};
use crate::model::{GroupIndex, Suite, TestIndex};

/// The tests of each key, in order.
pub(super) type Keys<'a> = HashMap<(GroupIndex, &'a str), Vec<TestIndex>>;

pub(super) fn keys(suite: &Suite) -> Keys<'_> {
    let mut keys = Keys::new();
    for index in suite.indices() {
        let test = suite.test(index);
        if let Some(key) = test.shared_key() {
            keys.entry((test.group, key)).or_default().push(index);
        }
    }
    keys
}

impl State {
    /// Whether its runner ended because of it.
    fn is_culprit(&self) -> bool {
        let last = self.attempts.last().map(|last| &last.result);
        let is_stated = |result: &&crate::model::CaseResult| {
            result.details.as_ref().is_some_and(|details| details.is_stated)
        };
        last.filter(is_stated).is_some_and(|result| result.outcome.is_bad())
    }
}

impl<'a> Collector<'a> {
    fn key(&self, index: TestIndex) -> Option<(GroupIndex, &'a str)> {
        let test = self.suite.test(index);
        Some((test.group, test.shared_key()?))
    }

    /// The tests that run beside `tests` so that they find what they rely on: those of their keys that come before them.
    /// One that ends its runner would end that of the others, too.
    pub(super) fn companions(&self, tests: &[TestIndex]) -> Vec<TestIndex> {
        let mut last = HashMap::new();
        for index in tests {
            if let Some(key) = self.key(*index) {
                last.insert(key, *index);
            }
        }
        let before = last.into_iter().flat_map(|(key, last)| {
            let all = self.keys.get(&key).into_iter().flatten();
            all.copied().take_while(move |index| *index < last)
        });
        let is_needed = |index: &TestIndex| {
            tests.binary_search(index).is_err() && !self.states[index.0 as usize].is_culprit()
        };
        let mut companions: Vec<TestIndex> = before.filter(is_needed).collect();
        companions.sort_unstable();
        companions
    }

    /// Splits tests into some `parts` lists of neighbors, each with all tests of its keys.
    pub(super) fn split(&self, tests: &[TestIndex], parts: usize) -> Vec<Vec<TestIndex>> {
        let size = tests.len().div_ceil(parts.max(1)).max(1);
        let mut split: Vec<Vec<TestIndex>> = Vec::new();
        for atom in self.atoms(tests) {
            match split.last_mut() {
                Some(last) if last.len() + atom.len() <= size => last.extend(atom),
                _ => split.push(atom),
            }
        }
        split.iter_mut().for_each(|part| part.sort_unstable());
        split
    }

    /// Splits tests into lists that must not be split: those with the same key.
    fn atoms(&self, tests: &[TestIndex]) -> Vec<Vec<TestIndex>> {
        let mut places = HashMap::new();
        let mut atoms: Vec<Vec<TestIndex>> = Vec::new();
        for index in tests {
            let next = atoms.len();
            let place = self.key(*index).map_or(next, |key| *places.entry(key).or_insert(next));
            match atoms.get_mut(place) {
                Some(atom) => atom.push(*index),
                None => atoms.push(vec![*index]),
            }
        }
        atoms
    }

    /// Whether these are several tests of one key.
    pub(super) fn is_one_key(&self, tests: &[TestIndex]) -> bool {
        tests.len() > 1 && self.atoms(tests).len() == 1
    }
}
