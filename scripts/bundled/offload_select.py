"""A pytest plugin that keeps of what is collected the tests that a batch is to run.

`selected.json` beside this file holds `whole`, the files of which all is wanted, and `names`, the ids that are
wanted of others, or what they begin with: classes, functions without their parameters. What else the
command line brings along, by paths in a group's filters for instance, is not wanted.
"""

import json
import os

import pytest

with open(os.path.join(os.path.dirname(__file__), "selected.json"), encoding="utf-8") as file:
    selection = json.load(file)
whole, names = set(selection["whole"]), set(selection["names"])


def is_wanted(nodeid):
    base, bracket, _ = nodeid.partition("[")
    parts = base.split("::")
    if parts[0] in whole or nodeid in names:
        return True
    return any("::".join(parts[:end]) in names for end in range(2, len(parts) + 1))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    wanted, others = [], []
    for item in items:
        (wanted if is_wanted(item.nodeid) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = wanted
