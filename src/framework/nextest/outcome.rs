//! What nextest says of a batch: its exit codes, and the cases of its report.

use crate::framework::{ByFormat, Matcher, Meaning};
use crate::junit::Case;
use crate::model::{Exit, TestIndex};

/// What an exit status means. The codes are those of `NextestExitCode` in the crate nextest-metadata, and 2 is clap's.
pub(super) fn meaning(exit: Exit) -> Meaning {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(_) => return Meaning::Broken(None),
        Exit::TimedOut | Exit::Cancelled => return Meaning::Unknown,
    };
    match code {
        2 => Meaning::Refused("it does not take its arguments"),
        4 => Meaning::Refused("none of these tests are there"),
        70 => Meaning::Broken(Some("it could not start a process")),
        92 => Meaning::Refused("the project needs a newer version of it"),
        94 => Meaning::Refused("it cannot read a filterset"),
        95 => Meaning::Refused("an experimental feature is not enabled"),
        96 => Meaning::Refused("it could not be set up"),
        100 => Meaning::TestsFailed,
        101 => Meaning::Broken(Some("cargo or the build failed")),
        102 => Meaning::Broken(Some("`cargo metadata` failed")),
        104 => Meaning::Broken(Some("it could not list the tests")),
        105 => Meaning::Refused("a setup script failed"),
        110 => Meaning::Broken(Some("it could not write its output")),
        _ => Meaning::Broken(None),
    }
}

/// Matches by format. nextest reports setup scripts like tests.
pub(super) struct Named<'a>(pub ByFormat<'a>);

impl Matcher for Named<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        self.0.find(case)
    }

    fn name(&self, case: &Case) -> String {
        self.0.name(case)
    }

    fn is_extra(&self, case: &Case) -> bool {
        !is_setup_script(case)
    }

    fn blocks(&self, case: &Case) -> Option<String> {
        if !is_setup_script(case) || !case.result.outcome.is_bad() {
            return None;
        }
        let mut text = format!("setup script `{}` failed", case.name);
        let Some(details) = &case.result.details else { return Some(text) };
        if let Some(how) = case.result.headline() {
            text += &format!(": {how}");
        }
        for output in [&details.stdout, &details.stderr].into_iter().flatten() {
            // nextest says so where the script prints to its own output, which is in the logs.
            if !output.trim().is_empty() && !output.ends_with(" not captured)") {
                text += &format!("\n{}", output.trim_end());
            }
        }
        Some(text)
    }

    fn is_ended(&self, case: &Case) -> bool {
        let details = case.result.details.as_deref();
        let message = details.and_then(|details| details.message.as_deref()).unwrap_or_default();
        // A remark on leaked handles may follow.
        let signal = message.strip_prefix("process aborted with signal ");
        signal.is_some_and(|signal| ["15 ", "9 "].iter().any(|number| signal.starts_with(number)))
    }
}

/// Whether a case is about a setup script.
fn is_setup_script(case: &Case) -> bool {
    case.classname.starts_with("@setup-script:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::junit;
    use crate::model::{GroupIndex, Suite};

    /// What is said of the only case of a report.
    fn said(case: &str) -> (Option<String>, bool, bool) {
        let suite = Suite::new(Vec::new());
        let matcher = Named(ByFormat { suite: &suite, group: GroupIndex(0), format: "{name}" });
        let mut said = None;
        junit::read::read(format!("<testsuite>{case}</testsuite>").as_bytes(), &mut |case| {
            said = Some((matcher.blocks(&case), matcher.is_ended(&case), matcher.is_extra(&case)));
        });
        said.unwrap()
    }

    #[test]
    fn a_setup_script_blocks_its_batch_only_if_it_failed() {
        let script = |inside: &str| {
            said(&format!("<testcase name='db' classname='@setup-script:db'>{inside}</testcase>")).0
        };
        let failure = "<failure type='script failure with exit code 3'/>";
        let told = |text: &str| Some(format!("setup script `db` failed{text}"));
        assert_eq!(script(failure), told(": script failure with exit code 3"));
        let silent = "<system-out>(stdout not captured)</system-out><system-err></system-err>";
        assert_eq!(script(&format!("{failure}{silent}")), told(": script failure with exit code 3"));
        let output = "<system-out>made a\n</system-out><system-err>no b</system-err>";
        let expected = told(": script failure with exit code 3\nmade a\nno b");
        assert_eq!(script(&format!("{failure}{output}")), expected);
        assert_eq!(script(output), None);
        let other = format!("<testcase name='db' classname='crate'>{failure}</testcase>");
        assert_eq!(said(&other), (None, false, true));
    }

    #[test]
    fn what_ends_with_a_signal_of_ours_was_ended() {
        let aborted = |message: &str| {
            said(&format!("<testcase name='t'><failure message='{message}' type='test abort'/></testcase>")).1
        };
        assert!(aborted("process aborted with signal 15 (SIGTERM)"));
        assert!(aborted("process aborted with signal 9 (SIGKILL)"));
        assert!(aborted("process aborted with signal 15 (SIGTERM) (leaked handles)"));
        assert!(!aborted("process aborted with signal 6 (SIGABRT)"));
        assert!(!said("<testcase name='t'/>").1);
    }

    #[test]
    fn exit_codes_say_what_they_mean() {
        assert_eq!(meaning(Exit::Code(100)), Meaning::TestsFailed);
        assert_eq!(meaning(Exit::TimedOut), Meaning::Unknown);
        for exit in [Exit::Code(1), Exit::Code(101), Exit::Code(105), Exit::Signal(11)] {
            assert!(!meaning(exit).is_explained_by_failures(), "{exit}");
        }
    }
}
