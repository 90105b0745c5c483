use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

fn open_in(state: &Path, run: &str) -> Journal {
    Journal::open(state, Path::new("/x/offload.toml"), run, String::new()).unwrap()
}

/// What is known, or else guessed, to be the id of a sandbox that was left.
fn id_or_guess(left: &Left) -> Option<String> {
    left.id().map(str::to_owned).or_else(|| left.guess())
}

/// What a run leaves that is killed: its files, without the lock.
fn kill(journal: &Journal, state: &Path) {
    let copy = state.join("runs/killed");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&journal.directory).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_sandbox_is_entered_before_it_is_made_and_removed_after_it_is_destroyed() {
    let state = tempfile::tempdir().unwrap();
    let journal = open_in(state.path(), "one");
    let mut entries: Vec<Entry> =
        (0..20).map(|slot| journal.begin(slot, &format!("one-{slot}")).unwrap()).collect();
    assert!(dead(state.path()).unwrap().is_empty(), "it is going on");
    for entry in &mut entries {
        fs::write(entry.output(), "sb\n").unwrap();
        entry.created("sb").unwrap();
    }
    let mode = journal.directory.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    entries.into_iter().for_each(Entry::close);
    let directory = journal.directory.clone();
    drop(journal);
    assert!(!directory.exists());
}

#[test]
fn who_looks_for_dead_runs_is_waited_for() {
    let state = tempfile::tempdir().unwrap();
    let all = lock_all(state.path()).unwrap();
    let opened = std::thread::scope(|scope| {
        let (asked, wait) = (Instant::now(), Duration::from_millis(300));
        let opening = scope.spawn(move || (open_in(state.path(), "one"), asked.elapsed()).1);
        std::thread::sleep(wait);
        drop(all);
        opening.join().unwrap() >= wait
    });
    assert!(opened, "it did not wait");
}

#[test]
fn what_a_dead_run_left_is_listed_for_one_only_until_it_is_closed() {
    let state = tempfile::tempdir().unwrap();
    let journal = open_in(state.path(), "lives");
    let [mut made, making, unknown] =
        [0, 1, 2].map(|slot| journal.begin(slot, &format!("one-{slot}")).unwrap());
    made.created("sb-1").unwrap();
    fs::write(making.output(), "making…\nsb-2\r\n\n").unwrap();
    // Progress is no id.
    fs::write(unknown.output(), "making it\n").unwrap();
    kill(&journal, state.path());
    let mut found = dead(state.path()).unwrap();
    let found_again = dead(state.path()).unwrap();
    assert!(found_again.is_empty(), "it is held");
    let found: Dead =
        found.iter().position(|dead| dead.run == "killed").map(|place| found.remove(place)).unwrap();
    assert_eq!(found.about.config, Path::new("/x/offload.toml"));
    let ids: Vec<_> = found.sandboxes.iter().map(id_or_guess).collect();
    assert_eq!(ids, [Some("sb-1".to_owned()), Some("sb-2".to_owned()), None]);
    let last = found.sandboxes.last().unwrap();
    assert_eq!((last.name(), last.slot()), ("one-2", 2));
    assert!(found.sandboxes.iter().all(|left| !left.is_pending()));
    let Dead { .. } = &found;
    let mut found = found;
    std::mem::take(&mut found.sandboxes).into_iter().for_each(Left::close);
    drop(found);
    assert!(!state.path().join("runs/killed").exists());
}

#[test]
fn a_command_that_still_makes_a_sandbox_is_seen() {
    let state = tempfile::tempdir().unwrap();
    let journal = open_in(state.path(), "one");
    let entry = journal.begin(0, "one-0").unwrap();
    let output = File::create(entry.output()).unwrap();
    let mut child = std::process::Command::new("sleep").arg("600").stdout(output).spawn().unwrap();
    let left = Left { id: None, entry };
    assert!(left.is_pending());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!left.is_pending());
}

#[test]
fn a_broken_journal_is_left_as_it_is_where_it_tells_of_sandboxes() {
    let state = tempfile::tempdir().unwrap();
    let odd = state.path().join("runs/odd");
    fs::create_dir_all(&odd).unwrap();
    fs::write(odd.join("run.json"), "{").unwrap();
    fs::write(odd.join("sandbox-0.json"), "{\"slot\":0,\"id\":\"sb\",\"at\":0}").unwrap();
    assert!(dead(state.path()).unwrap().is_empty());
    assert!(odd.join("run.json").exists());
    // Killed while it entered itself, or a sandbox.
    fs::remove_file(odd.join("sandbox-0.json")).unwrap();
    fs::write(odd.join(".offload-x.half-written"), "{").unwrap();
    fs::create_dir(state.path().join("runs/empty")).unwrap();
    assert!(dead(state.path()).unwrap().is_empty());
    assert_eq!(fs::read_dir(state.path().join("runs")).unwrap().count(), 0);
}

#[test]
fn a_line_of_an_entry_that_a_killed_run_did_not_finish_is_not_read() {
    let state = tempfile::tempdir().unwrap();
    let journal = open_in(state.path(), "lives");
    let mut entry = journal.begin(3, "lives-3").unwrap();
    entry.created("sb-1").unwrap();
    let whole = fs::read_to_string(&entry.path).unwrap();
    for end in 0..=whole.len() {
        fs::write(&entry.path, &whole[..end]).unwrap();
        fs::write(entry.output(), "sb-1\n").unwrap();
        let copy = state.path().join("runs/killed");
        kill(&journal, state.path());
        let found = dead(state.path()).unwrap();
        let killed = found.iter().find(|dead| dead.run == "killed");
        // What create printed tells the id, from the first whole line on.
        let first = whole.find('\n').unwrap();
        let ids: Vec<_> = killed.into_iter().flat_map(|dead| &dead.sandboxes).map(id_or_guess).collect();
        assert_eq!(ids, if end >= first { vec![Some("sb-1".to_owned())] } else { Vec::new() }, "{end}");
        drop(found);
        fs::remove_dir_all(copy).unwrap_or_default();
    }
}
