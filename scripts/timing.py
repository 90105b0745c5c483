"""What benches measure of a program: its own processor time and memory, not those of what it starts."""

import os
import statistics
import subprocess
import time
from collections import namedtuple
from pathlib import Path

# Wall and CPU in seconds, peak resident memory in MiB, most threads.
Measured = namedtuple("Measured", "code wall cpu memory threads")


def add_programs(parser, rounds):
    """The options that say which programs run against each other."""
    parser.add_argument("--ours", default="target/release/offload", help="the program (default: %(default)s)")
    parser.add_argument("--peer", help="another runner, in the same rounds")
    parser.add_argument("--older", help="an older build of ours, in the same rounds")
    parser.add_argument("--rounds", type=int, default=rounds, help="counted rounds (default: %(default)s)")


def programs(arguments):
    """Absolute paths by name, for those that were given; `ours` comes first."""
    given = {name: getattr(arguments, name) for name in ("ours", "peer", "older")}
    found = {name: Path(path).resolve() for name, path in given.items() if path}
    missing = [str(path) for path in found.values() if not path.exists()]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}")
    return {name: str(path) for name, path in found.items()}


def in_turn(names, number):
    """The names in the order of round `number`: nobody is always the first."""
    names = list(names)
    start = number % len(names)
    return names[start:] + names[:start]


def cpu_seconds(pid):
    """The time that the process itself used, in user and kernel mode; a zombie still has it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status(pid):
    """Peak resident memory in MiB, and threads; zeros for a zombie."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        fields[key] = value.split()
    return int(fields.get("VmHWM", ["0"])[0]) / 1024, int(fields["Threads"][0])


def measure(words, folder, env, output=None, every=0.05, deadline=600):
    """Runs a command to its end, looking at it `every` so many seconds. `output` gets what it prints."""
    began = time.monotonic()
    with open(output or os.devnull, "wb") as file:
        child = subprocess.Popen(words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    memory = threads = 0
    # Not reaped yet, it can still be asked for its times.
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        peak, now = status(child.pid)
        memory, threads = max(memory, peak), max(threads, now)
        if time.monotonic() - began > deadline:
            child.terminate()
        time.sleep(every)
    wall, cpu = time.monotonic() - began, cpu_seconds(child.pid)
    return Measured(child.wait(), wall, cpu, memory, threads)


def medians(rows):
    """The median of each figure; of exit codes, all that were seen."""
    codes = sorted({row.code for row in rows})
    return Measured(codes, *(statistics.median(column) for column in list(zip(*rows))[1:]))


def ratio(ours, theirs, figure):
    """The median over the rounds of ours through theirs, each in its round."""
    pairs = zip(ours, theirs)
    return statistics.median(getattr(one, figure) / max(getattr(other, figure), 1e-9) for one, other in pairs)


def ratios(rows, figures):
    """A line with the ratios of `ours` to each other program; empty where there is none."""
    parts = []
    for name in rows:
        if name != "ours":
            each = (f"{figure} {ratio(rows['ours'], rows[name], figure):.2f}" for figure in figures)
            parts.append(f"ours / {name}: {', '.join(each)}")
    return "; ".join(parts)
