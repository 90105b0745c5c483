#!/usr/bin/env python3
"""Times `offload run --parallel N` against the test tool itself, in turn, and prints ratios.

    scripts/bench.py --corpus DIR [NAME ...]     projects that scripts/corpus.py fetched
    scripts/bench.py --synthetic                 10,000 and 100,000 tests that do nothing
    scripts/bench.py --sleeping [SUITE ...]      tests that only sleep, planned with and without a history

Machines are noisy: runs are interleaved, the first round is not counted, and what is quoted is the
median of the ratios round by round. For pytest the tool runs alone and with xdist (`-n N`); for nextest
and vitest alone. With --peer PROGRAM another runner with the same configuration runs too, with --older
PROGRAM an older build of ours. Own CPU and memory are those of the program's process alone.

Sleeping tests show how well runs are planned: a run's ratio is its wall time over the least that its
sleeping times allow, which is the longest test or an equal share of all, whichever is more.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import timing

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

SLEEPING = """\
discover_command = "cat ids # {filters}"
run_command = "sh run.sh {result_file} {tests}"
result_file = "result.xml"
test_id_format = "{name}"
"""

# One awk and one sleep a batch: hardly any work of the machine beside the sleeping. The table `times`
# says how long each test takes in this run; `batches` gets a line a batch, before it sleeps.
SLEEPER = """\
awk 'BEGIN {
    while ((getline line < "times") > 0) { split(line, field, " "); seconds[field[1]] = field[2] }
    for (n = 2; n < ARGC; n++) {
        total += seconds[ARGV[n]]
        cases = cases sprintf("<testcase classname=\\"\\" name=\\"%s\\" time=\\"%s\\"/>\\n", ARGV[n], seconds[ARGV[n]])
    }
    print ARGC - 2, total >> "batches"; close("batches")
    system("sleep " total)
    print "<testsuites><testsuite name=\\"sleeping\\">\\n" cases "</testsuite></testsuites>" > ARGV[1]
}' "$@"
"""

HISTORY = """\
[history]
record_history = "always"
path = "history.jsonl"
"""

# Seconds that each sandbox sleeps if all have the same share, and tests for each sandbox.
SHARE, TESTS = 6.0, 20
NOISE = 0.2


def rounds(commands, count, folder):
    """Runs each command once a round; gives the figures of all rounds but the first."""
    figures = {name: [] for name in commands}
    for number in range(count + 1):
        for name in timing.in_turn(commands, number):
            words, env = commands[name]
            figure = timing.measure(words, folder, env, every=0.003)
            if number:
                figures[name].append(figure)
    return figures


def show(title, figures, compared):
    for name, rows in figures.items():
        middle = timing.medians(rows)
        print(
            f"{title:24} {name:10} wall {middle.wall:7.2f} s  own CPU {middle.cpu:5.2f} s  "
            f"own memory {middle.memory:6.1f} MiB  exit codes {middle.code}"
        )
    print(f"    {timing.ratios(figures, compared)}", flush=True)


def runs(arguments, parallel):
    """The commands that run the suite, by the names of the programs."""
    words = ["run", "--parallel", str(parallel)]
    return {name: ([path, *words], os.environ) for name, path in timing.programs(arguments).items()}


def synthetic(arguments):
    for tests in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            settings = SYNTHETIC.format(tests=tests)
            text = CONFIG.format(parallel=8, framework="default", command=settings)
            Path(folder, "offload.toml").write_text(text)
            Path(folder, "run.sh").write_text(RUNNER)
            figures = rounds(runs(arguments, 8), arguments.rounds, folder)
            show(f"{tests} tests", figures, ["wall", "cpu", "memory"])


def suite_lognormal(chance, tests):
    return [chance.lognormvariate(0, 1) for _ in range(tests)]


def suite_bimodal(chance, tests):
    return [20.0 if chance.random() < 0.1 else 1.0 for _ in range(tests)]


def suite_straggler(chance, tests):
    seconds = [chance.lognormvariate(0, 0.5) for _ in range(tests - 1)]
    machine = sum(seconds) / (tests / TESTS - 0.4)
    seconds.insert(chance.randrange(tests), 0.4 * machine)
    return seconds


SUITES = {"lognormal": suite_lognormal, "bimodal": suite_bimodal, "straggler": suite_straggler}


def base_times(suite, sandboxes, repetition):
    """Seconds by test id; in all `SHARE` for each sandbox."""
    seconds = SUITES[suite](random.Random(f"{suite} {repetition}"), TESTS * sandboxes)
    scale = SHARE * sandboxes / sum(seconds)
    return {f"test_{number:04}": one * scale for number, one in enumerate(seconds)}


def actual_times(base, run):
    """What the tests take in run number `run`: the same for all programs."""
    chance = random.Random(run)
    return {test: one * math.exp(chance.gauss(-NOISE * NOISE / 2, NOISE)) for test, one in base.items()}


class Sleeper:
    """A program in a folder of its own."""

    def __init__(self, program, folder, sandboxes, history):
        self.words, self.folder = [program, "run", "--parallel", str(sandboxes)], Path(folder)
        self.sandboxes = sandboxes
        self.folder.mkdir()
        text = CONFIG.format(parallel=sandboxes, framework="default", command=SLEEPING)
        (self.folder / "offload.toml").write_text(text + (HISTORY if history else ""))
        (self.folder / "run.sh").write_text(SLEEPER)

    def start(self, actual):
        (self.folder / "ids").write_text("".join(f"{test}\n" for test in actual))
        (self.folder / "times").write_text("".join(f"{test} {one:.4f}\n" for test, one in actual.items()))
        (self.folder / "batches").write_text("")
        self.bound = max(sum(actual.values()) / self.sandboxes, max(actual.values()))
        self.tests = len(actual)
        self.output = open(self.folder / "output", "wb")
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            self.words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT
        )

    def finish(self):
        """The ratio, the number of batches and how many tests ran again."""
        code = self.child.wait()
        wall = time.monotonic() - self.began
        self.output.close()
        if code:
            print(f"{self.words[0]}: exit code {code}\n{(self.folder / 'output').read_text()[-2000:]}", flush=True)
        sizes = [int(line.split()[0]) for line in (self.folder / "batches").read_text().splitlines()]
        return wall / self.bound, len(sizes), sum(sizes) - self.tests

    def run(self, actual):
        self.start(actual)
        return self.finish()


def sleeping_once(programs, suite, sandboxes, repetition):
    """Figures of one repetition: by stage, then by program."""
    base = base_times(suite, sandboxes, repetition)
    stages = {}
    with tempfile.TemporaryDirectory() as folder:

        def fresh(kind, history):
            return {
                name: Sleeper(program, Path(folder, f"{name}-{kind}"), sandboxes, history)
                for name, program in programs.items()
            }

        plain, kept = fresh("plain", False), fresh("kept", True)
        for run, stage in enumerate(["no history", "first", "second", "", "", "", "sixth"]):
            actual = actual_times(base, repetition * 100 + run)
            sleepers = plain if run == 0 else kept
            if stage:
                stages[stage] = {name: sleeper.run(actual) for name, sleeper in sleepers.items()}
            else:
                # Only to be remembered: side by side.
                for sleeper in sleepers.values():
                    sleeper.start(actual)
                for sleeper in sleepers.values():
                    sleeper.finish()
    return stages


def sleeping(arguments):
    programs = timing.programs(arguments)
    for suite in arguments.names or SUITES:
        for sandboxes in arguments.sandboxes:
            repetitions = [sleeping_once(programs, suite, sandboxes, number) for number in range(arguments.rounds)]
            for stage in repetitions[0]:
                line = f"{suite:10} {sandboxes:3} sandboxes  {stage:10}"
                for name in programs:
                    rows = [stages[stage][name] for stages in repetitions]
                    ratio, batches, again = (statistics.median(column) for column in zip(*rows))
                    line += f"  {name} {ratio:.3f} ({batches:.0f} batches, {again:.0f} tests again)"
                    if name != "ours":
                        pairs = [stages[stage] for stages in repetitions]
                        ratios = [pair["ours"][0] / pair[name][0] for pair in pairs]
                        line += f"  ours / {name}: {statistics.median(ratios):.3f}"
                print(line, flush=True)


def project(arguments, entry):
    framework, command = entry["framework"], entry.get("command", "")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "project")
        shutil.copytree(Path(arguments.corpus, entry["folder"]), work, symlinks=True)
        line = f"command = {json.dumps(command)}" if command else ""
        (work / "offload.toml").write_text(CONFIG.format(parallel=arguments.parallel, framework=framework, command=line))
        env = dict(os.environ)
        commands = runs(arguments, arguments.parallel)
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
        show(entry["name"], rounds(commands, arguments.rounds, work), ["wall"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_programs(parser, 5)
    parser.add_argument("--corpus", help="the folder that corpus.py filled")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--sleeping", action="store_true")
    parser.add_argument("--sandboxes", type=int, nargs="+", default=[8, 32], help="for --sleeping (default: 8 32)")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.synthetic:
        synthetic(arguments)
    if arguments.sleeping:
        sleeping(arguments)
    if arguments.corpus:
        entries = json.loads(Path(arguments.corpus, "corpus.json").read_text())
        for entry in entries:
            if not arguments.names or entry["name"] in arguments.names:
                project(arguments, entry)


if __name__ == "__main__":
    main()
