"""A layer's time limit covers all that an archive, or what was stored of it, can make a worker do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.images import docker_save, layer, long_layer, write_members
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore
from pykka_imagestore.jobs.answers.allowlist import ANSWERS
from pykka_imagestore.runtime import Future, WorkerPool, WorkerTimeoutError

LIMIT = 1234.5  # seconds
LIMITED = {"untar_image", "hash_layer", "untar_layer", "help_unpack", "check_layer"}
NOT_LIMITED = {"remove_tree", "check_configs"}


class RecordingPool(WorkerPool):
    """Remembers the time limit of each task."""

    def __init__(self) -> None:
        super().__init__(2, answers=ANSWERS)
        self.limits: dict[str, set[float | None]] = {}

    def run(self, function: Callable[[Any], Any], argument: Any, **options: Any) -> Future[Any]:
        name = getattr(function, "func", function).__name__
        self.limits.setdefault(name, set()).add(options.get("time_limit"))
        return super().run(function, argument, **options)


def legacy(path: Path) -> Path:
    """Write an archive as Docker did before 1.10, whose layers nobody says the digests of."""
    name = hashlib.sha256(b"leaf").hexdigest()
    members = {
        f"{name}/json": json.dumps({"id": name, "os": "linux"}).encode(),
        f"{name}/layer.tar": layer({"legacy": b""}),
        "repositories": json.dumps({"legacy": {"latest": name}}).encode(),
    }
    return write_members(path, members)


def test_all_that_an_archive_asks_for_has_the_time_limit_and_a_removal_has_none(tmp_path: Path) -> None:
    large = docker_save(tmp_path / "large.tar", {"large": [long_layer()]})
    with (
        RecordingPool() as pool,
        LocalStore.start(tmp_path / "store", durable=False, layer_time_limit=LIMIT, pool=pool) as store,
    ):
        store.put("legacy", legacy(tmp_path / "legacy.tar")).get(timeout=TIMEOUT)
        store.put("large", large).get(timeout=TIMEOUT)
        store.check(deep=True).get(timeout=TIMEOUT)
        store.remove("large").get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)

    assert {name for name, limits in pool.limits.items() if limits == {LIMIT}} == LIMITED
    assert {name for name, limits in pool.limits.items() if limits == {None}} == NOT_LIMITED
    assert pool.limits.keys() == LIMITED | NOT_LIMITED


def test_index_of_an_archive_that_does_not_come_to_its_end_is_given_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        with LocalStore.start(tmp_path / "store", durable=False, workers=1, layer_time_limit=2) as store:
            with pytest.raises(WorkerTimeoutError, match="untar_image"):
                store.put("app", pipe).get(timeout=TIMEOUT)
            assert os.listdir(tmp_path / "store" / "staging") == []
    finally:
        os.close(writer)


def test_layer_that_takes_too_long_is_not_checked_and_no_fault(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "app.tar", {"app": [layer({"file": b"x"})]})
    with LocalStore.start(tmp_path / "store", durable=False, workers=1) as store:
        store.put("app", archive).get(timeout=TIMEOUT)

    with LocalStore.start(tmp_path / "store", durable=False, workers=1, layer_time_limit=1e-6) as store:
        report = store.repair(deep=True).get(timeout=TIMEOUT)

    assert (report.faults, report.taken_out) == ((), ())
    assert [finding.reason for finding in report.unchecked] == [
        "takes longer to check than the 1e-06 seconds that a layer may take"
    ]
