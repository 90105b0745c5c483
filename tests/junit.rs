//! Reads every recorded report and compares with the `.expected` file beside it.
//! `BLESS=1 cargo test --test junit` writes these anew.

#![cfg(test)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use offload::internals::junit::read::{Caps, ReadEnd, read, read_within};
use offload::internals::junit::{Case, Word};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/junit")
}

/// All reports below `directory`, sorted.
fn reports(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(reports(&path));
        } else if path.extension().is_some_and(|extension| extension == "xml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn cases(bytes: &[u8]) -> (Vec<Case>, ReadEnd) {
    let mut cases = Vec::new();
    let end = read(bytes, &mut |case| cases.push(case));
    (cases, end)
}

/// One line a case, and further ones for its texts.
fn picture(cases: &[Case], end: &ReadEnd) -> String {
    let mut text = String::new();
    for case in cases {
        let word = Word::of(&case.result);
        let seconds = case.result.duration.as_secs_f64();
        writeln!(text, "{word} {:?} of {:?} in {seconds}", case.name, case.classname).unwrap();
        let Some(details) = &case.result.details else {
            continue;
        };
        if let Some(place) = &details.place {
            writeln!(text, "    file: {}", place.file).unwrap();
        }
        let parts = [
            ("kind", &details.kind),
            ("message", &details.message),
            ("text", &details.text),
            ("stdout", &details.stdout),
            ("stderr", &details.stderr),
        ];
        for (name, part) in parts {
            if let Some(part) = part {
                writeln!(text, "    {name}: {:?}", part.chars().take(200).collect::<String>()).unwrap();
            }
        }
    }
    writeln!(text, "{}", end.error.as_deref().unwrap_or("whole")).unwrap();
    text
}

#[test]
fn every_recorded_report_reads_as_expected() {
    let reports = reports(&fixtures());
    assert!(reports.len() > 30, "only {} reports", reports.len());
    let mut wrong = Vec::new();
    for path in reports {
        let (cases, end) = cases(&fs::read(&path).unwrap());
        let picture = picture(&cases, &end);
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &picture).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != picture {
            wrong.push(format!("{}:\n{picture}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_says_how_its_reports_were_made() {
    for report in reports(&fixtures()) {
        assert!(report.with_file_name("HOW").is_file(), "{}", report.display());
    }
}

#[test]
fn recorded_reports_hold_no_path_of_the_machine_that_made_them() {
    for report in reports(&fixtures()) {
        let text = String::from_utf8_lossy(&fs::read(&report).unwrap()).into_owned();
        for start in ["/home/", "/root/", "/tmp/", "/Users/"] {
            assert!(!text.contains(start), "{}: {start}", report.display());
        }
    }
}

#[test]
fn a_report_cut_anywhere_never_shows_a_failure_as_a_pass() {
    for path in reports(&fixtures()) {
        let bytes = fs::read(&path).unwrap();
        let (whole, whole_end) = cases(&bytes);
        let is_whole = whole_end.error.is_none();
        let end_of_root = bytes.iter().rposition(|byte| *byte == b'>').unwrap_or_default();
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 400) {
            let (part, end) = cases(&bytes[..length]);
            assert!(part.len() <= whole.len(), "{} cut at {length}", path.display());
            for (place, (case, original)) in part.iter().zip(&whole).enumerate() {
                let (outcome, expected) = (case.result.outcome, original.result.outcome);
                let same = case.name == original.name
                    && (outcome == expected || (outcome.is_bad() && expected.is_bad()));
                assert!(
                    same || place + 1 == part.len() && outcome.is_bad(),
                    "{} cut at {length}",
                    path.display()
                );
            }
            if is_whole && length <= end_of_root {
                assert!(end.error.is_some(), "{} cut at {length}: {part:?}", path.display());
            }
        }
    }
}

#[test]
fn any_damage_ends_without_a_panic() {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for path in reports(&fixtures()) {
        let original = fs::read(&path).unwrap();
        if original.is_empty() {
            continue;
        }
        for _ in 0..60 {
            let mut bytes = original.clone();
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                bytes[place] = b"<>&;\"'/!-[]?\0\x1b\xFFa ="[random(18)];
            }
            cases(&bytes);
        }
    }
}

#[test]
fn caps_bound_every_text() {
    let path = fixtures().join("nextest-0.9.143/sample.xml");
    let mut longest = 0;
    read_within(Caps { text: 100 }, File::open(path).unwrap(), &mut |case| {
        if let Some(details) = case.result.details {
            let texts = [details.kind, details.message, details.text, details.stdout, details.stderr];
            longest =
                longest.max(texts.into_iter().flatten().map(|text| text.len()).max().unwrap_or_default());
        }
    });
    assert!((100..=300).contains(&longest), "{longest}");
}
