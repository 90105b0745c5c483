//! The tests of a run, by shown ID, by native ID and by file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Group, GroupIndex, TestId, TestIndex};

/// One test as a list command reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The group that lists it.
    pub group: GroupIndex,
    /// The name for users: in output, JUnit and history.
    pub id: TestId,
    /// What its tool calls it: in commands and records. Exact within a collection.
    pub native: Arc<str>,
    /// Its file, relative to the working directory; `None` if the framework has no files.
    pub file: Option<Arc<str>>,
    /// Its line in that file, from 1.
    pub line: Option<u32>,
    /// Tests of a group with the same key run in one batch, in order.
    pub key: Option<Arc<str>>,
}

impl Listed {
    /// A test whose tool calls it by its ID.
    pub fn new(group: GroupIndex, id: impl Into<Arc<str>>, file: Option<Arc<str>>) -> Listed {
        let native: Arc<str> = id.into();
        Listed { group, id: Arc::clone(&native).into(), native, file, line: None, key: None }
    }
}

/// One discovered test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCase {
    /// The ID.
    pub id: TestId,
    /// What its tool calls it.
    pub native: Arc<str>,
    /// The group whose filters it runs with.
    pub group: GroupIndex,
    /// Its file, relative to the working directory; `None` if the framework has no files.
    pub file: Option<Arc<str>>,
    /// Its line in that file, from 1.
    pub line: Option<u32>,
    /// Tests of a group with the same key run in one batch, in order.
    pub key: Option<Arc<str>>,
    /// How often it may run, at least 1; the maximum over its groups.
    pub max_attempts: u32,
    /// Whether it gets its own batch.
    pub solo: bool,
    /// The expected duration.
    pub expected: Duration,
    /// Whether `expected` comes from earlier runs of this test, not from other tests or a default.
    pub measured: bool,
}

/// How long a test is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The expected duration.
    pub duration: Duration,
    /// Whether it comes from earlier runs of this test.
    pub measured: bool,
}

impl TestCase {
    /// The id without parameters: the part before the first `[`.
    pub fn family(&self) -> &str {
        self.id.as_str().split('[').next().unwrap_or_default()
    }

    /// The key, unless it runs alone.
    pub fn shared_key(&self) -> Option<&str> {
        self.key.as_deref().filter(|_| !self.solo)
    }

    /// Whether the two run in one batch, in order.
    pub fn stays_with(&self, other: &TestCase) -> bool {
        let key = self.shared_key();
        key.is_some() && key == other.shared_key() && self.group == other.group
    }
}

/// All tests of a run in discovery order, and their groups in file order.
#[derive(Clone, Debug, Default)]
pub struct Suite {
    tests: Vec<TestCase>,
    groups: Vec<Group>,
    /// The number of each group's collection.
    collections: Vec<u16>,
    by_id: HashMap<TestId, TestIndex>,
    /// The tests that their tools call by other names than their IDs.
    by_native: HashMap<Arc<str>, Vec<TestIndex>>,
    by_file: HashMap<Arc<str>, Vec<TestIndex>>,
    shared: Vec<(GroupIndex, TestIndex)>,
}

impl Suite {
    /// A suite without tests. All its groups are of one collection.
    pub fn new(groups: Vec<Group>) -> Suite {
        let collections = vec![0; groups.len()];
        Suite { groups, collections, ..Suite::default() }
    }

    /// A suite without tests. `collections` has a number for each group; a native ID may mean another test in
    /// another collection.
    pub fn of_collections(groups: Vec<Group>, collections: Vec<u16>) -> Suite {
        Suite { groups, collections, ..Suite::default() }
    }

    /// Adds a test. Returns `false` if its ID is known already: the test stays in the group that listed it first, with
    /// the larger number of attempts.
    pub fn add(&mut self, listed: Listed) -> bool {
        let Listed { group, id, native, file, line, key } = listed;
        let Group { max_attempts, solo, .. } = self.groups[usize::from(group.0)];
        if let Some(&known) = self.by_id.get(&id) {
            let test = &mut self.tests[known.0 as usize];
            test.max_attempts = test.max_attempts.max(max_attempts);
            test.solo |= solo;
            if test.group != group {
                self.shared.push((group, known));
            }
            return false;
        }
        let index = TestIndex(u32::try_from(self.tests.len()).unwrap_or(u32::MAX));
        self.by_id.insert(id.clone(), index);
        if id.as_str() != &*native {
            self.by_native.entry(Arc::clone(&native)).or_default().push(index);
        }
        if let Some(file) = &file {
            self.by_file.entry(Arc::clone(file)).or_default().push(index);
        }
        self.tests.push(TestCase {
            id,
            native,
            group,
            file,
            line,
            key,
            max_attempts,
            solo,
            expected: Duration::ZERO,
            measured: false,
        });
        true
    }

    /// Sets the estimate of each test.
    pub fn expect(&mut self, mut estimate: impl FnMut(&TestCase) -> Estimate) {
        for test in &mut self.tests {
            Estimate { duration: test.expected, measured: test.measured } = estimate(test);
        }
    }

    /// The test at `index`.
    pub fn test(&self, index: TestIndex) -> &TestCase {
        &self.tests[index.0 as usize]
    }

    /// The group at `index`.
    pub fn group(&self, index: GroupIndex) -> &Group {
        &self.groups[usize::from(index.0)]
    }

    /// The groups in file order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The tests in discovery order.
    pub fn tests(&self) -> &[TestCase] {
        &self.tests
    }

    /// The indices of all tests, in discovery order.
    pub fn indices(&self) -> impl Iterator<Item = TestIndex> + use<> {
        (0..u32::try_from(self.tests.len()).unwrap_or(u32::MAX)).map(TestIndex)
    }

    /// The index of the test `id`.
    pub fn find(&self, id: &str) -> Option<TestIndex> {
        self.by_id.get(id).copied()
    }

    /// The index of the test that the tool of `group` calls `native`.
    pub fn find_native(&self, group: GroupIndex, native: &str) -> Option<TestIndex> {
        let same_collection = |index: &TestIndex| {
            let test = self.test(*index);
            &*test.native == native && self.collection(test.group) == self.collection(group)
        };
        let others = self.by_native.get(native).into_iter().flatten().copied();
        others.chain(self.find(native)).find(same_collection)
    }

    /// The first group that has the same collection as `group`.
    pub fn first_of_collection(&self, group: GroupIndex) -> GroupIndex {
        let place = self.collections.iter().position(|number| *number == self.collection(group));
        place.and_then(|place| u16::try_from(place).ok()).map_or(group, GroupIndex)
    }

    fn collection(&self, group: GroupIndex) -> u16 {
        self.collections[usize::from(group.0)]
    }

    /// The tests of a file that `group` lists, including those that run with another group.
    pub fn listed_in<'a>(&'a self, group: GroupIndex, file: &'a str) -> impl Iterator<Item = &'a TestCase> {
        let inside = self.by_file.get(file).into_iter().flatten().map(|index| self.test(*index));
        let elsewhere = self.runs_elsewhere(group).filter(move |test| test.file.as_deref() == Some(file));
        inside.filter(move |test| test.group == group).chain(elsewhere)
    }

    /// The tests that `group` lists but that run with another group, which listed them first.
    pub fn runs_elsewhere(&self, group: GroupIndex) -> impl Iterator<Item = &TestCase> {
        self.shared.iter().filter(move |(lister, _)| *lister == group).map(|(_, index)| self.test(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, max_attempts: u32, solo: bool) -> Group {
        Group { name: name.into(), filters: String::new(), max_attempts, solo }
    }

    fn listed(group: u16, id: &str) -> Listed {
        Listed::new(GroupIndex(group), id, None)
    }

    #[test]
    fn a_test_of_two_groups_is_one_test_with_the_larger_number_of_attempts() {
        let mut suite = Suite::new(vec![group("a", 1, true), group("b", 3, false)]);
        assert!(suite.add(listed(0, "t::x[1]")));
        assert!(!suite.add(listed(1, "t::x[1]")));
        let test = suite.test(TestIndex(0));
        assert_eq!((suite.tests().len(), test.max_attempts, test.solo), (1, 3, true));
        assert_eq!(test.family(), "t::x");
        assert_eq!(suite.runs_elsewhere(GroupIndex(1)).count(), 1);
        assert_eq!(suite.runs_elsewhere(GroupIndex(0)).count(), 0);

        let mut suite = Suite::new(vec![group("a", 1, false), group("b", 1, true)]);
        for (listing, solo) in [(0, false), (0, false), (1, true)] {
            suite.add(listed(listing, "t"));
            assert_eq!((suite.tests().len(), suite.test(TestIndex(0)).solo), (1, solo));
        }
        // A test that a group lists twice still runs with that group.
        assert_eq!(suite.runs_elsewhere(GroupIndex(0)).count(), 0);
    }

    #[test]
    fn a_native_id_is_known_within_its_collection_only() {
        let groups = vec![group("a", 1, false), group("b", 1, false), group("c", 1, false)];
        let mut suite = Suite::of_collections(groups, vec![0, 1, 0]);
        for (number, shown, native) in [(0, "a/t", "t"), (1, "b/t", "t"), (1, "u", "u")] {
            assert!(suite.add(Listed { id: shown.into(), ..listed(number, native) }));
        }
        let found =
            |group: u16, native: &str| suite.find_native(GroupIndex(group), native).map(|index| index.0);
        assert_eq!([found(0, "t"), found(1, "t"), found(2, "t")], [Some(0), Some(1), Some(0)]);
        assert_eq!([found(0, "u"), found(1, "u"), found(0, "a/t")], [None, Some(2), None]);
        assert_eq!(suite.find("b/t"), Some(TestIndex(1)));
    }
}
