#!/usr/bin/env python3
"""Times `offload run` with remote sandboxes that take their time, against another runner in turn.

    scripts/bench_remote.py [--peer PROGRAM] [--sandboxes 50 200] [--scenarios known unknown slow]

A sandbox takes 2 s to be made and a command in it 0.3 s beside what it does; 1,000 tests sleep, 0.5 s each
in the mean. The ratio is the wall time of the whole program over the least that these times allow: 2.3 s
and an equal share of all tests, or the longest test. `known`: a history tells what tests take; `unknown`:
nothing does; `slow`: nothing does, and one create in fifty takes 20 s.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
exec) sleep {exec}; cd "boxes/$1"; exec sh -c "$2" ;;
destroy) echo "destroy $1" >> calls ;;
download) cd "boxes/$1"; shift
    for pair; do local=${{pair#*:}}; case $local in /*) ;; *) local={folder}/$local ;; esac; cp "${{pair%%:*}}" "$local"; done ;;
esac
"""

# The milliseconds of a test are in its id, so that nothing but sh is needed to add them up; the report is
# written first, so that the shell can become the one process that sleeps.
RUNNER = """\
out=$1; shift
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


def processes():
    return sum(name.isdigit() for name in os.listdir("/proc"))


def status(pid):
    """Peak resident memory in MiB, and threads."""
    fields = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            fields[key] = value.split()
    except OSError:
        return 0, 0
    return int(fields.get("VmHWM", ["0"])[0]) / 1024, int(fields.get("Threads", ["0"])[0])


def once(program, is_ours, scenario, sandboxes, times):
    """The figures of one run: ratio, exit code, creates, destroys, memory, threads, processes."""
    with tempfile.TemporaryDirectory() as name:
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
        before, began = processes(), time.monotonic()
        output = open(folder / "output", "wb")
        child = subprocess.Popen(
            [program, "run"], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=dict(os.environ, OFFLOAD_STATE_DIR=str(folder / "state"), CI="true"),
        )
        memory = threads = most = 0
        while child.poll() is None:
            if time.monotonic() - began > DEADLINE:
                child.terminate()
                child.wait()
            peak, now = status(child.pid)
            memory, threads, most = max(memory, peak), max(threads, now), max(most, processes() - before)
            time.sleep(0.1)
        wall = time.monotonic() - began
        output.close()
        if child.returncode:
            print((folder / "output").read_text()[-1500:], file=sys.stderr)
        calls = (folder / "calls").read_text().split() if (folder / "calls").exists() else []
        bound = CREATE + EXEC + max(sum(times.values()) / sandboxes, max(times.values()))
        return wall / bound, child.returncode, calls.count("create"), calls.count("destroy"), memory, threads, most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offload", default="target/release/offload")
    parser.add_argument("--peer", help="another runner to time in the same rounds")
    parser.add_argument("--sandboxes", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--scenarios", nargs="+", default=["known", "unknown", "slow"])
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    programs = {"offload": str(Path(arguments.offload).resolve())}
    if arguments.peer:
        programs["peer"] = str(Path(arguments.peer).resolve())
    for sandboxes in arguments.sandboxes:
        for scenario in arguments.scenarios:
            rows = {name: [] for name in programs}
            for seed in range(arguments.runs):
                for name, program in programs.items():
                    row = once(program, name == "offload", scenario, sandboxes, times_of(arguments.tests, seed))
                    rows[name].append(row)
            for name, figures in rows.items():
                ratio, _, _, _, memory, threads, most = (statistics.median(column) for column in zip(*figures))
                codes = {row[1] for row in figures}
                leaked = sum(row[2] - row[3] for row in figures)
                print(
                    f"{scenario:8} {sandboxes:4} sandboxes  {name:8} ratio {ratio:.3f}  memory {memory:5.1f} MiB  "
                    f"threads {threads:4.0f}  processes {most:5.0f}  exit codes {codes}  not destroyed {leaked}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
