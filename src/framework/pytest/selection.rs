//! How a batch names its tests to pytest: as shortly as it can, and nothing but them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::json;

use crate::model::{GroupIndex, Suite, TestCase, TestIndex};

/// The tests of a batch by name.
pub(super) struct Selection<'a> {
    tests: Vec<&'a TestCase>,
    /// How many tests of the batch each name stands for.
    wanted: HashMap<Name<'a>, usize>,
    /// How many tests of the group each of these names stands for; empty where only ids are exact.
    all: HashMap<Name<'a>, usize>,
}

/// How tests may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By files, classes and functions where the batch holds all their tests.
    Short,
    /// By their ids: discovery left out some tests of files, classes or functions.
    Exact,
}

/// Batches of so few tests name each of them; to look for shorter names costs more.
const FEW: usize = 2;

/// A file, or something in it: a class, a function, a test.
type Name<'a> = (Option<&'a str>, Option<&'a str>);

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

    /// Whether the name stands for tests of this batch only.
    fn is_ours(&self, name: &Name<'_>) -> bool {
        self.all.get(name).is_some_and(|all| self.wanted.get(name) == Some(all))
    }

    /// Whether the batch holds whole files only.
    pub(super) fn is_whole(&self) -> bool {
        self.wanted.keys().filter(|name| name.1.is_none()).all(|name| self.is_ours(name))
    }

    /// The files, in the order of the tests.
    pub(super) fn files(&self) -> Vec<String> {
        self.unique(|test| (test.file.as_deref(), None))
    }

    /// Arguments without help of a plugin: files, or names in them. Files are named only where every
    /// argument is one: pytest imports the files of arguments with `::` before it imports the others,
    /// and a suite may depend on the order of its imports.
    pub(super) fn arguments(&self) -> Vec<String> {
        if self.is_whole() { self.files() } else { self.unique(|test| self.shortest(test)) }
    }

    /// What the plugin is to know: the files of which all is wanted, and of the others the tests.
    pub(super) fn to_json(&self) -> String {
        let part = |test: &TestCase| !self.is_ours(&(test.file.as_deref(), None));
        let (mut whole, mut names, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for test in &self.tests {
            let id = test.id.as_str();
            if part(test) {
                let name = self.shortest(test).1.unwrap_or(id);
                names.extend(seen.insert(name).then_some(name));
            } else {
                let file = id.split("::").next().unwrap_or_default();
                whole.extend(seen.insert(file).then_some(file));
            }
        }
        json!({"whole": whole, "names": names}).to_string()
    }

    fn unique(&self, name: impl Fn(&'a TestCase) -> Name<'a>) -> Vec<String> {
        let mut seen = HashSet::new();
        let names = self.tests.iter().map(|test| name(test)).filter(|name| seen.insert(*name));
        names.map(|(file, id)| argument(file, id).into_owned()).collect()
    }

    /// The highest class or function that stands for tests of this batch only, else the test.
    fn shortest(&self, test: &'a TestCase) -> Name<'a> {
        let file = test.file.as_deref();
        let ours = names(test).find(|name| self.is_ours(&(file, Some(name))));
        (file, Some(ours.unwrap_or(test.id.as_str())))
    }
}

/// The classes and the function around a test, from the outside.
fn names(test: &TestCase) -> impl Iterator<Item = &str> {
    let family = test.family();
    let ends = family.match_indices("::").skip(1).map(|(place, _)| place);
    ends.chain([family.len()]).map(move |end| &family[..end])
}

fn count<'a>(tests: impl Iterator<Item = &'a TestCase>) -> HashMap<Name<'a>, usize> {
    let mut counts = HashMap::new();
    for test in tests {
        let file = test.file.as_deref();
        *counts.entry((file, None)).or_default() += 1;
        for name in names(test) {
            *counts.entry((file, Some(name))).or_default() += 1;
        }
    }
    counts
}

/// The id as the command line wants it: with the file as seen from the working directory.
pub(super) fn argument<'a>(file: Option<&'a str>, id: Option<&'a str>) -> Cow<'a, str> {
    let name: Cow<'a, str> = match (file, id) {
        (Some(file), Some(id)) if !id.starts_with(file) => match id.split_once("::") {
            Some((_, rest)) => format!("{file}::{rest}").into(),
            None => file.into(),
        },
        (_, Some(id)) => id.into(),
        (file, None) => file.unwrap_or_default().into(),
    };
    // A file called `-x` is no option.
    if name.starts_with('-') { format!("./{name}").into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Group;

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
            suite.add(GroupIndex(0), id.into(), Some(file.into()));
        }
        suite.add(GroupIndex(1), "e.py::f".into(), Some("e.py".into()));
        suite.add(GroupIndex(1), "a.py::g".into(), Some("a.py".into()));
        suite
    }

    fn names(tests: &[u32], group: u16) -> (String, String) {
        let suite = suite();
        let tests: Vec<TestIndex> = tests.iter().map(|test| TestIndex(*test)).collect();
        let selection = Selection::new(&tests, GroupIndex(group), &suite, Naming::Short);
        (selection.arguments().join(" "), selection.to_json())
    }

    #[test]
    fn a_batch_names_files_classes_and_functions_where_it_holds_all_their_tests() {
        assert_eq!(names(&[0, 1, 2, 3, 4, 5, 6], 0).0, "a.py b.py");
        assert_eq!(names(&[0, 1, 2, 3, 4, 5], 0).0, "a.py::f a.py::g b.py::C");
        assert_eq!(names(&[0, 2, 5, 7, 9], 0).0, "a.py::f[1] a.py::g b.py::C::g c.py::f[1] ./-d.py::f");
        assert_eq!(names(&[0, 1], 0).0, "a.py::f[1] a.py::f[2]", "so few are named one by one");
    }

    #[test]
    fn the_plugin_is_told_of_files_that_are_not_whole() {
        let expected = json!({"whole": ["a.py"], "names": ["b.py::C", "pkg/c.py::f[2]"]});
        assert_eq!(names(&[0, 1, 2, 3, 4, 5, 8], 0).1, expected.to_string());
    }
}
