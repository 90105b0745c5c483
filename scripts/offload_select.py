"""A pytest plugin that keeps of what is collected the tests that a batch is to run.

`selected.json` beside this file holds `files`, the files of which only a part is wanted, and `names`,
the ids that are wanted of them, or what they begin with: classes, functions without their parameters.
"""

import json
import os

import pytest

with open(os.path.join(os.path.dirname(__file__), "selected.json"), encoding="utf-8") as file:
    selection = json.load(file)
files, names = set(selection["files"]), set(selection["names"])


def is_wanted(nodeid):
    base, bracket, _ = nodeid.partition("[")
    parts = base.split("::")
    if parts[0] not in files or nodeid in names:
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
