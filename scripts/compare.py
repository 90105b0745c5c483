#!/usr/bin/env python3
"""Compares `offload run` with the test tool itself, test by test, on a project left as it is.

    scripts/compare.py --framework pytest PROJECT [--command "python -m pytest"]
    scripts/compare.py --corpus target/corpus [NAME ...]

The tool runs once, then `offload` at each `--parallel`. A row a run says how many tests passed, failed,
were skipped or failed as expected on both sides, how many differ, and how long both took. The exit
status is 1 when any test differs in any run. Work is done on a copy of the project.
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

def pytest_sessionfinish(session):
    with open(os.environ["COMPARE_RESULTS"], "w") as file:
        json.dump(_results, file)
'''

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


class Comparison:
    """One project, one framework, one working folder."""

    def __init__(self, name, framework, source, command, work):
        self.name, self.framework, self.work = name, framework, Path(work)
        self.command = command or COMMANDS[framework]
        self.project = self.work / "project"
        ignored = shutil.ignore_patterns("target", ".pytest_cache", "__pycache__", ".hypothesis")
        shutil.copytree(source, self.project, symlinks=True, ignore=ignored)
        modules = Path(source).resolve().parent / "node_modules"
        if framework == "vitest" and modules.exists():
            (self.work / "node_modules").symlink_to(modules)

    def tool(self):
        """The outcomes by the tool itself, and its seconds once everything is built and compiled."""
        return getattr(self, self.framework)()

    def pytest(self):
        (self.work / "compare_plugin.py").write_text(PYTEST_PLUGIN)
        results = self.work / "tool.json"
        environment = {**clean_environment(), "COMPARE_RESULTS": str(results)}
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(self.work), before]))
        words = [*shlex.split(self.command), "-p", "compare_plugin"]
        execute([*words, "--collect-only", "-q"], self.project, self.work / "warm.log", environment)
        _, seconds = execute(words, self.project, self.work / "tool.log", environment)
        return merge(json.loads(results.read_text())), seconds

    def nextest(self):
        config = self.work / "nextest.toml"
        config.write_text(NEXTEST_CONFIG)
        words = ["cargo", "nextest", "run", "--tool-config-file", f"compare:{config}"]
        status, _ = execute([*words, "--no-run"], self.project, self.work / "warm.log")
        if status:
            sys.exit(f"compare: {self.name} cannot be built:\n{(self.work / 'warm.log').read_text()}")
        _, seconds = execute([*words, "--no-fail-fast"], self.project, self.work / "tool.log")
        (report,) = self.project.glob("target/nextest/*/compare.xml")
        cases = ElementTree.parse(report).iter("testcase")
        return merge((f"{case.get('classname')} {case.get('name')}", outcome_of(case)) for case in cases), seconds

    def vitest(self):
        results = self.work / "tool.json"
        words = [*shlex.split(self.command), "run", "--reporter=json", f"--outputFile={results}"]
        _, seconds = execute(words, self.project, self.work / "tool.log")
        words_of = {"passed": "passed", "failed": "failed"}
        pairs = []
        for suite in json.loads(results.read_text())["testResults"]:
            file = os.path.relpath(suite["name"], self.project.resolve())
            for case in suite["assertionResults"]:
                titles = [file, *case["ancestorTitles"], case["title"]]
                pairs.append((" > ".join(titles), words_of.get(case["status"], "skipped")))
        return merge(pairs), seconds

    def config(self, output):
        """A configuration as somebody new would write it."""
        command = f"command = {json.dumps(self.command)}\n" if self.command else ""
        return (
            '[provider]\ntype = "local"\n\n'
            f'[framework]\ntype = "{self.framework}"\n{command}\n'
            f"[groups.all]\nretry_count = 0\n\n[report]\noutput_dir = {json.dumps(str(output))}\n"
        )

    def offload(self, program, parallel):
        """The outcomes by `offload`, its seconds and its exit status."""
        output = self.work / f"output-{parallel}"
        config = self.work / f"offload-{parallel}.toml"
        config.write_text(self.config(output))
        words = [str(program), "-c", str(config), "run", "--parallel", str(parallel)]
        status, seconds = execute(words, self.project, self.work / f"offload-{parallel}.log")
        report = output / "junit.xml"
        if not report.exists():
            return {}, seconds, status
        cases = ElementTree.parse(report).iter("testcase")
        return merge((case.get("name"), outcome_of(case)) for case in cases), seconds, status


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


def differences(tool, ours):
    """A line for each test that is not the same on both sides."""
    for name in sorted(tool.keys() | ours.keys()):
        left, right = tool.get(name, "absent"), ours.get(name, "absent")
        if left != right:
            yield f"{name}: {left} by the tool, {right} by offload"


def compare(comparison, program, widths, most):
    """Prints the rows of one project; gives how many tests differed in all."""
    tool, alone = comparison.tool()
    row = f"{comparison.name:16} {'tool':>8} {alone:8.1f} s         {len(tool):6} tests  "
    print(f"{row}{counts(tool)}", flush=True)
    total = 0 if tool else 1
    for parallel in widths:
        ours, seconds, status = comparison.offload(program, parallel)
        found = list(differences(tool, ours))
        total += len(found)
        row = f"{comparison.name:16} {parallel:8} {seconds:8.1f} s  {seconds / alone:5.2f}x {len(ours):6} tests  "
        print(f"{row}{counts(ours)}; exit {status}; {len(found)} differ", flush=True)
        for line in found[:most]:
            print(f"    {line}", flush=True)
        if len(found) > most:
            print(f"    … and {len(found) - most} more", flush=True)
    return total


def chosen(options):
    """What to compare: name, framework, folder, command."""
    if not options.corpus:
        if not options.framework or len(options.names) != 1:
            sys.exit("compare: give --framework and one project folder, or --corpus")
        folder = Path(options.names[0])
        return [(folder.resolve().name, options.framework, folder, options.command)]
    listed = json.loads((options.corpus / "corpus.json").read_text())
    known = [one for one in listed if (options.corpus / one["folder"]).exists()]
    unknown = set(options.names) - {one["name"] for one in known}
    if unknown:
        sys.exit(f"compare: not in the corpus: {', '.join(sorted(unknown))}")
    picked = [one for one in known if not options.names or one["name"] in options.names]
    return [(one["name"], one["framework"], options.corpus / one["folder"], one["command"]) for one in picked]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offload", type=Path, default=Path("target/release/offload"), help="the program to try")
    parser.add_argument("--parallel", default="1,2,4", help="sandboxes of each run (default: 1,2,4)")
    parser.add_argument("--framework", choices=COMMANDS)
    parser.add_argument("--command", help="the command in front of the tool's arguments")
    parser.add_argument("--corpus", type=Path, help="the folder that corpus.py filled")
    parser.add_argument("--show", type=int, default=10, help="differences printed a run (default: 10)")
    parser.add_argument("--keep", action="store_true", help="keep the working folders and say where they are")
    parser.add_argument("names", nargs="*", help="a project folder, or names in the corpus")
    options = parser.parse_args()
    program = options.offload.resolve()
    if not program.exists():
        sys.exit(f"compare: there is no `{program}`; build it first or give --offload")
    widths = [int(word) for word in options.parallel.split(",")]
    total = 0
    for name, framework, folder, command in chosen(options):
        work = Path(tempfile.mkdtemp(prefix="offload-compare-")).resolve()
        try:
            total += compare(Comparison(name, framework, folder, command, work), program, widths, options.show)
        finally:
            if options.keep:
                print(f"    kept in {work}", flush=True)
            else:
                shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
