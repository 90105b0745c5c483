//! What is fuzzed: each target takes any bytes and holds what is claimed of their reader. Shared by the
//! fuzzers beside this file and by `tests/fuzz.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use offload::internals::command::{Executable, fill};
use offload::internals::config;
use offload::internals::framework::custom::Custom;
use offload::internals::framework::nextest::Nextest;
use offload::internals::framework::pytest::{Inherited, Pytest};
use offload::internals::framework::vitest::Vitest;
use offload::internals::framework::{BatchContext, Framework, ListCommand, ListOutput};
use offload::internals::git::changes::{Change, Changes};
use offload::internals::git::patch;
use offload::internals::history::{self, History};
use offload::internals::junit::read::{Caps, read, read_within};
use offload::internals::junit::{Case, Entry, Recorded, Word, read_merged, write};
use offload::internals::model::{
    Attempt, CaseResult, Details, Exit, Group, GroupIndex, Listed, Outcome, Suite, TestIndex, Verdict,
};
use offload::internals::provider::modal::{Failure, read_answer};
use offload::internals::provider::remote::cut;
use offload::internals::record as lines;
use serde_json::json;

/// A target: must return whatever the bytes are.
pub type Target = fn(&[u8]);

/// All targets by their names, which are those of their corpora below `fixtures/fuzz`, too.
pub const TARGETS: [(&str, Target); 11] = [
    ("config", config),
    ("junit", junit),
    ("history", history),
    ("pytest", pytest),
    ("nextest", nextest),
    ("vitest", vitest),
    ("record", record),
    ("driver", driver),
    ("frame", frame),
    ("patch", patch),
    ("words", words),
];

/// The beginning of the lines that are a sandbox's own.
const TOKEN: &str = "T0K";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes between those that are 0, as texts.
pub fn parts(bytes: &[u8]) -> Vec<String> {
    bytes.split(|byte| *byte == 0).map(text).collect()
}

/// A configuration is read with a summary that shows no secret, or refused with mistakes.
pub fn config(bytes: &[u8]) {
    let text = text(bytes);
    let environment = |name: &str| (name.len() % 2 == 1).then(|| format!("{name} ${{{name}}}"));
    match config::parse(&text, "offload.toml", &environment) {
        Ok(config) => {
            let secrets = config.secrets(&environment);
            assert!(!config.summary(&secrets).is_empty());
            assert!(!config.groups.is_empty() && config.offload.max_parallel > 0);
        }
        Err(mistakes) => {
            assert!(!mistakes.list.is_empty());
            assert!(!mistakes.to_string().is_empty());
        }
    }
}

fn recorded(bytes: &[u8]) -> Vec<Recorded> {
    let mut found = Vec::new();
    read_merged(bytes, Caps::default(), &mut |test| {
        found.push(test);
        ControlFlow::Continue(())
    });
    found
}

/// What was recorded, as a merged report.
fn written(tests: &[Recorded]) -> Vec<u8> {
    let verdicts: Vec<(Verdict, [Attempt; 1])> = tests
        .iter()
        .map(|test| {
            let verdict = match test.word {
                Word::Passed => Verdict::Passed,
                Word::Flaky => Verdict::Flaky,
                Word::Skipped | Word::ExpectedFailure => Verdict::Skipped,
                _ => Verdict::Failed,
            };
            let batch = test.batches.first().copied().unwrap_or_default();
            (verdict, [Attempt { number: 1, batch, result: test.result.clone() }])
        })
        .collect();
    let entries = || {
        let both = tests.iter().zip(&verdicts);
        both.map(|(test, (verdict, attempts))| Entry {
            id: &test.id,
            file: None,
            line: None,
            group: "",
            verdict,
            attempts,
        })
    };
    let mut bytes = Vec::new();
    write::write(&mut bytes, write::Frame::default(), entries).expect("memory takes all");
    bytes
}

/// A report is read within its caps; what we write of it says the same, and is written the same again.
pub fn junit(bytes: &[u8]) {
    let mut cases = 0;
    let end = read_within(Caps { text: 100 }, bytes, &mut |case| {
        cases += 1;
        let texts = case.result.details.map(|details| {
            let Details { kind, message, text, stdout, stderr, is_stated: _, properties: _, place: _ } =
                *details;
            [kind, message, text, stdout, stderr]
        });
        let longest = texts.into_iter().flatten().flatten().map(|text| text.len()).max();
        assert!(longest.is_none_or(|longest| longest <= 300), "a text of {longest:?} bytes");
    });
    assert_eq!(end.cases, cases);
    let mut bad = 0;
    read(bytes, &mut |case| bad += usize::from(case.result.outcome.is_bad()));
    let mut first = recorded(bytes);
    assert_eq!(bad, first.iter().filter(|test| test.result.outcome.is_bad()).count());
    first.retain(|test| test.word != Word::RunError);
    let report = written(&first);
    let second = recorded(&report);
    let said = |test: &Recorded| (test.id.clone(), test.word);
    assert_eq!(first.iter().map(said).collect::<Vec<_>>(), second.iter().map(said).collect::<Vec<_>>());
    assert_eq!(text(&report), text(&written(&second)));
}

fn histories(bytes: &[u8]) -> Vec<History> {
    let all = text(bytes);
    let parts = all.split("\n=\n").map(|part| History::read(part.as_bytes()).expect("memory gives all").0);
    parts.take(3).chain([History::default(), History::default()]).collect()
}

/// Histories come back as they were written, in any order of their lines, and merge in either order.
pub fn history(bytes: &[u8]) {
    let all = histories(bytes);
    let (ours, theirs, base) = (&all[0], &all[1], &all[2]);
    for one in [ours, theirs] {
        let mut written = Vec::new();
        one.write(&mut written).expect("memory takes all");
        let (again, faults) = History::read(&written[..]).expect("memory gives all");
        assert_eq!((&again, faults), (one, history::Faults::default()));
        let most = one.largest_reservoir().max(1);
        assert_eq!(history::merge(base, one, one, most), *one, "merged with itself");
        assert_eq!(history::merge(one, one, one, 1), *one, "nobody learned anything");
    }
    for capacity in [1, 3, 100] {
        let merged = history::merge(base, ours, theirs, capacity);
        assert_eq!(merged, history::merge(base, theirs, ours, capacity), "in the other order");
        assert!(merged.len() >= ours.len().max(theirs.len()));
        let known = ["c", ""].into_iter().flat_map(|config| merged.of(config));
        for (_, record) in known {
            assert!(record.attempts >= record.failures);
            assert!(record.typical().is_none_or(|typical| typical < Duration::from_secs(1 << 32)));
            _ = record.spread();
        }
    }
    let body = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
    let read = |lines: &[&[u8]]| History::read(&lines.join(&b'\n')[..]).expect("memory gives all").0;
    let forward = read(&lines);
    lines.reverse();
    // What was the last line could now be taken for a mark.
    lines.insert(0, b"");
    assert_eq!(forward, read(&lines), "its lines in the other order");
}

fn framework_config(framework: &str) -> config::Framework {
    let text = format!(
        "[offload]\nmax_parallel = 2\n[provider]\ntype = \"local\"\n[framework]\n{framework}\n[groups.all]\n"
    );
    config::parse(&text, "offload.toml", &|_| None).expect("a good configuration").framework
}

/// A record gives the same events whatever was read before it, at most one for each line, and never more when its end
/// is missing.
pub fn record(bytes: &[u8]) {
    let events = |bytes: &[u8]| {
        let mut events = Vec::new();
        let error = lines::read(bytes, &mut |event| events.push(format!("{event:?}")));
        (events, error)
    };
    let (whole, _) = events(bytes);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(whole.len() <= lines);
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    assert_eq!(events(&bytes[..end]).0, whole);
}

/// Reads `text` as the output of a list command, and makes a batch of all that is listed.
fn list(framework: &dyn Framework, text: &str, groups: u16, in_file: bool) {
    let group = |number: u16| Group {
        name: format!("g{number}").as_str().into(),
        filters: String::new(),
        max_attempts: 1,
        solo: false,
    };
    let (file, stdout) = if in_file { (Some(text.to_owned()), "") } else { (None, text) };
    let output = ListOutput { exit: Exit::Code(0), stdout: stdout.into(), stderr: String::new(), file };
    let command = ListCommand {
        groups: (0..groups).map(GroupIndex).collect(),
        command: offload::internals::command::CommandLine::shell("true"),
        output: None,
    };
    let Ok(listing) = framework.parse_list(&command, &output) else { return };
    let mut suite = Suite::new((0..groups).map(group).collect());
    for test in listing.tests {
        assert!(test.group.0 < groups);
        suite.add(test);
    }
    for group in (0..groups).map(GroupIndex) {
        let own = |index: &TestIndex| suite.test(*index).group == group;
        let tests: Vec<TestIndex> = suite.indices().filter(own).collect();
        if tests.is_empty() {
            continue;
        }
        let context = BatchContext {
            group,
            suite: &suite,
            facts: &listing.facts,
            shared: Some(Path::new("/shared")),
            root: "/root",
            scratch: Path::new("/scratch"),
            fail_fast: false,
        };
        // The half of them is another selection than all.
        for tests in [&tests[..], &tests[..tests.len().div_ceil(2)]] {
            _ = framework.run_command(tests, &context);
            _ = framework.by_hand(tests, &suite, &listing.facts);
            let matcher = framework.matcher(tests, &context);
            for id in tests.iter().map(|index| suite.test(*index).id.as_str()) {
                let (classname, name) = id.rsplit_once("::").unwrap_or(("", id));
                let result = CaseResult::new(Outcome::Errored, Duration::ZERO);
                let case = Case { classname: classname.into(), name: name.into(), result };
                _ = matcher.find(&case);
                _ = (matcher.name(&case), matcher.is_extra(&case), matcher.covers(&case));
            }
        }
    }
}

/// What our plugin writes, or pytest prints without it.
pub fn pytest(bytes: &[u8]) {
    let framework = Pytest {
        command: vec!["pytest".into()],
        paths: Vec::new(),
        discovery_args: Vec::new(),
        run_args: Vec::new(),
        test_id_format: "{name}".into(),
        inherited: Inherited::default(),
    };
    list(&framework, &text(bytes), 2, true);
    list(&framework, &text(bytes), 1, false);
}

/// What `cargo nextest list` prints, and what `cargo metadata` does.
pub fn nextest(bytes: &[u8]) {
    let framework = Nextest::new(&framework_config("type = \"nextest\"")).expect("good settings");
    list(&framework, &text(bytes), 1, false);
    list(&framework, &text(bytes), 0, false);
}

/// What our reporter writes.
pub fn vitest(bytes: &[u8]) {
    let framework = framework_config("type = \"vitest\"\ntest_id_format = \"{classname} > {name}\"");
    let framework = Vitest::new(&framework).expect("good settings");
    list(&framework, &text(bytes), 1, true);
}

/// A line of Modal's driver: an answer means the same when it is written again.
pub fn driver(bytes: &[u8]) {
    let Some((id, answer)) = read_answer(&text(bytes)) else { return };
    let line = match &answer {
        Ok(result) => json!({ "id": id, "result": result }),
        Err(Failure::Reported { class, message }) => json!({ "id": id, "error": class, "message": message }),
        Err(other) => panic!("a line says {other:?}"),
    };
    assert_eq!(read_answer(&line.to_string()), Some((id, answer)));
}

/// The log of a command in a sandbox: whatever is in it, it is only ever cut, and what a sandbox says
/// behind it comes back.
pub fn frame(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let log = directory.path().join("log");
    let places: Vec<PathBuf> = ["0", "1"].map(|name| directory.path().join(name)).into();
    fs::write(&log, bytes).expect("a file in it");
    let said = cut(&log, TOKEN, &places);
    let left = fs::read(&log).expect("the log is still there");
    assert!(bytes.starts_with(&left), "the log has changed");
    match said {
        Ok(Some(_)) => assert!(left.len() < bytes.len()),
        Ok(None) | Err(_) => assert_eq!(left.len(), bytes.len(), "cut without an answer"),
    }
    let size = |place: &PathBuf| fs::metadata(place).map_or(0, |metadata| metadata.len());
    assert!(places.iter().map(size).sum::<u64>() <= bytes.len() as u64);

    let line = |part: &[u8]| {
        let words: String = part.iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("{TOKEN}:{words}\n")
    };
    let lines: String = bytes.chunks(16).map(line).collect();
    let trailer = format!("\n{TOKEN} exit 3\n{TOKEN} file 0\n{lines}{TOKEN} end\n");
    fs::write(&log, [bytes, trailer.as_bytes()].concat()).expect("the same file");
    let said = cut(&log, TOKEN, &places).expect("a whole answer").expect("an answer");
    assert_eq!((said.status, said.files), (3, vec![0]));
    assert_eq!(fs::read(&log).expect("the log"), bytes);
    assert_eq!(fs::read(&places[0]).expect("the file that came"), bytes);
}

/// The bytes that a text of `printf` commands prints, as POSIX has it.
fn printed(script: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in script.lines() {
        let format = line.strip_prefix("printf '").and_then(|rest| rest.strip_suffix('\''));
        let mut rest = format.expect("a line prints").bytes().peekable();
        assert_ne!(rest.peek(), Some(&b'-'), "an option");
        while let Some(byte) = rest.next() {
            assert_ne!(byte, b'\'', "the end of the word");
            bytes.push(match byte {
                b'%' => rest.next().filter(|next| *next == b'%').expect("a doubled %"),
                b'\\' if rest.next_if_eq(&b'n').is_some() => b'\n',
                b'\\' => {
                    let digits: Vec<u8> = rest.by_ref().take(3).collect();
                    let digits = std::str::from_utf8(&digits).expect("digits");
                    u8::from_str_radix(digits, 8).expect("an octal number of three digits")
                }
                byte => byte,
            });
        }
    }
    bytes
}

/// Links and deletions whose paths and targets are the parts of `bytes`.
pub fn changes(bytes: &[u8]) -> Changes {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let is_name = |name: &&[u8]| !matches!(**name, [] | [b'.'] | [b'.', b'.']) && name.len() < 200;
    let mut of = BTreeMap::new();
    for pair in parts.chunks(2) {
        let path: PathBuf =
            pair[0].split(|byte| *byte == b'/').filter(is_name).map(OsStr::from_bytes).collect();
        let change = match pair.get(1) {
            Some(target) if !target.is_empty() => {
                Change::Link { target: OsStr::from_bytes(target).to_owned() }
            }
            _ => Change::Delete,
        };
        if !path.as_os_str().is_empty() {
            of.insert(path, change);
        }
    }
    // Git knows no path below one that is no directory.
    let links: BTreeSet<PathBuf> =
        of.iter().filter(|(_, change)| **change != Change::Delete).map(|(path, _)| path.clone()).collect();
    of.retain(|path: &PathBuf, _| !path.ancestors().skip(1).any(|above| links.contains(above)));
    Changes { root: PathBuf::from("/nowhere"), of }
}

/// A difference as a text for sh: plain ASCII, bounded, and whole again out of its pieces.
pub fn patch(bytes: &[u8]) {
    let printing = patch::printing(bytes);
    assert_eq!(printed(&printing), bytes);
    let script = patch::script(&changes(bytes), &|_| true).expect("no file is read").expect("all fits");
    for text in [&printing, &script] {
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
        for most in [1, 7, 4096] {
            let pieces = patch::pieces(text, most);
            assert!(pieces.iter().all(|piece| piece.len() <= most));
            assert_eq!(pieces.concat(), *text);
        }
    }
    assert!(patch::script(&changes(bytes), &|length| length < 100).expect("no file is read").is_none());
}

/// The command that runs tests of these ids, with its own places filled.
pub fn command(ids: &[String]) -> String {
    let custom = Custom {
        discover_command: String::new(),
        run_command: "printf '%s\\0' {tests} {result_file}".into(),
        result_file: Some("r.xml".into()),
        working_dir: None,
        test_id_format: "{name}".into(),
    };
    let mut suite =
        Suite::new(vec![Group { name: "all".into(), filters: String::new(), max_attempts: 1, solo: false }]);
    for id in ids {
        suite.add(Listed::new(GroupIndex(0), id.as_str(), None));
    }
    let facts = BTreeMap::new();
    let context = BatchContext {
        group: GroupIndex(0),
        suite: &suite,
        facts: &facts,
        shared: None,
        root: "/",
        scratch: Path::new("/it's {tests}"),
        fail_fast: false,
    };
    let tests: Vec<TestIndex> = suite.indices().collect();
    match custom.run_command(&tests, &context).command.executable {
        Executable::Shell(text) => text,
        other => panic!("no text for a shell: {other:?}"),
    }
}

/// The words that [`command`] is to print: ids that are there twice are one test.
pub fn expected_words(ids: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ids = ids.iter().filter(|id| seen.insert(id.as_str())).cloned();
    ids.chain(["/it's {tests}/result.xml".to_owned()]).collect()
}

/// Words that are filled into a template are the same words for sh, whatever is in them.
pub fn words(bytes: &[u8]) {
    let ids = parts(bytes);
    let split = shell_words::split(&command(&ids)).expect("every quote is closed");
    assert_eq!(split[2..], expected_words(&ids));

    let template = ids[0].as_str();
    let value = ids.get(1).map_or("", String::as_str);
    assert_eq!(fill(template, &[]), template);
    assert_eq!(fill(template, &[("{a}", value)]), template.replace("{a}", value));
    let once = fill(template, &[("{a}", "{b}"), ("{b}", value)]);
    assert_eq!(once, template.replace("{b}", "\0").replace("{a}", "{b}").replace('\0', value));
}
