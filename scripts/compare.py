#!/usr/bin/env python3
"""Compares `offload run` with the test tool itself, test by test, on a project left as it is.

    scripts/compare.py --framework pytest PROJECT [--command "python -m pytest"]
    scripts/compare.py --corpus target/corpus [NAME ...]

The tool runs once, then `offload` at each `--parallel`, and xdist at the same width where it is known
(`--xdist`, and pytest in a corpus). A row a run says how many tests passed, failed, were skipped or failed
as expected, how many differ from the tool alone, and how long it took. Each test that differs follows,
with what xdist makes of it; one that comes out of xdist as it comes out of `offload` is named as such.
Files that do not load count as tests named by their files, and whether a run is green as one more. The
exit status is 1 when any run has a difference that xdist at its width does not have. Work is done on a
copy of the project.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

COMMANDS = {"pytest": "python -m pytest", "nextest": None, "vitest": "npx vitest"}
# Of several results under one id, the one furthest left counts.
STRENGTH = ["timeout", "crash", "not-run", "failed", "flaky", "xfailed", "skipped", "passed"]

# pytest's own report does not hold node ids, so they are taken where they are known.
PYTEST_PLUGIN = '''
import json, os

_results = []

def pytest_runtest_logreport(report):
    expected = hasattr(report, "wasxfail")
    if report.failed:
        outcome = "failed"
    elif report.skipped:
        outcome = "xfailed" if expected else "skipped"
    else:
        outcome = "passed"
    if type(report).__name__ == "SubtestReport" and outcome != "failed":
        return
    _results.append([report.nodeid, outcome])

def pytest_collectreport(report):
    if report.failed:
        _results.append([report.nodeid, "failed"])

def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):
        return
    with open(os.environ["COMPARE_RESULTS"], "w") as file:
        json.dump(_results, file)
'''

GREEN = "the run is green"

NEXTEST_CONFIG = '[profile.default.junit]\npath = "compare.xml"\n'


def merge(pairs):
    """One outcome an id."""
    found = {}
    for name, outcome in pairs:
        known = found.get(name, "passed")
        found[name] = min(known, outcome, key=STRENGTH.index)
    return found


def clean_environment():
    gone = ("CI", "PYTEST_ADDOPTS", "NO_COLOR", "FORCE_COLOR")
    return {key: value for key, value in os.environ.items() if key not in gone}


def execute(command, folder, log, environment=None):
    """Runs a command into a log file; gives its status and its seconds."""
    began = time.monotonic()
    with open(log, "wb") as sink:
        done = subprocess.run(
            command, cwd=folder, env=environment or clean_environment(),
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
        )
    return done.returncode, time.monotonic() - began


@dataclass
class Subject:
    """What to compare. `alone` are arguments that make the tool run in one process, `xdist` is xdist's folder."""

    name: str
    framework: str
    folder: Path
    command: str = None
    alone: str = ""
    xdist: Path = None


@dataclass
class Run:
    """What came of one run: outcomes by id, seconds, exit status."""

    outcomes: dict
    seconds: float
    status: int

    def all(self):
        """The outcomes, and whether the run was green as one more."""
        return {**self.outcomes, GREEN: "passed" if self.status == 0 else "failed"}


class Comparison:
    """One project, one framework, one working folder."""

    def __init__(self, subject, work):
        self.name, self.framework, self.work = subject.name, subject.framework, Path(work)
        self.command = subject.command or COMMANDS[subject.framework]
        self.alone, self.xdist_folder = shlex.split(subject.alone), subject.xdist
        self.project = self.work / "project"
        ignored = shutil.ignore_patterns("target", ".pytest_cache", "__pycache__", ".hypothesis")
        shutil.copytree(subject.folder, self.project, symlinks=True, ignore=ignored)
        modules = subject.folder.resolve().parent / "node_modules"
        if self.framework == "vitest" and modules.exists():
            (self.work / "node_modules").symlink_to(modules)

    def tool(self):
        """The tool itself, once everything is built and compiled."""
        return getattr(self, self.framework)()

    def pytest(self):
        self.by_pytest([*self.alone, "--collect-only", "-q"], "warm")
        return self.by_pytest(self.alone, "tool")

    def xdist(self, width):
        """pytest with as many processes of xdist, if xdist is here."""
        if self.framework != "pytest" or not self.xdist_folder:
            return None
        return self.by_pytest(["-n", str(width)], f"xdist-{width}")

    def by_pytest(self, arguments, name):
        """pytest with these arguments besides its own, and our plugin for the outcomes."""
        (self.work / "compare_plugin.py").write_text(PYTEST_PLUGIN)
        results = self.work / f"{name}.json"
        environment = {**clean_environment(), "COMPARE_RESULTS": str(results)}
        folders = [self.work, *([self.xdist_folder] if name.startswith("xdist") else [])]
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [*map(str, folders), before]))
        words = [*shlex.split(self.command), "-p", "compare_plugin", *arguments]
        status, seconds = execute(words, self.project, self.work / f"{name}.log", environment)
        pairs = json.loads(results.read_text()) if results.exists() else []
        return Run(merge(pairs), seconds, status)

    def nextest(self):
        config = self.work / "nextest.toml"
        config.write_text(NEXTEST_CONFIG)
        words = ["cargo", "nextest", "run", "--tool-config-file", f"compare:{config}"]
        status, _ = execute([*words, "--no-run"], self.project, self.work / "warm.log")
        if status:
            sys.exit(f"compare: {self.name} cannot be built:\n{(self.work / 'warm.log').read_text()}")
        status, seconds = execute([*words, "--no-fail-fast"], self.project, self.work / "tool.log")
        (report,) = self.project.glob("target/nextest/*/compare.xml")
        cases = ElementTree.parse(report).iter("testcase")
        pairs = ((f"{case.get('classname')} {case.get('name')}", outcome_of(case)) for case in cases)
        return Run(merge(pairs), seconds, status)

    def vitest(self):
        results = self.work / "tool.json"
        words = [*shlex.split(self.command), "run", "--reporter=json", f"--outputFile={results}"]
        status, seconds = execute(words, self.project, self.work / "tool.log")
        words_of = {"passed": "passed", "failed": "failed"}
        pairs, seen = [], Counter()
        for suite in json.loads(results.read_text())["testResults"]:
            file = os.path.relpath(suite["name"], self.project.resolve())
            for case in suite["assertionResults"]:
                name = " > ".join([file, *case["ancestorTitles"], case["title"]])
                seen[name] += 1
                twin = f" ({seen[name]})" if seen[name] > 1 else ""
                pairs.append((name + twin, words_of.get(case["status"], "skipped")))
            if suite["status"] == "failed" and not suite["assertionResults"]:
                pairs.append((file, "failed"))
        return Run(merge(pairs), seconds, status)

    def config(self, output):
        """A configuration as somebody new would write it."""
        command = f"command = {json.dumps(self.command)}\n" if self.command else ""
        return (
            '[provider]\ntype = "local"\n\n'
            f'[framework]\ntype = "{self.framework}"\n{command}\n'
            f"[groups.all]\nretry_count = 0\n\n[report]\noutput_dir = {json.dumps(str(output))}\n"
        )

    def offload(self, program, parallel):
        """`offload`, with a configuration of its own."""
        output = self.work / f"output-{parallel}"
        config = self.work / f"offload-{parallel}.toml"
        config.write_text(self.config(output))
        words = [str(program), "-c", str(config), "run", "--parallel", str(parallel)]
        status, seconds = execute(words, self.project, self.work / f"offload-{parallel}.log")
        report = output / "junit.xml"
        if not report.exists():
            return Run({}, seconds, status)
        cases = ElementTree.parse(report).iter("testcase")
        return Run(merge((case.get("name"), outcome_of(case)) for case in cases), seconds, status)


def outcome_of(case):
    """The outcome that a `<testcase>` tells."""
    error = case.find("error")
    if error is not None:
        kind = error.get("type") or ""
        return kind if kind in STRENGTH else "failed"
    if case.find("failure") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is not None:
        return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"
    if case.find("flakyFailure") is not None or case.find("flakyError") is not None:
        return "flaky"
    return "passed"


def counts(outcomes):
    found = Counter(outcomes.values())
    words = [f"{found[word]} {word}" for word in reversed(STRENGTH) if found[word]]
    return ", ".join(words) or "nothing"


def differences(tool, ours, xdist):
    """For each test that is not the same on both sides a line, and whether xdist makes the same of it."""
    left, right = tool.all(), ours.all()
    beside = xdist.all() if xdist else {}
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name, "absent"), right.get(name, "absent")
        if one == other:
            continue
        line = f"{name}: {one} by the tool, {other} by offload"
        if xdist:
            third = beside.get(name, "absent")
            line += f", {third} by xdist" + (" too" if third == other else "")
        yield line, bool(xdist) and third == other


def row(title, column, run, alone):
    times = f"{run.seconds / alone:5.2f}x" if alone else "      "
    return (
        f"{title:19} {column:>8} {run.seconds:8.1f} s  {times} {len(run.outcomes):6} tests  "
        f"{counts(run.outcomes)}; exit {run.status}"
    )


def compare(comparison, program, widths, most):
    """Prints the rows of one project; gives how many tests differed in all and not by xdist."""
    tool = comparison.tool()
    name, alone = comparison.name, tool.seconds
    print(row(name, "tool", tool, None), flush=True)
    total = 0 if tool.outcomes else 1
    for parallel in widths:
        xdist = comparison.xdist(parallel)
        if xdist:
            apart = len(list(differences(tool, xdist, None)))
            print(f"{row(name, f'xdist {parallel}', xdist, alone)}; {apart} differ", flush=True)
        ours = comparison.offload(program, parallel)
        found = list(differences(tool, ours, xdist))
        own = sum(not shared for _, shared in found)
        total += own
        shared = f", {len(found) - own} of them by xdist too" if xdist and found else ""
        print(f"{row(name, parallel, ours, alone)}; {len(found)} differ{shared}", flush=True)
        for line, _ in found[:most]:
            print(f"    {line}", flush=True)
        if most is not None and len(found) > most:
            print(f"    … and {len(found) - most} more", flush=True)
    return total


def chosen(options):
    """What to compare."""
    if not options.corpus:
        if not options.framework or len(options.names) != 1:
            sys.exit("compare: give --framework and one project folder, or --corpus")
        folder = Path(options.names[0])
        xdist = options.xdist and options.xdist.resolve()
        return [Subject(folder.resolve().name, options.framework, folder, options.command, xdist=xdist)]
    listed = json.loads((options.corpus / "corpus.json").read_text())
    known = [one for one in listed if (options.corpus / one["folder"]).exists()]
    unknown = set(options.names) - {one["name"] for one in known}
    if unknown:
        sys.exit(f"compare: not in the corpus: {', '.join(sorted(unknown))}")
    return [subject(options.corpus, one) for one in known if not options.names or one["name"] in options.names]


def subject(corpus, entry):
    """One entry of `corpus.json`."""
    xdist = entry.get("xdist") and (corpus / entry["xdist"]).resolve()
    folder, alone = corpus / entry["folder"], entry.get("alone", "")
    return Subject(entry["name"], entry["framework"], folder, entry["command"], alone, xdist)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offload", type=Path, default=Path("target/release/offload"), help="the program to try")
    parser.add_argument("--parallel", default="1,2,4", help="sandboxes of each run (default: 1,2,4)")
    parser.add_argument("--framework", choices=COMMANDS)
    parser.add_argument("--command", help="the command in front of the tool's arguments")
    parser.add_argument("--corpus", type=Path, help="the folder that corpus.py filled")
    parser.add_argument("--xdist", type=Path, help="a folder with xdist: compare with it, too (pytest)")
    parser.add_argument("--show", type=int, help="differences printed a run (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep the working folders and say where they are")
    parser.add_argument("names", nargs="*", help="a project folder, or names in the corpus")
    options = parser.parse_args()
    program = options.offload.resolve()
    if not program.exists():
        sys.exit(f"compare: there is no `{program}`; build it first or give --offload")
    widths = [int(word) for word in options.parallel.split(",")]
    total = 0
    for one in chosen(options):
        work = Path(tempfile.mkdtemp(prefix="offload-compare-")).resolve()
        try:
            total += compare(Comparison(one, work), program, widths, options.show)
        finally:
            if options.keep:
                print(f"    kept in {work}", flush=True)
            else:
                shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
