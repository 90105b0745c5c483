//! From a report on this machine to results of known tests.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::framework::Matcher;
use crate::junit::{self, Case};
use crate::mask::Mask;
use crate::model::{CaseResult, Details, TestIndex};
use crate::summary::Extra;

/// What a report says.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Results of known tests, as often as the report has them.
    pub found: Vec<(TestIndex, CaseResult)>,
    /// Results of unknown ones.
    pub extras: Vec<Extra>,
    /// What is wrong with the report; what could be read stands above all the same.
    pub error: Option<String>,
    /// Up to three unknown names, to be shown to those who miss a result.
    pub nearest: Vec<String>,
}

/// Reads the report at `path`.
pub fn read(path: &Path, matcher: &dyn Matcher, mask: &Mask) -> Reading {
    let mut reading = Reading::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            reading.error = Some("it left no report".into());
            return reading;
        }
        Err(error) => {
            reading.error = Some(format!("cannot read its report `{}`: {error}", path.display()));
            return reading;
        }
    };
    let mut take = |mut case: Case| {
        if !mask.is_empty() {
            hide(&mut case.result, mask);
        }
        match matcher.find(&case) {
            Some(index) => reading.found.push((index, case.result)),
            None => {
                let name = mask.hide(&matcher.name(&case));
                if reading.nearest.len() < 3 {
                    reading.nearest.push(name.clone());
                }
                let message = case.result.message().map(str::to_owned);
                reading.extras.push(Extra { name, outcome: case.result.outcome, message });
            }
        }
    };
    let end = junit::read::read(file, &mut take);
    reading.error = end.error.map(|error| format!("its report is broken: {error}"));
    reading
}

fn hide(result: &mut CaseResult, mask: &Mask) {
    let Some(details) = &mut result.details else { return };
    let Details { kind, message, text, stdout, stderr } = &mut **details;
    for text in [kind, message, text, stdout, stderr].into_iter().flatten() {
        *text = mask.hide(text);
    }
}
