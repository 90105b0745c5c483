"""The part of offload's pytest plugin that keeps the coverage of batches apart and joins it. PYTEST_DONT_REWRITE

pytest-cov combines all data files that it finds beside its own, and `coverage run` writes its own anew. So each batch
has a place of its own, makes no report, and sends its data home: a line of JSON with the folder it ran in, then the
file. At the end of the run the project's own command is started once more, without tests, to report, to judge or to
write the whole.
"""

import json
import os
import sys

import pytest


def controller_of(config):
    """What measures, if pytest-cov is in use and not turned off."""
    plugin = config.pluginmanager.getplugin("_cov")
    return None if plugin is None or getattr(plugin, "_disabled", False) else plugin.cov_controller


def measures_of(controller):
    measures = (getattr(controller, name, None) for name in ("cov", "combining_cov"))
    return [measure for measure in measures if measure is not None]


def running():
    """What measures this process from its beginning, as `coverage run` does."""
    kind = getattr(sys.modules.get("coverage"), "Coverage", None)
    return kind and kind.current()


def silence(measures):
    """No warnings that tell of a part only."""
    for measure in measures:
        measure._messages = False
        measure._warn_no_data = measure._warn_unimported_source = measure._warn_preimported_source = False


def separate(options, folder):
    """Before pytest-cov starts: a folder for the data of this process and of those that its tests start. Without a
    folder the data stays where it is."""
    measure = None if getattr(options, "cov_source", None) else running()
    if folder and (measure or getattr(options, "cov_source", None)):
        os.makedirs(folder, exist_ok=True)
        os.environ["COVERAGE_FILE"] = os.path.join(folder, ".coverage")
    if measure and folder:
        move(measure, os.environ["COVERAGE_FILE"])
    if measure:
        leave_out_plugin(measure._data)


def move(measure, path):
    """Has the data written to `path`. Nothing was written so far: this is done at the end."""
    measure.config.data_file = path
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        os.environ["COVERAGE_PROCESS_CONFIG"] = measure.config.serialize()
    measure._data = None
    measure._init_data(suffix=None)
    measure._collector.use_data(measure._data, measure.config.context)


def leave_out_plugin(data):
    """Our own files are none of the project's, and will be gone when it reports."""
    from coverage.files import abs_file, relative_filename

    folder = os.path.dirname(os.path.abspath(__file__))
    files = [os.path.join(folder, name) for name in os.listdir(folder)]
    own = {spell(file) for file in files for spell in (abs_file, relative_filename)}
    for name in ("add_lines", "add_arcs"):

        def add_others(found, add=getattr(data, name)):
            add({file: what for file, what in found.items() if file not in own})

        setattr(data, name, add_others)


class Batch:
    """No report and no threshold."""

    def __init__(self, config, runner):
        self.runner = runner
        self.controller = controller_of(config)
        self.measure = running() if self.controller is None else None
        if self.measure is not None:
            silence([self.measure])
        if self.controller is None:
            return
        options = config.pluginmanager.getplugin("_cov").options
        options.cov_report = self.controller.cov_report = {}
        options.cov_fail_under = None
        silence(measures_of(self.controller))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        path = os.environ.get("COVERAGE_FILE")
        if not (self.controller or self.measure) or self.runner.starts_again or not path:
            return
        if self.measure is not None:
            self.measure.get_data()
            if self.measure.config.parallel:
                self.measure.combine([os.path.dirname(path)])
        if not os.path.exists(path):
            return
        header = json.dumps({"folder": str(session.config.invocation_params.dir)}) + "\n"
        with open(path, "rb") as file:
            data = header.encode("ascii") + file.read()
        self.runner.record.send("coverage", data)


class Conclusion:
    """A session without tests, in which pytest-cov or `coverage run` takes in what batches measured."""

    def __init__(self, order, config):
        self.folder = order["data"]
        self.scratch = os.path.dirname(order["path"])
        self.config = config
        # Only the report is of interest.
        config.option.verbose = -2

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session):
        # Without tests pytest would end with another status.
        session.testscollected = 1
        controller, measure = controller_of(self.config), running()
        if controller is not None:
            measures = measures_of(controller)
            self.bring_data(measures, os.path.abspath(measures[-1].config.data_file))
        elif measure is not None:
            measure.combine(self.bring_data([measure], os.path.join(self.scratch, ".coverage")), strict=True)
        return True

    def bring_data(self, measures, place):
        """Writes the data of batches to files beside `place`."""
        silence(measures)
        here = str(self.config.invocation_params.dir)
        folders, files = [], []
        for number, name in enumerate(sorted(os.listdir(self.folder))):
            with open(os.path.join(self.folder, name), "rb") as file:
                folders.append(json.loads(file.readline())["folder"])
                data = file.read()
            files.append("%s.offload.%d" % (place, number))
            with open(files[-1], "wb") as file:
                file.write(data)
        others = sorted(set(folders) - {here})
        for measure in measures if others else ():
            measure.config.paths["offload"] = [here] + others
        return files

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self):
        return True

    def pytest_sessionfinish(self, session):
        plugin = self.config.pluginmanager.getplugin("_cov")
        least = getattr(plugin and plugin.options, "cov_fail_under", None)
        if session.testsfailed and least is not None:
            total = plugin.cov_total
            text = "total coverage is %.2f %%, less than the required %s %%\n" % (total, least)
            os.write(sys.__stderr__.fileno(), text.encode())
