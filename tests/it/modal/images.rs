//! What images are made of.

use serde_json::Value;

use super::{committed, modal, nothing_left};

/// The instructions of each layer that was asked for.
fn layers(calls: &[Value]) -> Vec<String> {
    let joined = |call: &Value| {
        let lines = call["dockerfile_commands"].as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
    };
    calls.iter().map(joined).collect()
}

#[test]
fn a_dockerfile_of_one_stage_has_a_layer_for_each_step() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let dockerfile = "# comment\nFROM python:3.12\nARG NAME=x\nENV A=1 \\\n    B=2\nRUN echo $NAME $A $B > /made\n\
                      COPY data/a \\\n  # why not\n  data/b \\\n  /copied/\nWORKDIR /app\nRUN test \"$(cat /made)\" = 'x 1 2' && \\\n    test -f /copied/b \
                      && test \"$NAME\" = x\nENV LAST=yes\n";
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let check = "[ \"$LAST$A$B\" = yes12 ] && [ ! -e data/skipped ] && [ -e data/a ] || exit 9\n";
    let project = project
        .file("Dockerfile", dockerfile)
        .file("data/a", "1")
        .file("data/b", "1")
        .file("data/skipped", "1")
        .file(".dockerignore", "# what is not needed\ndata/skipped\n")
        .file("runner", &format!("{check}{runner}"));
    let project = committed(project);
    project.offload(&["run"]).expect_code(0);
    let made = layers(&emulator.calls(&["ImageGetOrCreate"]));
    let with = |word: &str| made.iter().filter(|layer| layer.contains(word)).count();
    assert_eq!((with("RUN echo"), with("COPY data/a"), with("RUN test")), (1, 1, 1), "{made:?}");
    assert!(!made.iter().any(|layer| layer.contains("RUN echo") && layer.contains("RUN test")), "{made:?}");
    // A step that changes leaves those before it as they are.
    let project = project.file("Dockerfile", &dockerfile.replace("LAST=yes", "LAST=yes MORE=1"));
    let before = emulator.calls(&["ImageGetOrCreate"]).len();
    project.offload(&["run"]).expect_code(0);
    let calls = emulator.calls(&["ImageGetOrCreate"]).split_off(before);
    let built: Vec<_> = calls.iter().filter(|call| call["cache_hit"] == false).cloned().collect();
    assert!(!layers(&built).iter().any(|layer| layer.contains("RUN echo")), "{built:?}");
    nothing_left(&emulator, &project);
}

#[test]
fn what_a_dockerfile_copies_and_ignores_asks_for_another_image_when_it_changes() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let check = "[ \"$(cat /opt/copied)\" = \"$(cat expected)\" ] && [ -e data/kept ] || exit 9\n";
    let project = project
        .file("Dockerfile", "FROM python:3.12\nCOPY copied \\\n  /opt/copied\n")
        .file("Dockerfile.dockerignore", "*\n!/data/\n!copied\n!runner\n!expected\n")
        .file("copied", "one")
        .file("expected", "one")
        .file("data/kept", "")
        .file("runner", &format!("{check}{runner}"));
    let project = committed(project);
    project.offload(&["run"]).expect_code(0);
    let project = project.file("copied", "two").file("expected", "two");
    project.offload(&["run"]).expect_code(0);
    let project = project.file("Dockerfile.dockerignore", "data\n");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("exit code 9"), "{}", outcome.stdout);
    nothing_left(&emulator, &project);
}

#[test]
fn links_and_programs_come_as_they_are() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let check = "[ \"$(readlink 'deep er/directory')\" = ../real ] && [ -f 'deep er/directory/x' ] && \
                 [ \"$(readlink file)\" = real/x ] && [ \"$(readlink none)\" = /nowhere/at/all ] && [ -x real/x ] || exit 9\n";
    let project = project.executable("real/x", "1").file("runner", &format!("{check}{runner}"));
    std::fs::create_dir(project.path().join("deep er")).unwrap();
    for (target, link) in [("../real", "deep er/directory"), ("real/x", "file"), ("/nowhere/at/all", "none")]
    {
        std::os::unix::fs::symlink(target, project.path().join(link)).unwrap();
    }
    let project = committed(project);
    project.offload(&["run"]).expect_code(0);
    nothing_left(&emulator, &project);
}

#[test]
fn a_dockerfile_of_several_stages_goes_whole() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let dockerfile = "FROM debian:12 AS build\nRUN echo made > /made\nFROM python:3.12\n\
                      COPY --from=build /made /taken\nRUN cat /taken\n";
    let project = project.file("Dockerfile", dockerfile);
    project.offload(&["run"]).expect_code(0);
    let made = layers(&emulator.calls(&["ImageGetOrCreate"]));
    assert!(made.iter().any(|layer| layer.contains("AS build") && layer.contains("RUN cat")), "{made:?}");
    nothing_left(&emulator, &project);
}

#[test]
fn without_a_dockerfile_there_is_python_with_pytest_and_what_is_copied() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "copy_dirs = [\"data:/data\"]", "")
    else {
        return;
    };
    let config = std::fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let config = config.replace("dockerfile = \"Dockerfile\"\n", "").replace(
        "max_parallel = 3",
        "max_parallel = 3\nsandbox_init_cmd = '''\necho \"two lines\" > made\ncat runner /data/a > /dev/null'''",
    );
    let project = project
        .config(&config)
        .file("data/a", "1")
        .file("runner", &format!("grep -q 'two lines' made && [ -f /data/a ] || exit 9\n{runner}"));
    project.offload(&["run"]).expect_code(0);
    let made = layers(&emulator.calls(&["ImageGetOrCreate"]));
    assert!(made.iter().any(|layer| layer.contains("pip install pytest")), "{made:?}");
    nothing_left(&emulator, &project);
}

#[test]
fn a_command_runs_after_the_difference_and_sees_the_patch() {
    let rest = "post_patch_cmd = \"grep -q '+two' $OFFLOAD_PATCH_FILE && cp value derived\"";
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", rest) else { return };
    let project = committed(project.file("value", "one\n"));
    project.offload(&["run"]).expect_code(0);
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project
        .file("value", "two\n")
        .file("runner", &format!("[ \"$(cat derived)\" = two ] || exit 9\n{runner}"));
    project.offload(&["run"]).expect_code(0);
    nothing_left(&emulator, &project);
}
