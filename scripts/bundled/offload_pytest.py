"""A pytest plugin that lists tests for offload, and runs those of a batch. PYTEST_DONT_REWRITE

`PYTEST_PLUGINS` loads it; `OFFLOAD_PYTEST` names a JSON file, its order. `mode` is `list`, `run` or `conclude`:
`list` writes what `--collect-only` collected to the file `output`; `run` collects in the same way, keeps the
tests of its batch, and appends what happens to the file `record`, one line of JSON an event; `conclude` runs no
tests, and judges what all batches left in the folder `data`: their coverage, or snapshots, as `name` says.
"""

import gc
import json
import os
import sys
import uuid

import pytest


def take_order():
    """The order of this process, whose environment becomes what it would be without this plugin."""
    path = os.environ.pop("OFFLOAD_PYTEST", None)
    if path is None:
        return None
    own = os.path.dirname(os.path.abspath(__file__))
    for name, part, mark in (("PYTHONPATH", own, os.pathsep), ("PYTEST_PLUGINS", __name__, ",")):
        rest = [other for other in os.environ.pop(name, "").split(mark) if other != part]
        if any(rest):
            os.environ[name] = mark.join(rest)
    with open(path, encoding="utf-8") as file:
        return dict(json.load(file), path=path)


def first_line(text):
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def with_headline(text):
    """A traceback has its reason at the end; readers see the beginning first."""
    last = first_line("\n".join(reversed(text.splitlines())))
    return (last[1:].strip() if last.startswith("E ") else last) + "\n" + text


def start_again(order):
    """Starts this command once more when all of it has ended, to collect all files."""
    with open(order["path"], "w", encoding="ascii") as file:
        json.dump(dict(order, files=None), file)
    for name, part, mark in (("PYTHONPATH", os.path.dirname(__file__), os.pathsep), ("PYTEST_PLUGINS", "offload_pytest", ",")):
        os.environ[name] = mark.join(filter(None, [part, os.environ.get(name)]))
    os.environ["OFFLOAD_PYTEST"] = order["path"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(sys.orig_argv[0], sys.orig_argv)


class Files:
    """Names files as users do: relative to the working directory."""

    def __init__(self, config):
        self.here = str(config.invocation_params.dir)
        self.root = str(config.rootpath)
        self.known = {}

    def name(self, path):
        """The name of a path that may be relative to pytest's root."""
        if path not in self.known:
            self.known[path] = os.path.relpath(os.path.join(self.root, path), self.here)
        return self.known[path]

    def of(self, node):
        """The file in which pytest found a node. It is known by its path: plugins change names and ids."""
        return self.name(str((node.getparent(pytest.File) or node).path))


class CollectionErrors:
    """Hears of files that cannot be collected."""

    def __init__(self, config):
        self.files = Files(config)
        self.failing = {}

    def pytest_exception_interact(self, node, report):
        if isinstance(node, pytest.Collector):
            self.failing[report.nodeid] = self.files.name(str(node.path))

    def pytest_collectreport(self, report):
        if report.failed:
            file = self.failing.get(report.nodeid) or self.files.name(report.nodeid.split("::", 1)[0])
            self.note(file, with_headline(str(report.longrepr)))


class Lister(CollectionErrors):
    def __init__(self, order, config):
        super().__init__(config)
        self.output = order["output"]
        self.groups = order["groups"]
        self.filters = order["filters"]
        self.collected = None
        self.errors = []

    def note(self, file, text):
        self.errors.append({"file": file, "text": text})

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

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection(self, session):
        outcome = yield
        if outcome.excinfo is not None or self.collected is None:
            return
        config = session.config
        selections = [list(session.items)]
        # A further group sees what it would see alone: each plugin's hook runs again for it.
        for group in self.groups[1:]:
            self.select(config, group)
            items = list(self.collected)
            config.hook.pytest_collection_modifyitems(session=session, config=config, items=items)
            selections.append(items)
        self.write(config, selections)
        # What was collected lives until the process ends: its end need not look at each object.
        gc.freeze()

    def write(self, config, selections):
        numbers, chosen = {}, []
        for items in selections:
            for item in items:
                if item.nodeid not in numbers:
                    numbers[item.nodeid] = len(numbers)
                    chosen.append(item)
        files, tests, keys = {}, [], Keys(config, chosen)
        places = {}
        for item in (item for items in selections for item in items):
            places.setdefault(item.nodeid, set()).add(self.files.of(item))
        for number, item in enumerate(chosen):
            # A plugin may give tests of several files one id: no file has them all.
            file, *others = places[item.nodeid]
            file = None if others else files.setdefault(file, len(files))
            line = item.location[1]
            tests.append([item.nodeid, file, None if line is None else line + 1, keys.of(number)])
        has = config.pluginmanager.hasplugin
        listing = {
            "root": self.files.name(self.files.root),
            "config": config.inipath and self.files.name(str(config.inipath)),
            "filters": self.filters,
            "named": [str(argument) for argument in config.option.file_or_dir or ()],
            "run": uuid.uuid4().hex,
            "xdist": has("xdist"),
            "failures": str(config.cache._getvaluepath("cache/lastfailed")) if has("lfplugin") else None,
            "goes_on": bool(config.option.continue_on_collection_errors),
            "files": list(files),
            "tests": tests,
            "groups": [[numbers[item.nodeid] for item in items] for items in selections],
            "errors": self.errors,
        }
        # The file is whole once it has its name. Lone surrogates in ids stay escaped.
        with open(self.output + ".part", "w", encoding="ascii") as file:
            json.dump(listing, file)
        os.replace(self.output + ".part", self.output)


class Keys:
    """What keeps tests together: the names, of files, groups or dependencies, that they share."""

    def __init__(self, config, items):
        self.ties = [set() for _ in items]
        self.leaders = {}
        has = config.pluginmanager.hasplugin
        if has("xdist"):
            self.tie_as_xdist(config.getoption("dist", "no"), items)
        if has("dependency"):
            self.tie_dependencies(items)
        if has("syrupy") and config.option.update_snapshots:
            self.tie_snapshots(items)
        for ties in self.ties:
            for tie in sorted(ties):
                self.leaders[self.leader(tie)] = self.leader(min(ties))

    def leader(self, tie):
        while self.leaders.setdefault(tie, tie) != tie:
            tie = self.leaders[tie]
        return tie

    def of(self, number):
        return next((self.leader(tie) for tie in self.ties[number]), None)

    def tie_as_xdist(self, dist, items):
        """By the rules of xdist's schedulers; groups that are marked count whatever its mode is."""
        for ties, item in zip(self.ties, items):
            marks = item.iter_markers("xdist_group")
            names = {str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")) for mark in marks}
            if dist == "loadfile":
                ties.add("file " + item.nodeid.split("::", 1)[0])
            elif dist == "loadscope":
                ties.add("scope " + item.nodeid.rsplit("::", 1)[0])
            elif names:
                ties.add("group " + "_".join(sorted(names)))

    def tie_snapshots(self, items):
        """Two batches that wrote one file of snapshots would lose some."""
        users = {item.path for item in items if "snapshot" in getattr(item, "fixturenames", ())}
        for ties, item in zip(self.ties, items):
            if item.path in users:
                ties.add("snapshots %s" % item.path)

    def tie_dependencies(self, items):
        """By the names under which pytest-dependency knows results: one that is waited for ties both."""
        scopes = {"session": pytest.Session, "package": pytest.Package, "module": pytest.Module, "class": pytest.Class}
        parts = {"module": 1, "class": 2}
        waiting = {}
        marked = [(number, item, item.get_closest_marker("dependency")) for number, item in enumerate(items)]
        for number, item, mark in marked:
            scope = mark.kwargs.get("scope", "module") if mark else "module"
            owner = item.getparent(scopes[scope]) if scope in scopes else None
            for name in (mark.kwargs.get("depends") or () if mark else ()):
                waiting.setdefault((scope, id(owner), name), []).append(number)
        if not waiting:
            return
        for number, item, mark in marked:
            for scope, kind in scopes.items():
                name = mark.kwargs.get("name") if mark else None
                name = name or "::".join(item.nodeid.split("::")[parts.get(scope, 0):])
                for other in waiting.get((scope, id(item.getparent(kind)), name), ()):
                    for tied in (number, other):
                        self.ties[tied].add("test " + item.nodeid)


ORDER = take_order()
if ORDER and ORDER.get("name") == "snapshots":
    from offload_snapshots import conclude

    conclude(ORDER["data"])


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    mode = ORDER and ORDER["mode"]
    if mode == "run" or (mode and "coverage" in sys.modules):
        from offload_coverage import separate

        place = ORDER.get("record") or ORDER.get("output")
        separate(early_config.known_args_namespace, place and place + ".coverage")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    global ORDER
    order, ORDER = ORDER, None
    if order is None:
        return
    if order["mode"] == "list":
        if config.option.collectonly:
            # Collecting makes many objects and little garbage: a fifth of its time is saved.
            gc.disable()
            config.pluginmanager.register(Lister(order, config), "offload-lister")
    elif order["mode"] == "run":
        from offload_batch import register

        register(order, config)
    else:
        from offload_coverage import Conclusion

        config.pluginmanager.register(Conclusion(order, config), "offload-conclusion")
