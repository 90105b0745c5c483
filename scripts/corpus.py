#!/usr/bin/env python3
"""Fetches real projects with their tests, to try `offload` on suites that nobody made for it.

    scripts/corpus.py [--into FOLDER] [--baseline] [NAME ...]

Projects come from the package registries through pip, cargo and npm as they are configured, in pinned
versions, and are left as published. Python projects get a virtual environment each, in `venvs/`, and xdist
lies beside them; `corpus.json` tells `compare.py` what lies where. With `--baseline`, each Python suite is also run by
pytest alone and by two processes of xdist, and counts and times are added to BASELINE.txt.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PYTEST = "9.1.1"
XDIST = ["pytest-xdist==3.8.0", "execnet"]
VITEST = "4.1.12"


@dataclass
class PythonProject:
    """A source distribution, what its tests import, and the arguments that they need.

    `alone` are further arguments that make pytest run them in one process.
    """

    name: str
    version: str
    needs: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    alone: list = field(default_factory=list)

    def folder(self):
        return f"{self.name}-{self.version}"


# Two suites do not pass here as published, which is as it should be for a comparison: one test of attrs
# fails, and 15 of humanize have errors for want of a `benchmark` fixture.
PYTHON = [
    PythonProject("more_itertools", "11.2.1"),
    PythonProject("click", "8.5.1"),
    PythonProject("jinja2", "3.1.6", ["trio==0.27.0"]),
    PythonProject("networkx", "3.6.1"),
    PythonProject("packaging", "26.3", ["hypothesis", "pretend", "tomli_w"]),
    PythonProject("attrs", "26.1.0", ["hypothesis", "cloudpickle", "pympler"]),
    PythonProject("humanize", "4.17.0", ["freezegun"]),
    PythonProject("idna", "3.20", ["hypothesis"]),
    PythonProject("toolz", "1.2.0"),
]

# Suites with plumbing: a database for each process, servers, plugins of their own, hooks that rename tests,
# options in `addopts`. Of some a part: the whole takes long, or hangs on some machines by pytest alone, too.
PLUMBING = [
    PythonProject(
        "djangorestframework",
        "3.18.3",
        ["django==5.2.19", "pytest-django==4.14.0", "pytest-cov==7.1.0", "dj-database-url==3.1.2", "importlib-metadata"]
        + ["django-filter==26.2", "django-guardian==3.5.2", "inflection==0.5.1", "markdown", "pyyaml", "requests"]
        + ["uritemplate", "psycopg[binary]"],
    ),
    PythonProject("werkzeug", "3.1.9", ["cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout"]),
    PythonProject(
        "cheroot",
        "11.1.2",
        ["pytest-xdist==3.8.0", "pytest-cov==7.1.0", "pytest-mock", "pytest-rerunfailures", "pytest-sugar"]
        + ["jaraco.context", "jaraco.text", "portend", "pyopenssl", "pypytools", "requests-unixsocket"]
        + ["requests_toolbelt", "trustme", "setuptools"],
        arguments=["--ignore", "cheroot/test/test_ssl.py"],
        alone=["-n", "0"],
    ),
    PythonProject("docutils", "0.23", arguments=["test"]),
    PythonProject(
        "syrupy",
        "7.0.2",
        ["pytest-xdist==3.8.0", "pytest-benchmark", "invoke", "coverage[toml]<8", "hypothesis", "pydantic", "attrs"],
        arguments=["tests/syrupy", "tests/examples"],
    ),
    PythonProject(
        "sqlalchemy",
        "2.1.9",
        arguments=["--db", "sqlite_file", "test/engine", "test/sql/test_query.py", "test/sql/test_resultset.py"],
    ),
]
ALL_PYTHON = [*PYTHON, *PLUMBING]

CRATES = {"semver": "1.0.28", "strsim": "0.11.1", "smallvec": "1.16.6", "indexmap": "2.14.2"}

# The packages hold no vitest configuration, so the command says what the repositories' own would. The
# titles of two files hold random numbers: what is listed is gone when it is to run.
NPM = {
    # As published, without its tests' helpers: some files do not load, the environment of two does not exist.
    "msw": ("2.15.0", "npx vitest --globals --dir src"),
    "zod": ("4.6.7", "npx vitest"),
    "@tldraw/state": (
        "5.1.1",
        "npx vitest --globals --environment jsdom --exclude src/lib/__tests__/computed.test.ts "
        "--exclude src/lib/__tests__/arraySet.test.ts --exclude src/lib/__tests__/fuzz.tlstate.test.ts",
    ),
}

# What the tests of these import and their packages do not bring.
NPM_NEEDS = {
    "vitest": VITEST,
    "@seriousme/openapi-schema-validator": "2.11.0",
    "@tldraw/utils": "5.1.1",
    "@web-std/file": "3.0.3",
    "esbuild": "0.28.2",
    "jsdom": "26.1.0",
    "lodash": "4.17.21",
    "recheck": "4.5.0",
    # What msw imports.
    "@mswjs/interceptors": "0.41.9",
    "@open-draft/deferred-promise": "3.0.0",
    "cookie": "1.1.1",
    "graphql": "16.15.0",
    "headers-polyfill": "5.0.1",
    "is-node-process": "1.2.0",
    "outvariant": "1.4.3",
    "path-to-regexp": "6.3.0",
    "picocolors": "1.1.1",
    "rettime": "0.11.12",
    "statuses": "2.0.2",
    "strict-event-emitter": "0.5.1",
    "tough-cookie": "6.1.0",
    "until-async": "3.0.2",
}


def run(command, **options):
    """Runs a command, and ends the program with its output when it fails."""
    done = subprocess.run(command, text=True, capture_output=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        sys.exit(f"corpus: {' '.join(map(str, command))} gave {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def python_of(base, project):
    return base / "venvs" / project.name / "bin" / "python"


def fetch_python(base, project):
    """Unpacks the source distribution, then installs it and its needs in an environment of its own."""
    target = base / "python" / project.folder()
    stamp = base / "venvs" / project.name / "complete"
    if stamp.exists() and target.exists():
        return
    downloads = base / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / f"{project.folder()}.tar.gz"
    if not archive.exists():
        wanted = f"{project.name}=={project.version}"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        run([*pip, "-d", downloads, wanted])
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(target.parent, filter="data")
    environment = base / "venvs" / project.name
    run([sys.executable, "-m", "venv", "--clear", environment])
    wanted = [f"{project.name}=={project.version}", f"pytest=={PYTEST}", *project.needs]
    run([python_of(base, project), "-m", "pip", "install", "-q", *wanted])
    stamp.write_text("\n".join(wanted))


def fetch_xdist(base):
    """xdist lies in a folder of its own, so that no project's environment holds it."""
    target = base / "xdist"
    if not (target / "xdist").exists():
        run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, *XDIST])
    return target


def fetch_crates(base, wanted):
    """Fetches crates through a scratch manifest, and copies them out of `cargo vendor`."""
    here = {folder.name for folder in (base / "crates").glob("*")}
    missing = {name: version for name, version in wanted.items() if f"{name}-{version}" not in here}
    if not missing:
        return
    scratch = base / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "src").mkdir(parents=True)
    (scratch / "src" / "lib.rs").write_text("")
    needs = "".join(f'{name} = "={version}"\n' for name, version in missing.items())
    head = '[workspace]\n[package]\nname = "scratch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n'
    (scratch / "Cargo.toml").write_text(head + needs)
    run(["cargo", "vendor", "-q", "--versioned-dirs", "vendor"], cwd=scratch)
    for name, version in missing.items():
        target = base / "crates" / f"{name}-{version}"
        shutil.copytree(scratch / "vendor" / target.name, target)
        (target / ".cargo-checksum.json").unlink()
    shutil.rmtree(scratch)


def fetch_npm(base, name, version):
    """Unpacks an npm package; vitest lies one folder up, where node finds it from inside the project."""
    home = base / "npm"
    home.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps({"private": True, "dependencies": NPM_NEEDS})
    stamp = home / "complete"
    if not stamp.exists() or stamp.read_text() != manifest:
        (home / "package.json").write_text(manifest)
        run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=home)
        stamp.write_text(manifest)
    target = home / f"{name.split('/')[-1]}-{version}"
    if target.exists():
        return
    packed = run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=home).strip().splitlines()[-1]
    with tarfile.open(home / packed) as archive:
        archive.extractall(home / "unpacked", filter="data")
    (home / "unpacked" / "package").rename(target)
    (home / "unpacked").rmdir()
    (home / packed).unlink()


def entries(base):
    """What `compare.py` needs to know of each project that lies in the folder."""
    for project in ALL_PYTHON:
        command = f"{python_of(base, project)} -m pytest {' '.join(project.arguments)}".strip()
        folder = f"python/{project.folder()}"
        alone = " ".join(project.alone)
        yield {
            "name": project.name, "framework": "pytest", "folder": folder, "command": command, "alone": alone,
            "xdist": "xdist",
        }
    for name, version in CRATES.items():
        yield {"name": name, "framework": "nextest", "folder": f"crates/{name}-{version}", "command": None}
    for name, (version, command) in NPM.items():
        folder = f"npm/{name.split('/')[-1]}-{version}"
        yield {"name": name, "framework": "vitest", "folder": folder, "command": command}


def timed(command, folder, environment):
    """How long a command took, and its last line that counts tests."""
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    seconds = time.monotonic() - began
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    lines = [line.strip(" =") for line in plain.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
    return seconds, lines[-1] if lines else f"exit {done.returncode}"


def baseline(base, project, xdist):
    """One row of BASELINE.txt: the suite by pytest alone and by two processes of xdist."""
    folder = base / "python" / project.folder()
    plain = [str(python_of(base, project)), "-m", "pytest", "-q", "-p", "no:cacheprovider", *project.arguments]
    single = [*plain, *project.alone]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "CI": ""}
    timed([*single, "--collect-only"], folder, environment)
    alone, counts = timed(single, folder, environment)
    both = {**environment, "PYTHONPATH": str(xdist)}
    two, two_counts = timed([*plain, "-n", "2"], folder, both)
    program = f"../../venvs/{project.name}/bin/python -m pytest"
    rows = [
        project.folder(),
        f"  plain  {alone:7.1f} s  {counts}",
        f"  -n 2   {two:7.1f} s  {two_counts}",
        " ".join([f"  cd python/{project.folder()} && {program}", *project.arguments]),
    ]
    return "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("target/corpus"), help="default: target/corpus")
    parser.add_argument("--baseline", action="store_true", help="run each Python suite and write BASELINE.txt")
    parser.add_argument("names", nargs="*", help="only these projects")
    options = parser.parse_args()
    base = options.into.resolve()
    wanted = lambda name: not options.names or name in options.names
    python = [project for project in ALL_PYTHON if wanted(project.name)]
    for project in python:
        print(f"fetching {project.folder()}", flush=True)
        fetch_python(base, project)
    if python:
        fetch_xdist(base)
    fetch_crates(base, {name: version for name, version in CRATES.items() if wanted(name)})
    for name, (version, _) in NPM.items():
        if wanted(name):
            fetch_npm(base, name, version)
    (base / "corpus.json").write_text(json.dumps(list(entries(base)), indent=1))
    if options.baseline:
        xdist = fetch_xdist(base)
        with open(base / "BASELINE.txt", "a") as table:
            for project in python:
                row = baseline(base, project, xdist)
                print(row, end="", flush=True)
                table.write(row)
                table.flush()


if __name__ == "__main__":
    main()
