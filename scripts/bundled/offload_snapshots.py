"""The part of offload's pytest plugin that knows syrupy, which calls the snapshots of other batches unused.
PYTEST_DONT_REWRITE

A file whose tests use snapshots is in one batch. So a batch can say which of its snapshots nobody used; syrupy's
own verdict, which looks at all snapshots of a folder, does not count.
"""

import collections
from pathlib import Path

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
        unused = sorted(self.unused(session, self.config._syrupy.report))
        if unused:
            count = "1 snapshot is" if len(unused) == 1 else "%d snapshots are" % len(unused)
            self.runner.error("snapshot", count + " unused", text="\n".join([count + " unused"] + unused))

    def unused(self, session, report):
        from syrupy.location import PyTestLocation

        here = collections.Counter(item.path for item in session.items)
        all_there = collections.Counter(item.path for item in self.runner.kept or ())
        whole = [item for item in session.items if here[item.path] == all_there[item.path]]
        # As syrupy does, this leaves out what has neither a function nor a doctest.
        whole = [item for item in whole if hasattr(item, "obj") or hasattr(item, "dtest")]
        locations = [(PyTestLocation(item), self.runner.outcomes.get(item.nodeid)) for item in whole]
        used = {one.location: {snapshot.name for snapshot in one} for one in report.used}
        for found in report.discovered:
            owners = [(place, outcome) for place, outcome in locations if place.matches_snapshot_location(found.location)]
            if not owners and self.may_have_owner(Path(found.location)):
                continue
            names = {snapshot.name for snapshot in found} - used.get(found.location, set())
            unproved = [place for place, outcome in owners if outcome != "passed"]
            for name in names:
                # A test that was skipped or failed may not have come to its snapshots.
                if not any(place.matches_snapshot_name(name) for place in unproved):
                    yield "%s: %s" % (self.runner.files.name(found.location), name)

    def may_have_owner(self, path):
        """Whether there is a file of tests, of another batch for instance, whose snapshot this could be."""
        name = getattr(self.config.option, "snapshot_dirname", "__snapshots__")
        folders = [folder for folder in path.parents if folder.name == name]
        names = (path.stem, path.parent.name)
        return not folders or any((folders[0].parent / (name + ".py")).exists() for name in names)
