#!/usr/bin/env python3
"""Times `offload run` with remote sandboxes that take their time, against other programs in the same rounds.

    scripts/bench_remote.py --ours PROGRAM --peer PROGRAM --older PROGRAM --rounds N

A sandbox takes 2 s to be made, and a command in it 0.3 s beside what it does; 1,000 tests sleep, 0.5 s each
in the mean. The bound is the least wall time that these allow: 2.3 s and an equal share of all tests, or the
longest test. With `--scenarios known` a history says what tests take; with `unknown` (the default) nothing
does; with `slow` nothing does, and one create in fifty takes 20 s.

Own CPU is user and system time of the program's process alone, without what it starts. Ratios are medians of
the ratios in each round. The calls after a sandbox's last batch are those of the last round. The peer needs
rsync.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import timing

CREATE, EXEC, SLOW = 2.0, 0.3, 20.0
# A program that takes longer is ended.
DEADLINE = 150

CONFIG = """\
[offload]
max_parallel = {sandboxes}
sandbox_repo_root = "{root}"
[provider]
type = "default"
create_command = "sh {folder}/provider create"
exec_command = "sh {folder}/provider exec {{sandbox_id}} {{command}}"
destroy_command = "sh {folder}/provider destroy {{sandbox_id}}"
download_command = "sh {folder}/provider download {{sandbox_id}} {{paths}}"
[framework]
type = "default"
discover_command = "cat {folder}/ids # {{filters}}"
run_command = "sh {folder}/run {{result_file}} {{tests}}"
result_file = "result.xml"
test_id_format = "{{name}}"
[groups.all]
retry_count = 0
[report]
output_dir = "test-results"
[history]
path = "history.jsonl"
"""

PROVIDER = """\
cd {folder}
kind=$1; shift
case $kind in
create) n=0; while [ $n -lt {slowed} ] && ! mkdir "n/$n" 2>/dev/null; do n=$((n + 1)); done
    if [ $n -lt {slowed} ]; then sleep {slow}; else sleep {create}; fi
    mkdir -p "boxes/sb-$$"; echo "create sb-$$" >> calls; echo "sb-$$" ;;
exec) echo "exec $1" >> calls; sleep {exec}; export BOX=$1; cd "boxes/$1"; exec sh -c "$2" ;;
destroy) echo "destroy $1" >> calls ;;
download) echo "download $1" >> calls; cd "boxes/$1"; shift
    for pair; do local=${{pair#*:}}; case $local in /*) ;; *) local={folder}/$local ;; esac; cp "${{pair%%:*}}" "$local"; done ;;
esac
"""

# The milliseconds of a test are in its id, so that nothing but sh is needed to add them up; the report is
# written first, so that the shell can become the one process that sleeps.
RUNNER = """\
out=$1; shift
echo "batch $BOX" >> {folder}/calls
total=0
for id; do
    one=${{id##*_}}
    total=$((total + one))
    echo "<testcase classname=\\"\\" name=\\"$id\\" time=\\"$((one / 1000)).$((one / 100 % 10))$((one / 10 % 10))$((one % 10))\\"/>"
done > "$out.cases"
{{ echo '<testsuites><testsuite name="sleeping">'
while read -r line; do echo "$line"; done < "$out.cases"; echo '</testsuite></testsuites>'; }} > "$out"
exec sleep "$((total / 1000)).$((total / 100 % 10))$((total / 10 % 10))$((total % 10))"
"""


def times_of(tests, seed):
    """Seconds by test id, 0.5 in the mean."""
    chance = random.Random(seed)
    seconds = [chance.lognormvariate(0, 0.8) for _ in range(tests)]
    scale = 0.5 * tests / sum(seconds)
    milliseconds = [max(round(1000 * one * scale), 1) for one in seconds]
    return {f"test_{number:04}_{one}": one / 1000 for number, one in enumerate(milliseconds)}


def history(times):
    lines = []
    for test, seconds in sorted(times.items()):
        samples = [[f"run{number}", 1_790_000_000_000 + number * 60_000, seconds] for number in range(6)]
        value = {"n": 6, "f": 0, "last_run": "run5", "ok": samples, "fail": []}
        lines.append(json.dumps({"k": ["offload.toml", test], "v": value}))
    return "\n".join(lines) + "\n"


def last_calls(text):
    """How many sandboxes saw which calls after their last batch, as text."""
    calls = {}
    for line in text.splitlines():
        kind, sandbox = line.split()
        calls.setdefault(sandbox, []).append(kind)
    ends = Counter()
    for kinds in calls.values():
        last = max((place for place, kind in enumerate(kinds) if kind == "batch"), default=None)
        ends["no batch" if last is None else " ".join(kinds[last + 1 :]) or "nothing"] += 1
    return ", ".join(f"{kinds} ({count} times)" for kinds, count in ends.most_common())


def once(program, is_ours, scenario, sandboxes, times):
    """One run: what was measured, the last calls, and how many sandboxes were not destroyed."""
    # The peer leaves commands behind, which go on writing there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "n").mkdir()
        (folder / "boxes").mkdir()
        # Another runner names its result file relative to the root: there is one for each sandbox.
        root = folder if is_ours else "."
        (folder / "offload.toml").write_text(CONFIG.format(folder=folder, root=root, sandboxes=sandboxes))
        slowed = sandboxes // 50 if scenario == "slow" else 0
        provider = PROVIDER.format(folder=folder, create=CREATE, exec=EXEC, slow=SLOW, slowed=slowed)
        (folder / "provider").write_text(provider)
        (folder / "run").write_text(RUNNER.format(folder=folder))
        (folder / "ids").write_text("".join(f"{test}\n" for test in times))
        if scenario == "known":
            (folder / "history.jsonl").write_text(history(times))
        env = dict(os.environ, OFFLOAD_STATE_DIR=str(folder / "state"), CI="true")
        measured = timing.measure([program, "run"], folder, env, folder / "output", 0.1, DEADLINE)
        if measured.code:
            print((folder / "output").read_text()[-1500:], file=sys.stderr)
        log = folder / "calls"
        calls = log.read_text() if log.exists() else ""
        kinds = calls.split()
        return measured, last_calls(calls), kinds.count("create") - kinds.count("destroy")


def show(scenario, sandboxes, rows, bound):
    """Prints the figures of one scenario: a line a program, then the ratios."""
    figures = {name: [row[0] for row in of] for name, of in rows.items()}
    for name, of in rows.items():
        middle = timing.medians(figures[name])
        print(
            f"{scenario:8} {sandboxes:4} sandboxes  {name:5}  wall {middle.wall:6.2f} s ({middle.wall / bound:.3f} of the "
            f"bound)  own CPU {middle.cpu:5.2f} s  memory {middle.memory:5.1f} MiB  threads {middle.threads:4.0f}  "
            f"exit codes {middle.code}  not destroyed {sum(row[2] for row in of)}"
        )
        print(f"    after a sandbox's last batch: {of[-1][1]}")
    print(f"    {timing.ratios(figures, ['wall', 'cpu'])}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_programs(parser, 5)
    parser.add_argument("--sandboxes", type=int, nargs="+", default=[200])
    parser.add_argument("--scenarios", nargs="+", default=["unknown"], choices=["known", "unknown", "slow"])
    parser.add_argument("--tests", type=int, default=1000)
    arguments = parser.parse_args()
    programs = timing.programs(arguments)
    # The same tests in each round, so that there is one bound.
    times = times_of(arguments.tests, 0)
    for sandboxes in arguments.sandboxes:
        bound = CREATE + EXEC + max(sum(times.values()) / sandboxes, max(times.values()))
        for scenario in arguments.scenarios:
            rows = {name: [] for name in programs}
            for number in range(arguments.rounds):
                for name in timing.in_turn(programs, number):
                    rows[name].append(once(programs[name], name != "peer", scenario, sandboxes, times))
            show(scenario, sandboxes, rows, bound)


if __name__ == "__main__":
    main()
