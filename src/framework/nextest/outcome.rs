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
        ["(SIGTERM)", "(SIGKILL)"].iter().any(|signal| message.ends_with(signal))
    }
}

/// Whether a case is about a setup script.
fn is_setup_script(case: &Case) -> bool {
    case.classname.starts_with("@setup-script:")
}
