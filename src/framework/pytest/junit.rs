//! A pytest that our plugin does not reach: what the cases of its JUnit report are about.

use std::collections::HashMap;

use crate::framework::{BatchContext, Matcher, format_id};
use crate::junit::Case;
use crate::model::{GroupIndex, Suite, TestIndex};

/// The `classname` and `name` in pytest's report for a node id (its `mangle_test_address`).
fn pair(id: &str) -> (String, String) {
    let (address, parameters) = match id.find('[') {
        Some(place) => id.split_at(place),
        None => (id, ""),
    };
    let mut names: Vec<String> = address.split("::").map(str::to_owned).collect();
    let file = names[0].replace('/', ".");
    names[0] = file.strip_suffix(".py").map(str::to_owned).unwrap_or(file);
    let name = names.pop().unwrap_or_default() + parameters;
    (names.join("."), escape(&name))
}

/// Escapes characters that XML forbids, like pytest (its `bin_xml_escape`).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let allowed = matches!(character,
            '\t' | '\n' | '\r' | ' '..='~' | '\u{80}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if allowed {
            escaped.push(character);
        } else {
            let code = u32::from(character);
            escaped += &if code <= 0xff { format!("#x{code:02X}") } else { format!("#x{code:04X}") };
        }
    }
    escaped
}

/// Matches by `test_id_format`, otherwise by the names that pytest makes of node IDs.
pub(super) struct ByPair<'a> {
    suite: &'a Suite,
    group: GroupIndex,
    format: &'a str,
    pairs: HashMap<(String, String), TestIndex>,
}

impl<'a> ByPair<'a> {
    pub(super) fn new(tests: &[TestIndex], context: &BatchContext<'a>, format: &'a str) -> ByPair<'a> {
        let BatchContext { suite, group, .. } = *context;
        let mut pairs: HashMap<(String, String), TestIndex> = HashMap::with_capacity(tests.len());
        for &index in tests {
            pairs.entry(pair(&suite.test(index).native)).or_insert(index);
        }
        ByPair { suite, group, format, pairs }
    }
}

impl Matcher for ByPair<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        let by_format =
            self.suite.find_native(self.group, &format_id(self.format, &case.classname, &case.name));
        by_format.or_else(|| self.pairs.get(&(case.classname.clone(), case.name.clone())).copied())
    }

    fn name(&self, case: &Case) -> String {
        if case.classname.is_empty() {
            case.name.clone()
        } else {
            format!("{}::{}", case.classname, case.name)
        }
    }

    fn may_report_too_early(&self) -> bool {
        // An interrupted teardown leaves no trace in the report.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_give_the_names_that_pytest_writes() {
        let cases = [
            (
                "tests/unit/test_a.py::TestX::test_y[a::b/c.py-1]",
                "tests.unit.test_a.TestX",
                "test_y[a::b/c.py-1]",
            ),
            ("test_a.py::test_y[\u{1b}x\u{7f}]", "test_a", "test_y[#x1Bx#x7F]"),
            ("README.rst::README.rst", "README.rst", "README.rst"),
        ];
        for (id, classname, name) in cases {
            assert_eq!(pair(id), (classname.into(), name.into()), "{id}");
        }
    }
}
