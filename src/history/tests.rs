//! Tests of the history.

use std::collections::HashSet;

use super::*;
use crate::random::Random;

const CONFIGS: [&str; 2] = ["offload.toml", "ci \"x\".toml"];
const IDS: [&str; 6] =
    ["a.py::test", "\noverhead", "quote \" back \\ slash", "ünï ☃ 🎉", "tab\tnul\0", "a > b $x `y`"];

fn sample(run: &str, at: u64, seconds: f64) -> Sample {
    Sample { run: run.into(), at, seconds }
}

/// Adds the results of `attempts` attempts in the run `run`.
fn record(history: &mut History, random: &mut Random, run: &str, attempts: u64, capacity: usize) {
    for _ in 0..attempts {
        let sample = sample(run, 1_700_000_000_000 + random.below(50), random.below(3_000_000) as f64 / 7e4);
        let failed = random.below(4) == 0;
        let observation = if failed { Observation::Failed(sample) } else { Observation::Passed(sample) };
        let (config, id) = (random.pick(&CONFIGS), random.pick(&IDS));
        history.add(config, id, observation, capacity);
    }
}

fn text(history: &History) -> Vec<u8> {
    let mut text = Vec::new();
    history.write(&mut text).unwrap();
    text
}

fn read(text: &[u8]) -> (History, Faults) {
    History::read(text).unwrap()
}

fn good(text: &str) -> History {
    let (history, faults) = read(text.as_bytes());
    assert_eq!(faults, Faults::default(), "{text}");
    history
}

fn all(history: &History) -> impl Iterator<Item = (&str, &str, &Record)> {
    let configs = history.records.iter();
    configs.flat_map(|(config, tests)| tests.iter().map(move |(id, record)| (&**config, &**id, record)))
}

/// A base and two descendants.
fn three(random: &mut Random, capacity: usize) -> [History; 3] {
    let mut base = History::default();
    let count = random.below(40);
    record(&mut base, random, "base", count, capacity);
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    let (one, other) = (random.below(40), random.below(40));
    record(&mut ours, random, "ours", one, capacity);
    record(&mut theirs, random, "theirs", other, capacity);
    [base, ours, theirs]
}

fn line(id: &str, rest: &str) -> String {
    format!("{{\"k\":[\"c\",{}],\"v\":{{{rest}}}}}\n", serde_json::to_string(id).unwrap())
}

fn simple(id: &str) -> String {
    line(id, &format!("\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[[\"r\",{},0.5]],\"fail\":[]", id.len()))
}

#[test]
fn what_is_written_is_read_back_and_is_the_format_of_the_peer() {
    let mut random = Random(3);
    for _ in 0..200 {
        let [_, history, _] = three(&mut random, 4);
        let written = text(&history);
        assert_eq!(read(&written), (history, Faults::default()));
        assert_eq!(text(&read(&written).0), written);
    }
    let peer = "{\"k\":[\"my.toml\",\"a\"],\"v\":{\"n\":1,\"f\":0,\"last_run\":\"Wx60\",\
                \"ok\":[[\"Wx60\",1795402614512,0.1]],\"fail\":[]}}\n";
    assert_eq!(text(&good(peer)), peer.as_bytes());
}

#[test]
fn durations_come_back_bit_by_bit_and_new_ones_are_whole_microseconds() {
    let seconds = 0.123_456_789_012_345_67_f64;
    let written = simple("a").replace("0.5", &seconds.to_string());
    assert_eq!(good(&written).get("c", "a").unwrap().passed[0].seconds.to_bits(), seconds.to_bits());
    let mut history = History::default();
    history.add("c", "a", Observation::Passed(sample("r", 1, seconds)), 9);
    assert_eq!(history.get("c", "a").unwrap().passed[0].seconds, 0.123_457);
}

#[test]
fn merging_is_commutative_and_idempotent_and_keeps_what_one_side_learned() {
    let mut random = Random(5);
    for _ in 0..500 {
        for capacity in [3, 100] {
            let [base, ours, theirs] = three(&mut random, capacity);
            let merged = merge(&base, &ours, &theirs, capacity);
            assert_eq!(merged, merge(&base, &theirs, &ours, capacity));
            assert_eq!(merge(&base, &ours, &ours, capacity), ours);
            assert_eq!(merge(&base, &base, &theirs, capacity), theirs);
            assert_eq!(merge(&base, &ours, &base, capacity), ours);
            for (_, _, record) in all(&merged) {
                assert!(record.passed.len() <= capacity && record.failed.len() <= capacity);
                assert_eq!(*record, record.clone().settle());
            }
        }
    }
}

#[test]
fn below_capacity_no_sample_or_count_is_lost_or_counted_twice() {
    let mut random = Random(11);
    for _ in 0..300 {
        let [base, ours, theirs] = three(&mut random, 1000);
        let merged = merge(&base, &ours, &theirs, 1000);
        for (config, id, record) in all(&ours).chain(all(&theirs)) {
            let both = merged.get(config, id).unwrap();
            for sample in &record.passed {
                assert!(both.passed.contains(sample));
            }
            for sample in &record.failed {
                assert!(both.failed.contains(sample));
            }
        }
        for (_, _, record) in all(&merged) {
            let samples = record.passed.len() + record.failed.len();
            assert_eq!((record.attempts, record.failures), (samples as u64, record.failed.len() as u64));
        }
        // The same commit once more: a rebase, a cherry-pick.
        assert_eq!(merge(&base, &merged, &theirs, 1000), merged);
        assert_eq!(merge(&History::default(), &merged, &theirs, 1000), merged);
        assert_eq!(merge(&ours, &merged, &ours, 1000), merged);
    }
}

#[test]
fn counts_at_capacity_are_those_of_both_sides() {
    let samples = |run: &str, from: u64, count: u64| -> Vec<Sample> {
        (from..from + count).map(|at| sample(run, at, 1.0)).collect()
    };
    let with = |attempts: u64, failures: u64, passed: Vec<Sample>| {
        let record = Record { attempts, failures, last_run: passed[0].run.clone(), passed, failed: vec![] };
        let records = BTreeMap::from([("a".into(), record)]);
        History { records: BTreeMap::from([("c".into(), records)]) }
    };
    let base = with(100, 10, samples("base", 0, 4));
    let ours = with(103, 11, samples("ours", 10, 4));
    let theirs = with(105, 13, samples("theirs", 20, 4));
    let merged = merge(&base, &ours, &theirs, 4);
    let merged = merged.get("c", "a").unwrap();
    assert_eq!((merged.attempts, merged.failures, merged.passed.len()), (108, 14, 4));
    // Both descend from the base, and both have one observation.
    let grown = |attempts, news: &[&str]| {
        let news = news.iter().map(|run| sample(run, 30, 1.0));
        with(attempts, 10, samples("base", 0, 4).into_iter().chain(news).collect())
    };
    let merged = merge(&base, &grown(102, &["1", "2"]), &grown(103, &["1", "3", "4"]), 20);
    assert_eq!(merged.get("c", "a").unwrap().attempts, 104);
    // Without a base, they share a past if they share a sample.
    let more = with(102, 11, [samples("base", 0, 4), samples("new", 9, 2)].concat());
    let merged = merge(&History::default(), &base, &more, 20);
    assert_eq!(merged.get("c", "a").unwrap().attempts, 102);
}

#[test]
fn a_record_that_one_side_removed_stays() {
    let (one, two) = (good(&simple("a")), good(&(simple("a") + &simple("bb"))));
    for (ours, theirs) in [(&one, &two), (&two, &one)] {
        assert_eq!(merge(&two, ours, theirs, 20), two);
    }
    let emptied = good(&line("a", "\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]"));
    assert_eq!(merge(&one, &one, &emptied, 20), one, "a lost sample comes back");
}

#[test]
fn the_reservoir_prefers_recent_samples_and_keeps_all_below_capacity() {
    let mut random = Random(17);
    let mut history = History::default();
    for at in 0..1000 {
        let seconds = random.below(1000) as f64 / 8.0;
        history.add("c", "a", Observation::Passed(sample("r", at, seconds)), 20);
        let kept = history.get("c", "a").unwrap().passed.len();
        assert_eq!(kept, usize::try_from(at).unwrap().saturating_add(1).min(20));
    }
    let record = history.get("c", "a").unwrap();
    assert_eq!((record.attempts, record.failures), (1000, 0));
    let recent = record.passed.iter().filter(|sample| sample.at >= 900).count();
    assert!(recent >= 18, "{recent} of 20 from the last tenth");
    let last: Vec<u64> = record.passed.iter().rev().take(9).map(|sample| 999 - sample.at).collect();
    assert!(last[8] < 20, "nine recent ones: {last:?}");
    assert!(record.passed.is_sorted());

    // For 400 tests with 40 samples each: how often each rank stayed.
    let mut kept = [0_u32; 40];
    for test in 0..400 {
        let mut samples: Vec<Sample> = (0..40).map(|at| sample("r", at, 1.0)).collect();
        reservoir::reduce(&mut samples, 10, Draw::new("c", &format!("test {test}")));
        assert_eq!(samples.len(), 10);
        samples.iter().for_each(|sample| kept[usize::try_from(39 - sample.at).unwrap()] += 1);
    }
    let tens: Vec<u32> = kept.chunks(10).map(|ten| ten.iter().sum()).collect();
    assert!(tens.is_sorted_by(|newer, older| newer > older), "{tens:?}");
    // Ten draws with weights e^(-rank/10) take about 2,200 : 1,080 : 470 : 190 from the four groups of ten.
    assert!((2000..2500).contains(&tens[0]) && (80..350).contains(&tens[3]), "{tens:?}");
}

#[test]
fn a_broken_line_is_skipped_and_reported_with_its_number() {
    let bad = [
        "garbage",
        "{}",
        "[]",
        "null",
        "{\"k\":[\"c\"],\"v\":{}}",
        "<<<<<<< HEAD",
        "{\"k\":[\"c\",\"x\"],\"v\":{\"n\":\"1\",\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]}}",
        "{\"k\":[\"c\",\"x\"],\"v\":{\"n\":-1,\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]}}",
        "{\"k\":[\"c\",\"x\"],\"v\":{\"n\":1e400,\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]}}",
        "{\"k\":[\"c\",\"\\ud800\"],\"v\":{\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]}}",
        "{\"k\":[\"c\",\"x\"],\"v\":{\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[]}}",
    ];
    for bad in bad {
        let (history, faults) = read(format!("{}{bad}\r\n\n{}", simple("a"), simple("bb")).as_bytes());
        assert_eq!(faults, Faults { lines: 1, samples: 0, first: 2 }, "{bad}");
        assert_eq!(history, good(&(simple("a") + &simple("bb"))), "{bad}");
    }
    let faults = Faults { lines: 2, samples: 1, first: 7 };
    assert_eq!(faults.to_string(), "skipped 2 unreadable lines and 1 unreadable sample, the first in line 7");
}

#[test]
fn an_impossible_sample_is_skipped() {
    for bad in ["-1.0", "1e999", "-1e999", "null", "\"1\"", "1e9", "[[[]]]", "0.5,1"] {
        let ok = format!("[\"r\",1,0.5],[\"r\",2,{bad}],[\"r\",3,0.0]");
        let (history, faults) = read(
            line("a", &format!("\"n\":3,\"f\":0,\"last_run\":\"r\",\"ok\":[{ok}],\"fail\":[]")).as_bytes(),
        );
        assert_eq!(faults, Faults { lines: 0, samples: 1, first: 1 }, "{bad}");
        let record = history.get("c", "a").unwrap();
        assert_eq!((record.attempts, record.passed.len()), (3, 2), "{bad}");
    }
    let mut history = History::default();
    for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e9] {
        history.add("c", "a", Observation::Failed(sample("r", 1, seconds)), 20);
    }
    let record = history.get("c", "a").unwrap();
    assert_eq!((record.attempts, record.failures, record.failed.len()), (4, 4, 0));
}

#[test]
fn impossible_counts_are_corrected_and_unknown_fields_ignored() {
    let ok = "[[\"r\",2,1],[\"r\",1,-0.0]]";
    let text = line(
        "a",
        &format!(
            "\"new\":[{{}}],\"n\":0,\"f\":18446744073709551615,\"last_run\":\"r\",\"ok\":{ok},\"fail\":{ok}"
        ),
    );
    let history = good(&text);
    let record = history.get("c", "a").unwrap();
    assert_eq!((record.attempts, record.failures), (4, 2));
    assert!(record.passed.is_sorted() && record.passed[0].seconds.is_sign_positive());
    let most = line("a", &format!("\"n\":{0},\"f\":{0},\"last_run\":\"r\",\"ok\":[],\"fail\":[]", u64::MAX));
    let mut most = good(&most);
    most.add("c", "a", Observation::Failed(sample("r", 1, 1.0)), 20);
    assert_eq!(most.get("c", "a").unwrap().attempts, u64::MAX);
    let merged = merge(&History::default(), &most, &good(&simple("a")), 20);
    assert_eq!(merged.get("c", "a").unwrap().attempts, u64::MAX);
}

#[test]
fn line_ends_marks_and_order_do_not_matter() {
    let plain = simple("a") + &simple("bb") + &simple("ccc");
    let history = good(&plain);
    assert_eq!(good(plain.trim_end()), history, "no newline at the end");
    assert_eq!(good(&plain.replace('\n', "\r\n")), history);
    assert_eq!(good(&format!("\u{feff}{plain}")), history);
    assert_eq!(good(&format!("\n \n{plain}\n\t\n")), history);
    assert_eq!(good(&(simple("ccc") + &simple("a") + &simple("bb"))), history);
    assert_eq!(good(""), History::default());
    let mut random = Random(23);
    for _ in 0..100 {
        let [base, ours, theirs] = three(&mut random, 5);
        let texts = [text(&base), text(&ours), text(&theirs)];
        let expected = read(&texts.concat()).0;
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let shuffled = order.map(|number: usize| texts[number].clone()).concat();
            assert_eq!(read(&shuffled).0, expected);
        }
        assert_eq!(read(&[texts[1].clone(), texts[1].clone()].concat()).0, ours);
    }
}

#[test]
fn between_conflict_markers_both_sides_are_kept() {
    let side = |run: &str, count: u64| {
        let sample = format!("[\"{run}\",{count},1.0]");
        line(
            "a",
            &format!(
                "\"n\":{count},\"f\":0,\"last_run\":\"{run}\",\"ok\":[[\"b\",1,1.0],{sample}],\"fail\":[]"
            ),
        )
    };
    let (ours, theirs) = (side("o", 12), side("t", 13));
    let text = format!("{}<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> other\n{}", simple("0"), simple("zz"));
    let (history, faults) = read(text.as_bytes());
    assert_eq!(faults, Faults { lines: 3, samples: 0, first: 2 });
    let record = history.get("c", "a").unwrap();
    assert_eq!((record.attempts, record.passed.len(), &*record.last_run), (14, 3, "t"));
    assert_eq!(history.len(), 3);
    // Without a common sample they are unrelated.
    let apart = good(&(ours.replace("[\"b\",1,1.0],", "") + &theirs.replace("[\"b\",1,1.0],", "")));
    assert_eq!(apart.get("c", "a").unwrap().attempts, 25);
}

#[test]
fn no_damage_panics_or_affects_other_lines() {
    let mut random = Random(41);
    let [_, history, _] = three(&mut random, 6);
    let clean = text(&history);
    for _ in 0..1500 {
        let mut broken = clean.clone();
        for _ in 0..=random.below(4) {
            let place = usize::try_from(random.below(broken.len() as u64)).unwrap();
            let byte = u8::try_from(random.below(256)).unwrap();
            match random.below(3) {
                0 => broken[place] = byte,
                1 => broken.truncate(place + 1),
                _ => broken.insert(place, *b"{[\"9e-,\xff\\".get(usize::from(byte) % 10).unwrap_or(&b'\n')),
            }
        }
        let untouched: Vec<&[u8]> = clean.split_inclusive(|byte| *byte == b'\n').collect();
        let lines: HashSet<&[u8]> = broken.split_inclusive(|byte| *byte == b'\n').collect();
        let (found, _) = read(&broken);
        for line in untouched.into_iter().filter(|line| lines.contains(line)) {
            let alone = read(line).0;
            let (config, id, record) = all(&alone).next().unwrap();
            assert!(found.get(config, id).unwrap().attempts >= record.attempts);
        }
    }
    for length in [1, 10, 1000, 100_000] {
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        read(&bytes);
    }
    let nested = |open: &str| {
        let deep = open.repeat(200_000);
        let text = simple("a") + &line("x", &format!("\"new\":{deep}")) + &deep + "\n" + &simple("bb");
        assert_eq!(read(text.as_bytes()).1, Faults { lines: 2, samples: 0, first: 2 });
    };
    nested("[");
    nested("{\"n\":");
}

#[test]
fn blocks_are_cut_between_lines_and_lines_longer_than_blocks_are_read() {
    let long = "x".repeat(3 << 20);
    let names: Vec<String> = (0..30_000).map(|number| format!("test {number}")).collect();
    let mut lines: Vec<String> = names.iter().map(|name| simple(name)).collect();
    lines.insert(20_000, simple(&long));
    lines.insert(25_000, "broken\n".into());
    let (history, faults) = read(lines.concat().as_bytes());
    assert_eq!((history.len(), faults), (30_001, Faults { lines: 1, samples: 0, first: 25_001 }));
    assert!(history.get("c", &long).is_some());
}

#[test]
fn the_estimate_is_based_on_recent_passes() {
    let typical = |passed: &[f64], failed: &[f64]| {
        let samples = |seconds: &[f64]| -> Vec<Sample> {
            (0..).zip(seconds).map(|(at, seconds)| sample("r", at, *seconds)).collect()
        };
        let (passed, failed) = (samples(passed), samples(failed));
        let record = Record { attempts: 0, failures: 0, last_run: "r".into(), passed, failed }.settle();
        (record.typical().map(|typical| typical.as_secs_f64()), record.spread())
    };
    assert_eq!(typical(&[], &[]), (None, None));
    assert_eq!(typical(&[], &[1.0, 5.0]).0, Some(3.0));
    assert_eq!(typical(&[1.0, 5.0], &[9.0]).0, Some(3.0));
    assert_eq!(typical(&[1.0, 50.0, 2.0], &[]).0, Some(2.0));
    assert_eq!(typical(&[1.0, 50.0, 2.0, 4.0], &[]).0, Some(3.0));
    // The first of ten is not recent.
    assert_eq!(typical(&[9.0, 1.0, 1.0, 1.0, 1.0, 2.0, 9.0, 9.0, 9.0, 9.0], &[]).0, Some(2.0));
    assert_eq!(typical(&[1.0, 0.001, 0.0], &[]).1, None);
    let e = std::f64::consts::E;
    let spread = typical(&[1.0, e, e * e, 0.0], &[]).1.unwrap();
    assert!((spread.squares - 2.0).abs() < 1e-9 && spread.degrees == 2, "{spread:?}");
}

#[test]
fn a_history_knows_its_size() {
    let mut history = History::default();
    assert!(history.is_empty() && history.largest_reservoir() == 0);
    for number in 0..5 {
        history.add("a.toml", "one", Observation::Passed(sample("r", number, 1.0)), 10);
        history.add("a.toml", "two", Observation::Failed(sample("r", number, 1.0)), 3);
    }
    history.add("b.toml", "one", Observation::Failed(sample("r", 9, 1.0)), 10);
    assert_eq!((history.len(), history.is_empty(), history.largest_reservoir()), (3, false, 5));
    assert_eq!(history.of("a.toml").map(|(id, _)| id).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(history.of("c.toml").count(), 0);
}
