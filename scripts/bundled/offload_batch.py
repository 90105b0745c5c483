"""The part of offload's pytest plugin that runs a batch and writes its record. PYTEST_DONT_REWRITE"""

import atexit
import base64
import json
import os
import sys
import time

import offload_coverage
import offload_snapshots
import pytest
from offload_pytest import CollectionErrors, first_line, start_again, with_headline

RANKS = ["passed", "xfailed", "skipped", "failed", "error"]


class Record:
    """Appends events to a file: each line by one write of the process that began it, so that lines are whole
    whatever ends this process. Tests may replace functions and close descriptors."""

    LIMIT = 64 * 1024
    CHUNK = 720 * 1024
    TEXTS = ("message", "text", "stdout", "stderr")

    def __init__(self, path):
        self.path = path
        self.write, self.fstat, self.open, self.own = os.write, os.fstat, os.open, os.getpid
        self.dumps, self.clock = json.dumps, time.perf_counter
        self.process, self.descriptor, self.place = self.own(), -1, None
        self.began = self.clock()
        self.say("begin", version=1, tool="pytest " + pytest.__version__)

    def say(self, event, **fields):
        if self.own() != self.process:
            return
        told = {"event": event}
        told.update((key, self.cut(value) if key in self.TEXTS else value) for key, value in fields.items() if value is not None)
        line = (self.dumps(told) + "\n").encode("ascii")
        try:
            if self.where() != self.place:
                raise OSError("this is another file")
        except OSError:
            self.descriptor = self.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.place = self.where()
        self.write(self.descriptor, line)

    def send(self, name, data):
        """Sends bytes home."""
        for begin in range(0, len(data), self.CHUNK):
            part = base64.b64encode(data[begin : begin + self.CHUNK]).decode("ascii")
            self.say("data", name=name, content=part)

    def where(self):
        status = self.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def cut(self, value):
        if value is None or len(value) * 4 <= self.LIMIT:
            return value
        data = value.encode("utf-8", "surrogatepass")
        left_out = len(data) - self.LIMIT
        if left_out <= 0:
            return value
        head, tail = data[: self.LIMIT // 2], data[-self.LIMIT // 2 :]
        middle = "\n[... %d bytes left out ...]\n" % left_out
        return head.decode("utf-8", "ignore") + middle + tail.decode("utf-8", "ignore")

    def now(self):
        return round(self.clock() - self.began, 6)


class Test:
    """A test that runs: what is known of it until its end."""

    def __init__(self):
        self.begin_attempt(is_first=True)

    def begin_attempt(self, is_first=False):
        """Nothing counts of an attempt that a plugin repeats; the next one has its own reports."""
        self.repeats = not is_first
        self.outcome, self.seconds, self.report, self.about = "passed", 0.0, None, {}
        self.failed_subtests = 0
        self.waiting = []

    def worsen(self, outcome, **about):
        if RANKS.index(outcome) > RANKS.index(self.outcome):
            self.outcome, self.about = outcome, about


class Status(int):
    """An exit status that can be told from an equal one which a plugin sets."""

    name = property(lambda self: pytest.ExitCode(int(self)).name)

    def __or__(self, other):
        both = int(self) | other
        return self if both == self else both


class Runner(CollectionErrors):
    def __init__(self, order, config, record):
        super().__init__(config)
        self.record = record
        self.config = config
        self.wanted = order["tests"]
        files = order.get("files")
        self.wanted_files = files and {os.path.normpath(os.path.join(self.files.here, file)) for file in files}
        self.order = order
        self.starts_again = False
        self.kept = None
        self.running, self.outcomes = {}, {}
        self.errors = self.failures = self.counted = 0
        arguments = [str(argument).split("::", 1) for argument in config.args]
        parts = {os.path.abspath(os.path.join(self.files.here, path)) for path, *rest in arguments if rest}
        # Of such a file pytest asks for a part by name: without it, it would not run at all.
        self.named_in_part = parts if not config.option.pyargs else None
        cache = getattr(config, "cache", None)
        if cache and not cache._cachedir.is_dir():
            # pytest puts a file beside it that hides it from git.
            cache.set("cache/nodeids", [])
        for name in ("lfplugin", "nfplugin"):
            # What they keep of one batch would look like all of the run.
            if config.pluginmanager.hasplugin(name):
                config.pluginmanager.unregister(name=name)

    def error(self, what, message, **more):
        self.errors += 1
        self.record.say("error", what=what, message=first_line(message), **more)

    # Collecting

    def note(self, file, text):
        self.counted += 1
        self.error("collection", text, name=file, text=text, files=[file])

    def is_wanted(self, path):
        if self.wanted_files is None or os.path.basename(path) in ("__init__.py", "conftest.py"):
            return True
        return path in self.wanted_files

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path):
        path = str(collection_path)
        return None if self.is_wanted(path) or os.path.isdir(path) else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector):
        """pytest does not ask whether to ignore a file that an argument names."""
        if isinstance(collector, pytest.File):
            path = str(collector.path)
            if not self.is_wanted(path) and self.named_in_part is not None and path not in self.named_in_part:
                return pytest.CollectReport(collector.nodeid, "passed", None, [])
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectstart(self, collector):
        if isinstance(collector, pytest.File) and self.is_wanted(str(collector.path)):
            self.record.say("loading", file=self.files.name(str(collector.path)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        self.kept = list(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session):
        """Sets what is wanted, when all plugins have renamed, sorted and deselected."""
        if self.kept is None:
            return
        found = {}
        for item in session.items:
            found.setdefault(item.nodeid, []).append(item)
        earlier = {}
        for item in self.kept:
            earlier.setdefault(item.nodeid, []).append(item)
        chosen, missing = {}, []
        for wanted in self.wanted:
            items = found.get(wanted) or earlier.get(wanted)
            chosen.update((id(item), item) for item in items or ())
            if not items and not self.errors:
                missing.append(wanted)
        self.starts_again = bool(missing) and self.wanted_files is not None and hasattr(sys, "orig_argv")
        if self.starts_again:
            # Ids may depend on what else is there, as where a plugin numbers tests.
            chosen = {}
            atexit.register(start_again, self.order)
        for wanted in () if self.starts_again else missing:
            self.record.say("missing", id=wanted)
        others = [item for item in session.items if id(item) not in chosen]
        session.items[:] = chosen.values()
        if others:
            self.config.hook.pytest_deselected(items=others)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection(self):
        outcome = yield
        if outcome.excinfo and issubclass(outcome.excinfo[0], pytest.UsageError):
            self.error("usage", str(outcome.excinfo[1]), text=str(outcome.excinfo[1]))

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid):
        if nodeid not in self.running:
            self.running[nodeid] = Test()
            self.record.say("start", id=nodeid, at=self.record.now())

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call):
        outcome = yield
        if call.excinfo is not None and outcome.excinfo is None:
            outcome.get_result().offload_kind = call.excinfo.typename

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        if report.nodeid not in self.running:
            self.pytest_runtest_logstart(report.nodeid)
        test = self.running[report.nodeid]
        failed = report.failed and not hasattr(report, "wasxfail")
        self.counted += failed
        if type(report).__name__.lower() == "subtestreport":
            if failed:
                test.failed_subtests += 1
                self.fail(test, report, "failed")
        elif report.outcome == "rerun":
            if not test.waiting or report.longrepr is not None:
                self.fail(test, report, "failed" if report.when == "call" else "error", retried=True)
            self.tell_waiting(test, retried=True)
            test.begin_attempt()
        elif report.when == "setup" or not test.repeats:
            test.repeats = False
            self.take(test, report, failed)

    def take(self, test, report, failed):
        """Takes the report of a phase."""
        if report.when != "setup":
            self.tell_waiting(test)
        test.seconds += report.duration
        test.report = report
        if failed:
            if not (test.failed_subtests and isinstance(report.longrepr, str)):
                self.fail(test, report, "failed" if report.when == "call" else "error")
        elif report.skipped and hasattr(report, "wasxfail"):
            test.worsen("xfailed", message=str(report.wasxfail).replace("reason: ", "", 1))
        elif report.skipped:
            test.worsen("skipped", **self.why_skipped(report.longrepr))

    @staticmethod
    def why_skipped(reason):
        if not isinstance(reason, tuple):
            return {"message": first_line(str(reason)), "text": str(reason)}
        file, line, reason = reason
        reason = str(reason)[len("Skipped: ") :] if str(reason).startswith("Skipped: ") else str(reason)
        return {"message": reason, "text": "%s:%s: %s" % (file, line, reason)}

    def fail(self, test, report, outcome, retried=None):
        crash = getattr(report.longrepr, "reprcrash", None)
        message = first_line(str(report.longrepr) if crash is None else crash.message)
        text = str(report.longrepr)
        if report.when in ("setup", "teardown"):
            message = "failed on %s with \"%s\"" % (report.when, message)
        if hasattr(report, "context"):
            describe = getattr(report, "sub_test_description", None) or report._sub_test_description
            message = "%s %s" % (describe(), message)
            text = "\n".join([describe(), text] + ["--- %s ---\n%s" % section for section in report.sections])
        kind = getattr(report, "offload_kind", None)
        about = {"id": report.nodeid, "outcome": outcome, "kind": kind, "message": message, "text": text}
        test.worsen(outcome)
        if hasattr(report, "context") and self.config.pluginmanager.hasplugin("rerunfailures"):
            # Whether the test runs again is known when all of it has run.
            test.waiting.append(about)
            return
        self.tell(about, retried)

    def tell(self, about, retried):
        self.failures += not retried
        self.record.say("failure", retried=retried, **about)

    def tell_waiting(self, test, retried=None):
        for about in test.waiting:
            self.tell(about, retried)
        test.waiting = []

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid, location):
        test = self.running.get(nodeid)
        if test is None or test.report is None:
            # It is to run again, or nothing was said of it.
            return
        del self.running[nodeid]
        self.outcomes[nodeid] = test.outcome
        file, line, _ = location
        about = dict(test.about, file=self.files.name(file), line=None if line is None else line + 1)
        properties = [[str(name), str(value)] for name, value in test.report.user_properties]
        about.update(properties=properties or None)
        if test.outcome in ("failed", "error"):
            about.update(self.printed(test.report.sections))
        self.record.say("end", id=nodeid, at=self.record.now(), seconds=round(test.seconds, 6),
                        outcome=test.outcome, **about)

    @staticmethod
    def printed(sections):
        streams = {"stdout": [], "stderr": []}
        for name, content in sections:
            streams["stderr" if "stderr" in name else "stdout"].append("--- %s ---\n%s" % (name, content))
        return {name: "\n".join(parts) for name, parts in streams.items() if parts}

    # Ending

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo):
        message, is_exit = str(excinfo.value), isinstance(excinfo.value, pytest.exit.Exception)
        if is_exit:
            for nodeid in self.running:
                self.record.say("failure", id=nodeid, outcome="error", kind="Exit",
                                message="it ended the session: " + first_line(message), text=message)
        told = self.running or self.errors or self.failures
        if not told and (is_exit or type(excinfo.value) is not KeyboardInterrupt):
            self.error("session", message, text=message)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr, excinfo):
        self.error("hook", excinfo.exconly(), text=with_headline(str(excrepr)))

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        before = session.exitstatus
        session.exitstatus = status = Status(before)
        outcome = yield
        if outcome.excinfo is not None:
            excinfo = pytest.ExceptionInfo.from_exc_info(outcome.excinfo)
            exit_of = getattr(excinfo.value, "returncode", None)
            session.exitstatus = before if exit_of is None else exit_of
            text = with_headline(str(excinfo.getrepr(style="native")))
            self.error("hook", excinfo.exconly(), name="pytest_sessionfinish", text=text)
        elif session.exitstatus is status:
            session.exitstatus = before
        elif session.exitstatus and not self.starts_again:
            self.error("session", "a plugin set the exit status to %d" % session.exitstatus)
        self.tell_rest(session)

    def tell_rest(self, session):
        if self.starts_again and not self.errors:
            return
        uncounted = session.testsfailed - self.counted
        if uncounted > 0 and not self.errors:
            self.error("session", "a plugin counted %d more failures than tests have" % uncounted)
        status, reason = int(session.exitstatus), session.shouldfail or session.shouldstop
        is_told = self.running or self.errors or self.failures
        if status not in (0, 5) and not is_told:
            self.error("session", str(reason) if reason else "the session ended with exit status %d" % status)
        if not self.running:
            self.record.say("finish", exit=status)


class Properties:
    @pytest.fixture(scope="session")
    def record_testsuite_property(self, record_testsuite_property):
        """pytest's own serves its JUnit file, if there is one, and checks what it gets."""

        def record_property(name, value):
            record_testsuite_property(name, value)
            self.record.say("properties", properties=[[name, str(value)]])

        return record_property

    def __init__(self, record):
        self.record = record


class SharedNames:
    """What suites that were made for xdist look for."""

    def __init__(self, number, count, run):
        self.worker = {"workerid": "gw%d" % number, "workercount": count, "testrunuid": run, "mainargv": ["pytest"]}
        os.environ["PYTEST_XDIST_WORKER"] = self.worker["workerid"]
        os.environ["PYTEST_XDIST_WORKER_COUNT"] = str(count)
        os.environ["PYTEST_XDIST_TESTRUNUID"] = run


class SharedFixtures(SharedNames):
    # Fixtures may ask for others while they are set up.
    depth = 0

    @pytest.fixture(scope="session")
    def worker_id(self):
        return self.worker["workerid"]

    @pytest.fixture(scope="session")
    def testrun_uid(self):
        return self.worker["testrunuid"]

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, request):
        """Only fixtures may take this session for a worker's: plugins would wait for a controller."""
        self.depth += 1
        request.config.workerinput = self.worker
        yield
        self.depth -= 1
        if self.depth == 0:
            del request.config.workerinput


def separate_base(config, worker):
    """Gives each worker its own base folder for `tmp_path`, as xdist does: batches run side by side."""
    factory = config._tmp_path_factory
    given = config.option.basetemp
    if given:
        base = os.path.join(os.path.abspath(given), "popen-" + worker)
        os.makedirs(os.path.dirname(base), mode=0o700, exist_ok=True)
        config.option.basetemp = base
        factory._given_basetemp = type(config.rootpath)(base)
        return
    outer = factory.getbasetemp

    def getbasetemp():
        if factory._basetemp is None:
            base = outer() / ("popen-" + worker)
            base.mkdir(mode=0o700)
            factory._basetemp = base
        return factory._basetemp

    factory.getbasetemp = getbasetemp


def register(order, config):
    record = Record(order["record"])
    register = config.pluginmanager.register
    register(Properties(record), "offload-properties")
    number, count = (os.environ.get(name, "") for name in ("OFFLOAD_SANDBOX", "OFFLOAD_SANDBOXES"))
    if number.isdigit() and count.isdigit() and int(count) > 1:
        has_xdist = config.pluginmanager.hasplugin("xdist")
        names = (SharedFixtures if has_xdist else SharedNames)(int(number), int(count), order["run"])
        register(names, "offload-names")
        separate_base(config, names.worker["workerid"])
    runner = Runner(order, config, record)
    has = config.pluginmanager.hasplugin
    if has("_cov") or offload_coverage.running():
        register(offload_coverage.Batch(config, runner), "offload-coverage")
    if has("syrupy"):
        register(offload_snapshots.Snapshots(config, runner), "offload-syrupy")
    # What is registered last has the last word on how the session ends.
    register(runner, "offload-runner")
