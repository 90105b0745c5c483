//! Which tests stay together: the list has keys by which the project says so, and `keep_together` adds more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::Listed;
use crate::model::{GroupIndex, KeepTogether};

/// What tests have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bond {
    /// The key that the list gave them.
    Listed(Arc<str>),
    /// Their class or file.
    Configured(Arc<str>),
}

/// Gives those of `tests` a common key that `kept`, an entry for each group, and their own keys keep together. `class`
/// is [`Framework::class`](crate::framework::Framework::class).
pub(super) fn keep_together(
    class: &dyn Fn(&Listed) -> Option<String>,
    kept: &[KeepTogether],
    tests: &mut [Listed],
) {
    let mut bonds = Bonds::default();
    let mut numbers = Vec::new();
    for test in &*tests {
        let configured = match kept[usize::from(test.group.0)] {
            KeepTogether::Test => continue,
            KeepTogether::Class => class(test).map(Arc::from),
            KeepTogether::File => test.file.clone(),
        };
        let both = [test.key.clone().map(Bond::Listed), configured.map(Bond::Configured)];
        let [listed, configured] = both.map(|bond| bond.map(|bond| bonds.number(test.group, bond)));
        if let (Some(one), Some(other)) = (listed, configured) {
            bonds.unite(one, other);
        }
        numbers.push(listed.or(configured));
    }
    let of_kept = tests.iter_mut().filter(|test| kept[usize::from(test.group.0)] != KeepTogether::Test);
    for (test, number) in of_kept.zip(numbers) {
        test.key = number.map(|number| bonds.first(number).to_string().into());
    }
}

/// Numbers of what tests have in common. A test may have two of them, and then both are one.
#[derive(Default)]
struct Bonds {
    numbers: HashMap<(GroupIndex, Bond), usize>,
    /// For each number one that means the same, or itself.
    same: Vec<usize>,
}

impl Bonds {
    fn number(&mut self, group: GroupIndex, bond: Bond) -> usize {
        let next = self.same.len();
        let number = *self.numbers.entry((group, bond)).or_insert(next);
        if number == next {
            self.same.push(next);
        }
        number
    }

    fn first(&mut self, mut number: usize) -> usize {
        while self.same[number] != number {
            self.same[number] = self.same[self.same[number]];
            number = self.same[number];
        }
        number
    }

    fn unite(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        self.same[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of tests with the same key, by their ids. A test is its group, its id, its file and its listed key.
    fn together(kept: KeepTogether, tests: &[[&str; 3]]) -> Vec<Vec<String>> {
        // As long as the ID.
        let class = |test: &Listed| Some(test.id.as_str().len().to_string());
        let listed = |(group, [id, file, key]): (u16, &[&str; 3])| Listed {
            key: Some(Arc::from(*key)).filter(|key: &Arc<str>| !key.is_empty()),
            ..Listed::new(GroupIndex(group), *id, Some(Arc::from(*file)))
        };
        // Each is in two groups, of which only the first is kept together by a setting.
        let mut all: Vec<Listed> =
            (0..2).flat_map(|group| tests.iter().map(move |test| listed((group, test)))).collect();
        let before = all[tests.len()..].to_vec();
        keep_together(&class, &[kept, KeepTogether::Test], &mut all);
        assert_eq!(all[tests.len()..], before);
        let mut found: Vec<(Arc<str>, Vec<String>)> = Vec::new();
        for test in &all[..tests.len()] {
            let Some(key) = &test.key else { continue };
            match found.iter_mut().find(|(known, _)| known == key) {
                Some((_, ids)) => ids.push(test.id.to_string()),
                None => found.push((Arc::clone(key), vec![test.id.to_string()])),
            }
        }
        found.into_iter().map(|(_, ids)| ids).collect()
    }

    #[test]
    fn keys_of_the_list_hold_and_files_add_to_them() {
        let tests = [
            ["a", "f", ""],
            ["b", "f", "k"],
            ["c", "g", "k"],
            ["d", "h", ""],
            ["e", "h", "f"],
            ["x", "i", "f"],
        ];
        assert_eq!(together(KeepTogether::Test, &tests), [["b", "c"], ["e", "x"]]);
        assert_eq!(together(KeepTogether::File, &tests), [["a", "b", "c"], ["d", "e", "x"]]);
        let tests = [["a", "f", ""], ["bb", "f", ""], ["c", "g", ""], ["dd", "g", "k"]];
        assert_eq!(together(KeepTogether::Class, &tests), [["a", "c"], ["bb", "dd"]]);
    }
}
