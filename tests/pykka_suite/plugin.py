"""Run Pykka's own tests with our ``Actor`` and ``Future`` as a further runtime, beside ``threading``.

A pytest plugin: ``make pykka-suite PYKKA_SOURCE=DIR`` loads it into a run of the tests of a checkout of Pykka.
"""

from __future__ import annotations

import importlib
import threading
import time

import pytest

from pykka_imagestore.runtime import Actor, Future


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime" not in metafunc.fixturenames:
        return
    theirs = importlib.import_module("tests.conftest").RUNTIMES
    types = importlib.import_module("tests.types")
    ours = types.Runtime(
        name="imagestore",
        actor_class=Actor,
        event_class=threading.Event,
        future_class=Future,
        sleep_func=time.sleep,
    )
    runtimes = [*theirs.values(), pytest.param(ours, id="imagestore")]
    # As a mark, which wins over the parameters that Pykka's fixture has.
    metafunc.definition.add_marker(pytest.mark.parametrize("runtime", runtimes, indirect=True, scope="session"))
