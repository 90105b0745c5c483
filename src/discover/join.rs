//! Joins the listings of all groups: which tests are the same, and how they are named.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Answer, Discovery};
use crate::framework::{Facts, Listed, LoadError};
use crate::mask::Mask;
use crate::model::{Group, Suite};
use crate::words;

/// Joins `answers`, and writes the files that batches share into the directory `shared`.
///
/// Tests with the same native ID are one test if their listings saw the same collection. Otherwise they are two, and
/// each is named with its group in front.
pub(super) fn join(
    groups: Vec<Group>,
    answers: Vec<Answer>,
    mask: &Mask,
    shared: PathBuf,
) -> Result<Discovery> {
    let mut facts = vec![Facts::new(); groups.len()];
    let mut members = vec![Vec::new(); groups.len()];
    let mut collections = Collections { numbers: HashMap::new(), of_groups: vec![0; groups.len()] };
    let mut errors = Vec::new();
    for Answer { groups: served, listing } in answers {
        let everyone = (0..groups.len()).collect::<Vec<usize>>();
        let own: Vec<usize> = served.iter().map(|group| usize::from(group.0)).collect();
        for group in if own.is_empty() { &everyone } else { &own } {
            facts[*group].extend(listing.facts.clone());
        }
        collections.enter(&own, listing.collection);
        for (name, content) in listing.shared {
            let path = shared.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        for warning in listing.warnings {
            log::warn!("{}", mask.hide(&warning));
        }
        for LoadError { file, message } in listing.errors {
            let error = LoadError { file: mask.hide(&file), message: mask.hide(&message) };
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        for test in listing.tests {
            members[usize::from(test.group.0)].push(test);
        }
    }
    collections.tell_apart(&groups, &mut members);
    let mut suite = Suite::of_collections(groups, collections.of_groups);
    let (mut doubles, mut example) = (0, None);
    for test in members.into_iter().flatten() {
        let id = test.id.clone();
        if !suite.add(test) {
            doubles += 1;
            example.get_or_insert(id);
        }
    }
    if let Some(example) = example {
        let count = words::count(doubles, "duplicate");
        log::warn!("ignored {count} of tests listed more than once (the first: `{example}`)");
    }
    Ok(Discovery { suite, facts, errors, shared })
}

/// The collections of a run, by number.
struct Collections {
    numbers: HashMap<String, u16>,
    of_groups: Vec<u16>,
}

impl Collections {
    fn enter(&mut self, groups: &[usize], collection: String) {
        if groups.is_empty() {
            return;
        }
        // There are at most as many collections as groups.
        let next = u16::try_from(self.numbers.len()).unwrap_or(u16::MAX);
        let number = *self.numbers.entry(collection).or_insert(next);
        for group in groups {
            self.of_groups[*group] = number;
        }
    }

    /// Puts the group in front of each ID that means different tests in different collections. All groups of a
    /// collection call a test by the same name.
    fn tell_apart(&self, groups: &[Group], members: &mut [Vec<Listed>]) {
        if self.numbers.len() < 2 {
            return;
        }
        let mut seen: HashMap<Arc<str>, u16> = HashMap::new();
        let mut doubtful: HashSet<Arc<str>> = HashSet::new();
        for (tests, number) in members.iter().zip(&self.of_groups) {
            for test in tests {
                let id: Arc<str> = test.id.as_str().into();
                if *seen.entry(Arc::clone(&id)).or_insert(*number) != *number {
                    doubtful.insert(id);
                }
            }
        }
        let mut names: HashMap<(u16, Arc<str>), Arc<str>> = HashMap::new();
        for ((tests, number), group) in members.iter_mut().zip(&self.of_groups).zip(groups) {
            for test in tests {
                let Some(id) = doubtful.get(test.id.as_str()) else { continue };
                let name = names.entry((*number, Arc::clone(id))).or_insert_with(|| {
                    let name = format!("{}/{id}", group.name);
                    if seen.contains_key(name.as_str()) { format!("{}//{id}", group.name) } else { name }
                        .into()
                });
                test.id = Arc::clone(name).into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Listing;
    use crate::model::GroupIndex;

    /// The shown IDs of a run whose groups list these IDs in these collections.
    fn shown(lists: &[(&str, &[&str])]) -> Vec<String> {
        let group = |number| Group {
            name: format!("g{number}").into(),
            filters: String::new(),
            max_attempts: 1,
            solo: false,
        };
        let groups = (0..lists.len()).map(group).collect();
        let answers = (0..).zip(lists).map(|(number, (collection, ids))| {
            let own = GroupIndex(number);
            let tests = ids.iter().map(|id| Listed::new(own, *id, None)).collect();
            let listing = Listing { tests, collection: (*collection).to_owned(), ..Listing::default() };
            Answer { groups: vec![own], listing }
        });
        let nowhere = PathBuf::from("/nonexistent");
        let discovery = join(groups, answers.collect(), &Mask::default(), nowhere).unwrap();
        discovery.suite.tests().iter().map(|test| test.id.to_string()).collect()
    }

    #[test]
    fn the_same_id_is_one_test_in_one_collection_and_two_in_two() {
        assert_eq!(shown(&[("a", &["x", "y"]), ("a", &["y", "z"])]), ["x", "y", "z"]);
        assert_eq!(shown(&[("a", &["x", "y"]), ("b", &["y", "z"])]), ["x", "g0/y", "g1/y", "z"]);
        assert_eq!(shown(&[("a", &["y"]), ("b", &["y"]), ("a", &["y"])]), ["g0/y", "g1/y"]);
    }

    #[test]
    fn a_name_with_its_group_is_no_other_tests_name() {
        assert_eq!(shown(&[("a", &["x", "g1/x"]), ("b", &["x"])]), ["g0/x", "g1/x", "g1//x"]);
    }
}
