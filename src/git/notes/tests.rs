//! Claims about notes, with real repositories.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::cancel::Cancel;

/// Runs git for a test.
fn git(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(words).current_dir(directory);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A bare remote, and a clone with one commit that is there, too.
fn with_remote(directory: &Path) {
    git(directory, &["init", "-q", "--bare", "-b", "main", "bare"]);
    git(directory, &["clone", "-q", "bare", "one"]);
    commit(&directory.join("one"));
    git(&directory.join("one"), &["push", "-q", "origin", "HEAD:main"]);
}

fn commit(directory: &Path) -> String {
    git(directory, &["commit", "-q", "--allow-empty", "-m", "x"]);
    git(directory, &["rev-parse", "HEAD"])
}

fn open(directory: &Path, scratch: &Path) -> Repository {
    Repository::find(directory, scratch, &Cancel::new()).unwrap()
}

fn note(key: &str, image: &str, at: u64) -> ImageNote {
    ImageNote { key: key.into(), image: image.into(), at }
}

/// All lines of all notes.
fn lines(directory: &Path) -> Vec<String> {
    let list = git(directory, &["notes", "--ref=offload-images", "list"]);
    let notes = list.lines().filter_map(|line| line.split_once(' '));
    notes
        .flat_map(|(note, _)| {
            git(directory, &["cat-file", "blob", note]).lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_nearest_commit_and_the_newest_image_count() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q", "repo"]);
    let path = directory.path().join("repo");
    let [old, new] = [commit(&path), commit(&path)];
    let repository = open(&path, directory.path());
    let notes = Notes::new(&repository);
    let commits = repository.ancestors(10).unwrap();
    assert_eq!(commits, [new.clone(), old.clone()]);
    assert_eq!(notes.find(&commits, "k").unwrap(), None);
    // Settings of a remote that has no place.
    git(&path, &["config", "remote.origin.fetch", "+refs/notes/*:refs/notes/*"]);
    assert!(!notes.fetch().unwrap());
    git(&path, &["notes", "--ref=offload-images", "add", "-m", "a line of others", &old]);
    assert!(!notes.record(&old, &note("k", "first", 1), None).unwrap());
    notes.record(&old, &note("other", "x", 1), None).unwrap();
    assert_eq!(notes.find(&commits, "k").unwrap(), Some((old.clone(), "first".into())));
    notes.record(&old, &note("k", "second", 2), None).unwrap();
    assert_eq!(notes.find(&commits, "k").unwrap(), Some((old.clone(), "second".into())));
    notes.record(&new, &note("k", "third", 3), None).unwrap();
    assert_eq!(notes.find(&commits, "k").unwrap(), Some((new, "third".into())));
    let all = lines(&path);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.contains(&"a line of others".to_owned()));
    assert_eq!(git(&path, &["for-each-ref", "--format=%(refname)", "refs/notes"]), REF);
}

#[test]
fn ten_clones_of_one_remote_keep_ten_notes() {
    let directory = tempfile::tempdir().unwrap();
    with_remote(directory.path());
    for number in 0..10 {
        git(directory.path(), &["clone", "-q", "bare", &format!("clone-{number}")]);
    }
    let config = std::fs::read(directory.path().join("clone-0/.git/config")).unwrap();
    std::thread::scope(|scope| {
        for number in 0..10 {
            let directory = directory.path();
            scope.spawn(move || {
                let repository = open(&directory.join(format!("clone-{number}")), directory);
                let head = repository.head().unwrap().unwrap();
                let key = format!("key-{number}");
                assert!(Notes::new(&repository).record(&head, &note(&key, "im", 1), None).unwrap());
            });
        }
    });
    assert_eq!(lines(&directory.path().join("bare")).len(), 10);
    assert_eq!(std::fs::read(directory.path().join("clone-0/.git/config")).unwrap(), config);
    let repository = open(&directory.path().join("one"), directory.path());
    let notes = Notes::new(&repository);
    assert!(notes.fetch().unwrap());
    let commits = repository.ancestors(10).unwrap();
    assert!((0..10).all(|number| notes.find(&commits, &format!("key-{number}")).unwrap().is_some()));
}

#[test]
fn ten_at_once_in_one_clone_keep_ten_notes() {
    let directory = tempfile::tempdir().unwrap();
    with_remote(directory.path());
    std::thread::scope(|scope| {
        for number in 0..10 {
            let directory = directory.path();
            scope.spawn(move || {
                let repository = open(&directory.join("one"), directory);
                let head = repository.head().unwrap().unwrap();
                Notes::new(&repository)
                    .record(&head, &note(&format!("key-{number}"), "im", 1), None)
                    .unwrap();
            });
        }
    });
    assert_eq!(lines(&directory.path().join("one")).len(), 10);
    assert_eq!(lines(&directory.path().join("bare")).len(), 10);
    let refs = git(&directory.path().join("one"), &["for-each-ref", "--format=%(refname)", "refs/notes"]);
    assert_eq!(refs, REF);
}

#[test]
fn a_remote_that_is_gone_is_told_and_the_note_is_kept_here() {
    let directory = tempfile::tempdir().unwrap();
    with_remote(directory.path());
    std::fs::remove_dir_all(directory.path().join("bare")).unwrap();
    let repository = open(&directory.path().join("one"), directory.path());
    let notes = Notes::new(&repository);
    let error = format!("{:#}", notes.fetch().unwrap_err());
    assert!(error.contains("cannot fetch the image notes from `origin`"), "{error}");
    let head = repository.head().unwrap().unwrap();
    assert!(notes.record(&head, &note("k", "im", 1), None).is_err());
    assert!(notes.find(&[head], "k").unwrap().is_some());
}

#[test]
fn a_remote_whose_hook_refuses_notes_is_asked_once() {
    let directory = tempfile::tempdir().unwrap();
    with_remote(directory.path());
    let hook = directory.path().join("bare/hooks/pre-receive");
    let text = "#!/bin/sh\necho asked >> hook-log\necho 'notes are not allowed; fetch first' >&2\nexit 1\n";
    std::fs::write(&hook, text).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let repository = open(&directory.path().join("one"), directory.path());
    let head = repository.head().unwrap().unwrap();
    let error =
        format!("{:#}", Notes::new(&repository).record(&head, &note("k", "im", 1), None).unwrap_err());
    assert!(error.contains("cannot send the image notes") && error.contains("not allowed"), "{error}");
    assert_eq!(std::fs::read_to_string(directory.path().join("bare/hook-log")).unwrap(), "asked\n");
}

#[test]
fn only_a_ref_that_others_moved_is_a_race() {
    for race in [
        " ! [rejected]        a -> a (fetch first)",
        " ! [rejected]        a -> a (non-fast-forward)",
        " ! [remote rejected] a -> a (cannot lock ref 'a': is at 1 but expected 2)",
        " ! [remote rejected] a -> a (failed to update ref)",
        " ! [remote rejected] a -> a (incorrect old value provided)",
        " ! [rejected]        a -> a (stale info)",
    ] {
        assert!(is_race(&format!("To bare\n{race}\nerror: failed to push some refs\n")), "{race}");
    }
    for refusal in [
        " ! [remote rejected] a -> a (pre-receive hook declined)",
        " ! [remote rejected] a -> a (hook declined)",
        " ! [remote rejected] a -> a (deny updating a hidden ref)",
        "remote: [rejected] by policy: fetch first",
        "fatal: unable to access 'x': Could not resolve host",
    ] {
        assert!(!is_race(&format!("To bare\n{refusal}\nerror: failed to push some refs\n")), "{refusal}");
    }
}

#[test]
fn a_commit_elsewhere_serves_if_it_is_known_here_the_newest_image_first() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q", "repo"]);
    let path = directory.path().join("repo");
    let repository = open(&path, directory.path());
    let notes = Notes::new(&repository);
    assert_eq!(notes.find_elsewhere("k").unwrap(), None);
    let mut amended = vec![commit(&path)];
    for number in 1..4 {
        git(&path, &["commit", "-q", "--allow-empty", "--amend", "-m", &number.to_string()]);
        amended.push(git(&path, &["rev-parse", "HEAD"]));
    }
    for (commit, at) in amended.iter().zip([1, 3, 2]) {
        notes.record(commit, &note("k", &format!("im-{at}"), at), None).unwrap();
    }
    notes.record(&amended[2], &note("other", "im", 9), None).unwrap();
    let gone = "1234567890123456789012345678901234567890";
    let text = serde_json::to_string(&note("k", "gone", 10)).unwrap();
    let file = directory.path().join("text");
    std::fs::write(&file, text).unwrap();
    // Others have noted a commit that was never fetched: git itself writes no such note.
    let blob = git(&path, &["hash-object", "-w", &file.to_string_lossy()]);
    let index = directory.path().join("index");
    let plumbing = |words: &[&str]| {
        let call =
            Call { env: vec![("GIT_INDEX_FILE".into(), index.display().to_string())], ..Call::new(words) };
        String::from_utf8(repository.ask(&call).unwrap()).unwrap().trim().to_owned()
    };
    plumbing(&["read-tree", REF]);
    plumbing(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{gone}")]);
    let tree = plumbing(&["write-tree"]);
    let commit = plumbing(&["commit-tree", "-p", REF, "-m", "x", &tree]);
    plumbing(&["update-ref", REF, &commit]);
    assert!(git(&path, &["notes", "--ref=offload-images", "list"]).contains(gone));
    assert_eq!(notes.find(&repository.ancestors(10).unwrap(), "k").unwrap(), None);
    assert_eq!(notes.find_elsewhere("k").unwrap(), Some((amended[1].clone(), "im-3".into())));
}

#[test]
fn what_a_killed_run_left_is_removed_after_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q", "repo"]);
    let path = directory.path().join("repo");
    let head = commit(&path);
    let repository = open(&path, directory.path());
    let notes = Notes::new(&repository);
    let name = notes.private("copy").name.clone();
    let now = name.split('-').nth(2).unwrap();
    let ago = |seconds: u64| name.replace(now, &(now.parse::<u64>().unwrap() - seconds).to_string());
    let (young, old, others) = (ago(3000), ago(4000), "refs/notes/offload-copy-of-mine".to_owned());
    for name in [&young, &old, &others] {
        git(&path, &["update-ref", name, &head]);
    }
    notes.record(&head, &note("k", "im", 1), None).unwrap();
    let refs = git(&path, &["for-each-ref", "--format=%(refname)", "refs/notes"]);
    let mut expected = [young.as_str(), &others, REF];
    expected.sort_unstable();
    assert_eq!(refs.lines().collect::<Vec<_>>(), expected);
}
