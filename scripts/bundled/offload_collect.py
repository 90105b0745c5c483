"""A pytest plugin that writes what was collected to a file, for offload's discovery.

It is loaded by `PYTEST_PLUGINS` for `--collect-only` alone. `OFFLOAD_COLLECT` holds a JSON object:
`output`, the file to write, and `groups`, one `[keyword, markers]` for each group that this one
collection is to serve; with a single `null` the command line's own `-k` and `-m` stand. A further
group sees what it would see alone: every plugin's `pytest_collection_modifyitems` runs again for it.
"""

import gc
import json
import os

import pytest


class Lister:
    def __init__(self, order):
        self.output = order["output"]
        self.groups = order["groups"]
        self.collected = None

    @staticmethod
    def select(config, group):
        if group is not None:
            config.option.keyword, config.option.markexpr = group

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        if self.collected is None:
            self.collected = list(items)
            self.select(config, self.groups[0])

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session):
        # The terminal need not print what the file says.
        session.config.option.verbose = -2
        if session.testsfailed:
            return
        selections = [session.items]
        for group in self.groups[1:]:
            self.select(session.config, group)
            items = list(self.collected)
            session.config.hook.pytest_collection_modifyitems(
                session=session, config=session.config, items=items
            )
            selections.append(items)
        self.write(session.config, selections)
        # What was collected lives until the process ends: its end need not look at each object.
        gc.freeze()

    def write(self, config, selections):
        here = str(config.invocation_params.dir)
        root = str(config.rootpath)
        numbers, files = {}, {}
        for items in selections:
            for item in items:
                if item.nodeid not in numbers:
                    numbers[item.nodeid] = len(numbers)
                    part = item.nodeid.split("::", 1)[0]
                    if part not in files:
                        files[part] = os.path.relpath(os.path.join(root, part), here)
        listing = {
            "root": os.path.relpath(root, here),
            "config": config.inipath and os.path.relpath(str(config.inipath), here),
            "xdist": config.pluginmanager.hasplugin("xdist"),
            "files": files,
            "tests": list(numbers),
            "groups": [[numbers[item.nodeid] for item in items] for items in selections],
        }
        # Ids are text that JSON can hold; what is not (lone surrogates) stays escaped.
        with open(self.output, "w", encoding="ascii") as file:
            json.dump(listing, file)


def pytest_configure(config):
    order = os.environ.get("OFFLOAD_COLLECT")
    if order and config.option.collectonly:
        # Collecting makes many objects and little garbage: a fifth of its time is saved.
        gc.disable()
        config.pluginmanager.register(Lister(json.loads(order)), "offload-lister")
