#!/usr/bin/env python3
"""Times runs with the provider `modal` against an emulator of Modal's server, other programs in turn.

    PYTHON scripts/bench_modal.py [--ours PROGRAM] [--peer PROGRAM] [--older PROGRAM] [--rounds N] [--execs N]

PYTHON is one that has `modal` and pytest; `uv` must be on PATH. A dozen tests of pytest on three sandboxes, with the
image made before. Wall and CPU seconds are those of the whole program with all that it starts, without
the server's. Then the driver alone: what an exec takes beside its command.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """\
[offload]
max_parallel = 3
sandbox_repo_root = "/app"
[provider]
type = "modal"
dockerfile = "Dockerfile"
include_cwd = true
[framework]
type = "pytest"
paths = ["tests"]
command = "{python} -m pytest"
[groups.all]
retry_count = 0
"""

# Other runners know tests by the names in the report alone.
CONFTEST = """\
import pytest

@pytest.fixture(autouse=True)
def _set_junit_test_id(request, record_xml_attribute):
    record_xml_attribute("name", request.node.nodeid)
"""


def project(folder, python):
    tests = folder / "tests"
    tests.mkdir(parents=True)
    for number in range(4):
        body = "".join(f"def test_{one}():\n    assert {one} + 1 == {one + 1}\n\n" for one in range(3))
        (tests / f"test_{number}.py").write_text(body)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "Dockerfile").write_text("FROM python:3.12\nWORKDIR /app\n")
    (folder / "offload.toml").write_text(CONFIG.format(python=python))
    (folder / ".gitignore").write_text("test-results\n__pycache__\n.pytest_cache\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


def once(program, folder, environment):
    """Wall and CPU seconds of a run that passes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([program, "run"], cwd=folder, env=environment, capture_output=True, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{program} ended with {done.returncode}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Driver:
    def __init__(self, environment):
        command = ["uv", "run", "--quiet", "--no-project", ROOT / "scripts/bundled/modal_sandbox.py", "driver"]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.answers, self.changed, self.number = {}, threading.Condition(), 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.child.stdout:
            answer = json.loads(line)
            with self.changed:
                self.answers[answer["id"]] = answer
                self.changed.notify_all()

    def call(self, call, **request):
        with self.changed:
            self.number += 1
            number = self.number
            self.child.stdin.write(json.dumps({"id": number, "call": call, **request}) + "\n")
            self.child.stdin.flush()
            while number not in self.answers:
                self.changed.wait()
            answer = self.answers.pop(number)
        if "result" not in answer:
            raise SystemExit(f"{call}: {answer}")
        return answer["result"]


def execs(folder, environment, count):
    """What an exec takes beside its command, in seconds (medians): one sandbox; eight at once, each of whose
    commands takes a fifth of a second; and how soon one follows the other where they take no time at all."""
    driver = Driver(environment)
    driver.call("hello")
    (folder / "Plain").write_text("FROM python:3.12\n")
    image = driver.call("prepare", dockerfile=str(folder / "Plain"), context=str(folder))["image"]
    create = {"image": image, "timeout": 600, "idle_timeout": 60, "tags": {}}
    sandboxes = [driver.call("create", **create)["sandbox"] for _ in range(8)]

    def work(number, words, seconds, times):
        for _ in range(count):
            began = time.monotonic()
            streams = {kind: str(folder / f"{number}.{kind}") for kind in ("stdout", "stderr")}
            command = {"sandbox": sandboxes[number], "command": words, "timeout": 60}
            assert driver.call("exec", **command, **streams) == {"status": 0}
            times.append(time.monotonic() - began - seconds)

    def together(words, seconds):
        times = []
        threads = [threading.Thread(target=work, args=(number, words, seconds, times)) for number in range(8)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statistics.median(times), (time.monotonic() - began) / len(times)

    alone = []
    work(0, ["true"], 0, [])
    work(0, ["true"], 0, alone)
    busy, _ = together(["sleep", "0.2"], 0.2)
    _, each = together(["true"], 0)
    driver.child.stdin.close()
    driver.child.wait()
    return statistics.median(alone), busy, each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_programs(parser, 5)
    parser.add_argument("--execs", type=int, default=50)
    arguments = parser.parse_args()
    programs = timing.programs(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / "server"
        state.mkdir()
        command = [sys.executable, ROOT / "fixtures/modal/emulator.py", "--state", state, "--share", sys.prefix]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            while not (state / "url").exists():
                time.sleep(0.1)
            environment = dict(
                os.environ, MODAL_SERVER_URL=(state / "url").read_text().strip(), MODAL_TOKEN_ID="ak-x",
                MODAL_TOKEN_SECRET="as-x", MODAL_CONFIG_PATH=str(folder / "none"), CI="true",
                OFFLOAD_STATE_DIR=str(folder / "state"),
            )
            rows = {program: [] for program in programs}
            for program in programs:
                project(folder / program, sys.executable)
                once(programs[program], folder / program, environment)
            for _ in range(arguments.rounds):
                for program, path in programs.items():
                    rows[program].append(once(path, folder / program, environment))
            for program, row in rows.items():
                wall, cpu = zip(*row)
                print(
                    f"{program:8} wall {statistics.median(wall):6.2f} s ({min(wall):.2f}–{max(wall):.2f})  "
                    f"CPU {statistics.median(cpu):6.2f} s", flush=True,
                )
            for program in list(programs)[1:]:
                ratios = [ours[0] / theirs[0] for ours, theirs in zip(rows["ours"], rows[program])]
                print(f"wall, ours / {program}: {statistics.median(ratios):.3f}")
            alone, busy, each = (1000 * seconds for seconds in execs(folder, environment, arguments.execs))
            print(f"overhead of an exec: {alone:.1f} ms; with eight sandboxes {busy:.1f} ms; at most one every {each:.1f} ms")
        finally:
            server.stdin.close()
            server.wait()


if __name__ == "__main__":
    main()
