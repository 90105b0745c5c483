"""The part of offload's pytest plugin that knows syrupy, which calls the snapshots of other batches unused.
PYTEST_DONT_REWRITE

A snapshot may be found by several batches, and its test may be in any of them. So syrupy's own verdict does not
count: each batch sends home which snapshots it missed (found, and none of its tests used them), and which it met
(used, or of a test that may not have come to them). What was missed and never met is unused.
"""

import json
import os
import sys

import pytest


class Snapshots:
    def __init__(self, config, runner):
        self.config = config
        self.runner = runner

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        option = self.config.option
        may_stay = option.warn_unused_snapshots
        option.warn_unused_snapshots = True
        yield
        option.warn_unused_snapshots = may_stay
        if may_stay or option.update_snapshots or getattr(option, "disable_unused_snapshots", False):
            return
        missed, met = self.judge(session, self.config._syrupy.report)
        content = json.dumps({"missed": sorted(missed), "met": sorted(met)}).encode("ascii")
        self.runner.record.send("snapshots", content)

    def judge(self, session, report):
        from syrupy.location import PyTestLocation

        here = {item.nodeid for item in session.items}
        # As syrupy does, this leaves out what has neither a function nor a doctest.
        tests = [item for item in self.runner.kept or () if hasattr(item, "obj") or hasattr(item, "dtest")]
        tests = [(PyTestLocation(item), item.nodeid) for item in tests]
        used = {(one.location, snapshot.name) for one in report.used for snapshot in one}
        missed, met = set(), set(used)
        for found in report.discovered:
            owners = [(place, id) for place, id in tests if place.matches_snapshot_location(found.location)]
            for snapshot in {(found.location, snapshot.name) for snapshot in found} - used:
                ids = [id for place, id in owners if place.matches_snapshot_name(snapshot[1])]
                outcomes = {self.runner.outcomes.get(id) for id in ids if id in here}
                if outcomes - {"passed"}:
                    # A test that was skipped or failed may not have come to its snapshots.
                    met.add(snapshot)
                elif outcomes or not ids:
                    missed.add(snapshot)
        return tuple({(self.runner.files.name(place), name) for place, name in some} for some in (missed, met))


def conclude(folder):
    """Says which snapshots nobody used, and ends this process: pytest has nothing to do."""
    missed, met = set(), set()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="ascii") as file:
            told = json.load(file)
        missed.update(map(tuple, told["missed"]))
        met.update(map(tuple, told["met"]))
    unused = sorted(missed - met)
    if unused:
        names = ["%s: %s" % snapshot for snapshot in unused]
        count = "1 snapshot is" if len(unused) == 1 else "%d snapshots are" % len(unused)
        verdict = "%s unused, %s%s" % (count, "the first: " if unused[1:] else "", names[0])
        for stream, text in ((sys.__stdout__, "\n".join(["Unused snapshots:", *names])), (sys.__stderr__, verdict)):
            os.write(stream.fileno(), (text + "\n").encode("utf-8", "backslashreplace"))
    os._exit(1 if unused else 0)
