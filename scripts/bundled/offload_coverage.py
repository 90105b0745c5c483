"""The part of offload's pytest plugin that keeps the coverage of batches apart and joins it. PYTEST_DONT_REWRITE

pytest-cov combines all data files that it finds beside its own. So each batch has a place of its own, makes no
report, and sends its data home: a line of JSON with the folder it ran in, then the file. At the end of the run
the project's own pytest is started once more, without tests, to report and to judge the whole.
"""

import base64
import json
import os
import sys

import pytest

CHUNK = 720 * 1024


def controller_of(config):
    """What measures, if pytest-cov is in use and not turned off."""
    plugin = config.pluginmanager.getplugin("_cov")
    return None if plugin is None or getattr(plugin, "_disabled", False) else plugin.cov_controller


def measures_of(controller):
    measures = (getattr(controller, name, None) for name in ("cov", "combining_cov"))
    return [measure for measure in measures if measure is not None]


def silence(measures):
    """No warnings that tell of a part only."""
    for measure in measures:
        measure._warn_no_data = measure._warn_unimported_source = measure._warn_preimported_source = False


def separate(options, folder):
    """Before pytest-cov starts: a folder for the data of this batch and of the processes that its tests start."""
    if getattr(options, "cov_source", None):
        os.makedirs(folder, exist_ok=True)
        os.environ["COVERAGE_FILE"] = os.path.join(folder, ".coverage")


class Batch:
    """No report and no threshold."""

    def __init__(self, config, runner):
        self.runner = runner
        self.controller = controller_of(config)
        if self.controller is None:
            return
        options = config.pluginmanager.getplugin("_cov").options
        options.cov_report = self.controller.cov_report = {}
        options.cov_fail_under = None
        silence(measures_of(self.controller))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        path = os.environ.get("COVERAGE_FILE")
        if self.controller is None or self.runner.starts_again or not path or not os.path.exists(path):
            return
        header = json.dumps({"folder": str(session.config.invocation_params.dir)}) + "\n"
        with open(path, "rb") as file:
            data = header.encode("ascii") + file.read()
        for begin in range(0, len(data), CHUNK):
            part = base64.b64encode(data[begin : begin + CHUNK]).decode("ascii")
            self.runner.record.say("data", name="coverage", content=part)


class Conclusion:
    """A session without tests, in which pytest-cov combines what batches measured."""

    def __init__(self, order, config):
        self.folder = order["data"]
        self.config = config
        # Only the report is of interest.
        config.option.verbose = -2

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session):
        # Without tests pytest would end with another status.
        session.testscollected = 1
        controller = controller_of(self.config)
        if controller is not None:
            self.bring_data(controller)
        return True

    def bring_data(self, controller):
        measures = measures_of(controller)
        silence(measures)
        place = os.path.abspath(measures[-1].config.data_file)
        here = str(self.config.invocation_params.dir)
        folders = []
        for number, name in enumerate(sorted(os.listdir(self.folder))):
            with open(os.path.join(self.folder, name), "rb") as file:
                folders.append(json.loads(file.readline())["folder"])
                data = file.read()
            with open("%s.offload.%d" % (place, number), "wb") as file:
                file.write(data)
        others = sorted(set(folders) - {here})
        for measure in measures if others else ():
            measure.config.paths["offload"] = [here] + others

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
