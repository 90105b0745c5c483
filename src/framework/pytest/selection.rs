//! Names the tests of a batch for pytest, with as few names as possible.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::model::{GroupIndex, Suite, TestCase, TestIndex};

/// The tests of a batch, by name.
pub(super) struct Selection<'a> {
    tests: Vec<&'a TestCase>,
    /// The number of tests in the batch that each name covers.
    wanted: HashMap<Name<'a>, usize>,
    /// The number of tests in the group that each name covers; empty if only ids are exact.
    all: HashMap<Name<'a>, usize>,
}

/// How tests may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By file, class or function, if the batch has all its tests.
    Short,
    /// By id, since discovery may have excluded some tests of a file, class or function.
    Exact,
}

/// With up to this many tests, each is named; searching for fewer names costs more.
const FEW: usize = 2;

/// A file, or a class, function or test in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name<'a> {
    file: Option<&'a str>,
    /// `None` for the file.
    id: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// The name of a test.
    pub(super) fn of(test: &'a TestCase) -> Name<'a> {
        Name { file: test.file.as_deref(), id: Some(&*test.native) }
    }

    fn of_file(test: &'a TestCase) -> Name<'a> {
        Name { id: None, ..Name::of(test) }
    }

    /// The command-line argument: the id, but with the file relative to the working directory.
    pub(super) fn argument(self) -> Cow<'a, str> {
        let name: Cow<'a, str> = match (self.file, self.id) {
            (Some(file), Some(id)) if !id.starts_with(file) => match id.split_once("::") {
                Some((_, rest)) => format!("{file}::{rest}").into(),
                None => file.into(),
            },
            (_, Some(id)) => id.into(),
            (file, None) => file.unwrap_or_default().into(),
        };
        // A file named `-x` must not look like an option.
        if name.starts_with('-') { format!("./{name}").into() } else { name }
    }
}

impl<'a> Selection<'a> {
    pub(super) fn new(
        tests: &[TestIndex],
        group: GroupIndex,
        suite: &'a Suite,
        naming: Naming,
    ) -> Selection<'a> {
        let tests: Vec<&TestCase> = tests.iter().map(|index| suite.test(*index)).collect();
        let files: HashSet<&str> = tests.iter().filter_map(|test| test.file.as_deref()).collect();
        let all = match naming {
            Naming::Short if tests.len() > FEW => {
                count(files.iter().flat_map(|file| suite.listed_in(group, file)))
            }
            Naming::Short | Naming::Exact => HashMap::new(),
        };
        Selection { wanted: count(tests.iter().copied()), all, tests }
    }

    /// Whether the name covers only tests of this batch.
    fn is_ours(&self, name: Name<'_>) -> bool {
        self.all.get(&name).is_some_and(|all| self.wanted.get(&name) == Some(all))
    }

    /// Whether the batch consists of whole files.
    fn is_whole(&self) -> bool {
        self.wanted.keys().filter(|name| name.id.is_none()).all(|name| self.is_ours(*name))
    }

    /// Either only files, or only names in them, in the order of the tests. pytest imports the files of arguments with
    /// `::` before others, and a suite may depend on the order of imports.
    pub(super) fn arguments(&self) -> Vec<String> {
        if self.is_whole() { self.unique(Name::of_file) } else { self.unique(|test| self.shortest(test)) }
    }

    fn unique(&self, name: impl Fn(&'a TestCase) -> Name<'a>) -> Vec<String> {
        let mut seen = HashSet::new();
        let names = self.tests.iter().map(|test| name(test)).filter(|name| seen.insert(*name));
        names.map(|name| name.argument().into_owned()).collect()
    }

    /// The outermost class or function that covers only tests of this batch, otherwise the test.
    fn shortest(&self, test: &'a TestCase) -> Name<'a> {
        names(test).find(|name| self.is_ours(*name)).unwrap_or(Name::of(test))
    }
}

/// The classes and the function around a test, from the outermost.
fn names(test: &TestCase) -> impl Iterator<Item = Name<'_>> {
    let family = test.native.split('[').next().unwrap_or_default();
    let ends = family.match_indices("::").skip(1).map(|(place, _)| place);
    ends.chain([family.len()]).map(move |end| Name { id: Some(&family[..end]), ..Name::of(test) })
}

fn count<'a>(tests: impl Iterator<Item = &'a TestCase>) -> HashMap<Name<'a>, usize> {
    let mut counts = HashMap::new();
    for test in tests {
        for name in names(test).chain([Name::of_file(test)]) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Group, Listed};

    fn suite() -> Suite {
        let group =
            |filters: &str| Group { name: "g".into(), filters: filters.into(), max_attempts: 1, solo: false };
        let mut suite = Suite::new(vec![group(""), group("-m x")]);
        let ids = [
            "a.py::f[1]",
            "a.py::f[2]",
            "a.py::g",
            "b.py::C::f[1]",
            "b.py::C::f[2]",
            "b.py::C::g",
            "b.py::h",
            "pkg/c.py::f[1]",
            "pkg/c.py::f[2]",
            "-d.py::f",
        ];
        for id in ids {
            let file = id.split("::").next().unwrap().trim_start_matches("pkg/");
            suite.add(Listed::new(GroupIndex(0), id, Some(file.into())));
        }
        suite.add(Listed::new(GroupIndex(1), "e.py::f", Some("e.py".into())));
        suite.add(Listed::new(GroupIndex(1), "a.py::g", Some("a.py".into())));
        suite
    }

    fn names(tests: &[u32], group: u16) -> String {
        let suite = suite();
        let tests: Vec<TestIndex> = tests.iter().map(|test| TestIndex(*test)).collect();
        let selection = Selection::new(&tests, GroupIndex(group), &suite, Naming::Short);
        selection.arguments().join(" ")
    }

    #[test]
    fn a_batch_names_files_classes_and_functions_if_it_has_all_their_tests() {
        assert_eq!(names(&[0, 1, 2, 3, 4, 5, 6], 0), "a.py b.py");
        assert_eq!(names(&[0, 1, 2, 3, 4, 5], 0), "a.py::f a.py::g b.py::C");
        assert_eq!(names(&[0, 2, 5, 7, 9], 0), "a.py::f[1] a.py::g b.py::C::g c.py::f[1] ./-d.py::f");
        assert_eq!(names(&[0, 1], 0), "a.py::f[1] a.py::f[2]", "so few are named one by one");
    }
}
