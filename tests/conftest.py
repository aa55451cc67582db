from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest
from hypothesis import HealthCheck, settings
from support.privileges import ORDINARY_USER, ordinary_users_place
from support.processes import TIMEOUT
from support.rootfs import copy_package, no_mounts_left, require_mounts
from support.stores import opened

from pykka_imagestore import LocalStore
from pykka_imagestore.fs.remove_tree import remove_tree

pytest_plugins = ["support.surroundings"]

# A time limit on each example, or on how long inputs take to make, would fail a sound test on a busy machine. CI looks
# at the same examples each time: what fails there is the change's fault, and to look for new ones is what runs
# elsewhere are for.
settings.register_profile(
    "patient", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("IMAGESTORE_COMBINATIONS") != "all":
        left_out = set(combinations_of_other_pythons(items))
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root, for devices, owners or trusted attributes"))


def combinations_of_other_pythons(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the combinations that this version of Python leaves to others; three versions in a row run all."""
    marked = [item for item in items if item.get_closest_marker("combinations")]
    functions = Counter(map(_function_of, marked))
    seen: Counter[str] = Counter()
    left_out = []
    for item in marked:
        function = _function_of(item)
        seen[function] += 1
        if functions[function] >= 3 and (seen[function] + sys.version_info.minor) % 3:
            left_out.append(item)
    return left_out


def _function_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Here, since where tests run in several processes, the one that reports loads no conftest.py further down.
    sums: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "teardown":
            sums.update(dict(report.user_properties).get("crash", {}))
    if sums:
        kinds = ("power cuts", "device images", "kills", "injected errors", "swaps")
        what = ", ".join(f"{sums[kind]} {kind}" for kind in kinds)
        terminalreporter.write_line(f"crash: {what}")


@pytest.fixture(autouse=True)
def _stop_all_actors() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(timeout=TIMEOUT)


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(request: pytest.FixtureRequest) -> Iterator[None]:
    if "tmp_path" not in request.fixturenames:
        yield
        return
    with no_mounts_left(request.getfixturevalue("tmp_path")):
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """Return an empty store whose work is done by threads: those start at once."""
    with opened(tmp_path / "store", durable=False) as store:
        yield store


@pytest.fixture(scope="session")
def package_for_all() -> Iterator[Path]:
    """Return where any user may import a copy of the package; the one in use may be where only root may enter.

    It is the ordinary user's, whose Python keeps there what it compiles.
    """
    directory = Path(tempfile.mkdtemp(prefix="imagestore-test-", dir=ordinary_users_place()))
    directory.chmod(0o755)
    copy_package(directory)
    if os.geteuid() == 0:
        for copied in (directory, *directory.rglob("*")):
            os.chown(copied, ORDINARY_USER, ORDINARY_USER)
    yield directory
    remove_tree(str(directory))


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[None]:
    """Skip the test where nothing can be mounted; require that nothing stays so below its directory."""
    require_mounts()
    with no_mounts_left(tmp_path):
        yield


@pytest.fixture
def users_directory() -> Iterator[Path]:
    """Return an empty directory of the ordinary user that ``privileges`` calls functions as."""
    directory = Path(tempfile.mkdtemp(prefix="imagestore-test-", dir=ordinary_users_place()))
    if os.geteuid() == 0:
        os.chown(directory, ORDINARY_USER, ORDINARY_USER)
    yield directory
    remove_tree(str(directory))
