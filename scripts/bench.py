#!/usr/bin/env python3
"""Times `offload run --parallel N` against the test tool itself, in turn, and prints ratios.

    scripts/bench.py --corpus DIR [NAME ...]     projects that scripts/corpus.py fetched
    scripts/bench.py --synthetic                 10,000 and 100,000 tests that do nothing

Machines are noisy: runs are interleaved, the first round is not counted, and what is quoted is the
median of the ratios round by round. For pytest the tool runs alone and with xdist (`-n N`); for nextest
and vitest alone. With --peer PROGRAM another runner with the same configuration runs too.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """\
[offload]
max_parallel = {parallel}
sandbox_repo_root = "."
[provider]
type = "local"
[framework]
type = "{framework}"
{command}
[groups.all]
retry_count = 0
[report]
output_dir = "test-results"
"""

SYNTHETIC = """\
discover_command = "seq -f 'test_%.0f' 1 {tests} # {{filters}}"
run_command = "sh run.sh {{result_file}} {{tests}}"
result_file = "result.xml"
test_id_format = "{{name}}"
"""

RUNNER = """\
out=$1; shift
{ echo '<testsuite>'; printf '<testcase name="%s" time="0"/>\\n' "$@"; echo '</testsuite>'; } > "$out"
"""


def timed(words, folder, env):
    """The wall seconds of a command, its own CPU seconds and its own peak memory in MiB."""
    start = time.monotonic()
    with open(os.devnull, "w") as nowhere:
        child = subprocess.Popen(words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=nowhere, stderr=nowhere)
    ticks, cpu, peak = os.sysconf("SC_CLK_TCK"), 0.0, 0
    while child.poll() is None:
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
            cpu = (int(fields[11]) + int(fields[12])) / ticks
            for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    peak = int(line.split()[1])
        except (OSError, IndexError):
            pass
        time.sleep(0.003)
    return time.monotonic() - start, cpu, peak / 1024


def rounds(commands, count, folder):
    """Runs each command once a round; gives the figures of all rounds but the first."""
    figures = {name: [] for name in commands}
    for number in range(count + 1):
        for name, (words, env) in commands.items():
            figure = timed(words, folder, env)
            if number:
                figures[name].append(figure)
    return figures


def show(title, figures, own_only):
    for name, rows in figures.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rows))
        line = f"{title:24} {name:10} wall {wall:7.2f} s"
        if own_only:
            line += f"  own CPU {cpu:5.2f} s  own memory {peak:6.1f} MiB"
        elif name != "offload":
            ratios = [ours[0] / theirs[0] for ours, theirs in zip(figures["offload"], rows)]
            line += f"  offload / {name}: {statistics.median(ratios):.2f}"
        print(line, flush=True)


def offload(arguments):
    return [str(Path(arguments.offload).resolve()), "run", "--parallel", str(arguments.parallel)]


def synthetic(arguments):
    arguments.parallel = 8
    for tests in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            settings = SYNTHETIC.format(tests=tests)
            text = CONFIG.format(parallel=8, framework="default", command=settings)
            Path(folder, "offload.toml").write_text(text)
            Path(folder, "run.sh").write_text(RUNNER)
            commands = {"offload": (offload(arguments), os.environ)}
            if arguments.peer:
                commands["peer"] = ([arguments.peer, "run", "--parallel", "8"], os.environ)
            show(f"{tests} tests", rounds(commands, arguments.runs, folder), True)


def project(arguments, entry):
    framework, command = entry["framework"], entry.get("command", "")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "project")
        shutil.copytree(Path(arguments.corpus, entry["folder"]), work, symlinks=True)
        line = f"command = {json.dumps(command)}" if command else ""
        (work / "offload.toml").write_text(CONFIG.format(parallel=arguments.parallel, framework=framework, command=line))
        env = dict(os.environ)
        commands = {"offload": (offload(arguments), env)}
        if framework == "pytest":
            commands["pytest"] = (["sh", "-c", f"{command} -q"], env)
            xdist = Path(arguments.corpus, "xdist")
            if xdist.exists():
                wider = dict(env, PYTHONPATH=str(xdist.resolve()))
                commands["xdist"] = (["sh", "-c", f"{command} -q -n {arguments.parallel}"], wider)
        elif framework == "nextest":
            commands["nextest"] = (["cargo", "nextest", "run"], env)
        else:
            commands["vitest"] = (["sh", "-c", f"{command or 'npx vitest'} --run"], env)
        if arguments.peer:
            commands["peer"] = ([arguments.peer, "run", "--parallel", str(arguments.parallel)], env)
        show(entry["name"], rounds(commands, arguments.runs, work), False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offload", default="target/release/offload")
    parser.add_argument("--peer", help="another runner to time in the same rounds")
    parser.add_argument("--corpus", help="the folder that corpus.py filled")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if not Path(arguments.offload).exists():
        sys.exit(f"{arguments.offload} is missing: cargo build --release")
    if arguments.synthetic:
        synthetic(arguments)
    if arguments.corpus:
        entries = json.loads(Path(arguments.corpus, "corpus.json").read_text())
        for entry in entries:
            if not arguments.names or entry["name"] in arguments.names:
                project(arguments, entry)


if __name__ == "__main__":
    main()
