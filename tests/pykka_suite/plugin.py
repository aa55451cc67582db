"""Run Pykka's own tests with our ``Actor`` and ``Future`` as a further runtime, beside ``threading``.

A pytest plugin: ``make pykka-suite PYKKA_SOURCE=DIR`` loads it into a run of the tests of a checkout of Pykka.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections import Counter

import pytest

from pykka_imagestore.runtime import Actor, Future

OURS, THEIRS = "imagestore", "threading"
FLATTENED = "a future in a future is flattened, by design: a get returns the value, where Pykka's returns the inner one"
EXCEPTIONS = {
    "tests/proxy/test_dynamic_method_calls.py::test_can_proxy_itself_and_use_attrs_added_at_runtime": FLATTENED,
    "tests/proxy/test_static_method_calls.py::test_can_proxy_itself_for_offloading_work_to_the_future": FLATTENED,
    "tests/test_future.py::test_future_in_future_works": FLATTENED,
}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime" not in metafunc.fixturenames:
        return
    theirs = importlib.import_module("tests.conftest").RUNTIMES
    types = importlib.import_module("tests.types")
    ours = types.Runtime(
        name=OURS,
        actor_class=Actor,
        event_class=threading.Event,
        future_class=Future,
        sleep_func=time.sleep,
    )
    runtimes = [*theirs.values(), pytest.param(ours, id=OURS)]
    # As a mark, which wins over the parameters that Pykka's fixture has.
    metafunc.definition.add_marker(pytest.mark.parametrize("runtime", runtimes, indirect=True, scope="session"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name, _, runtime = item.nodeid.partition("[")
        if name in EXCEPTIONS and runtime.startswith(OURS):
            # Strict: one that passes is no exception any more, and fails the run. So does any other kind of error.
            item.add_marker(pytest.mark.xfail(reason=EXCEPTIONS[name], raises=AttributeError, strict=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("figures of each runtime")
    for runtime in (THEIRS, OURS):
        counts = Counter(
            outcome
            for outcome in ("passed", "failed", "error", "xfailed", "skipped")
            for report in terminalreporter.getreports(outcome)
            if f"[{runtime}" in report.nodeid
        )
        figures = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"{runtime:10} {figures or 'none'}")
