"""Check that a stored layer is what it must be. Runs in a worker process; writes nothing."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import RECORD, REPLACED, ROOTFS, TAR_SPLIT
from pykka_imagestore.durable.identity import identify
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.errors import RecordError, shown
from pykka_imagestore.fs.flags import FILE_FLAGS, FOLDER_FLAGS
from pykka_imagestore.jobs.check.attributes import Expectations
from pykka_imagestore.jobs.check.deep_check import DeepCheck
from pykka_imagestore.jobs.check.findings import Findings, LayerCheck
from pykka_imagestore.runtime.worker import raise_if_discarded, report

_PARTS = {RECORD, ROOTFS, TAR_SPLIT, REPLACED}
_REPORT_INTERVAL = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class CheckLayer:
    """What to check.

    Attributes:
        directory: The layer's, in the store.
        diff_id: What it must be.
        deep: Whether to read every byte; else only to see that its parts are there.
        limits: How much it may ask for, as when it was put.
    """

    directory: str
    diff_id: DiffID
    deep: bool = False
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """How far a deep check has come.

    Attributes:
        checked_bytes: Of the layer's uncompressed tar.
        size_bytes: All of them, as the layer's record says.
    """

    checked_bytes: int
    size_bytes: int


def check_layer(request: CheckLayer) -> LayerCheck:
    """Look at a stored layer, and tell what is wrong with it.

    Reports CheckCounts ten times a second at most, if the check is deep.

    Raises:
        OSError: The layer cannot be looked at.
    """
    directory = Path(request.directory)
    try:
        before = directory.lstat()
    except FileNotFoundError:
        return LayerCheck(("is missing",))
    identity = identify(directory)
    if not stat.S_ISDIR(before.st_mode):
        return LayerCheck(("is no folder",), identity=identity)
    findings = Findings()
    try:
        _check(directory, request, findings)
    except PermissionError as error:
        findings.add_unchecked(f"cannot be looked at by this user: {error.strerror}")
    except OSError:
        if not _is_gone(directory, before):
            raise
    if _is_gone(directory, before):
        return LayerCheck((), ("was removed while it was checked",))
    return replace(findings.result(), identity=identity)


def _is_gone(directory: Path, before: os.stat_result) -> bool:
    try:
        return not os.path.samestat(directory.lstat(), before)
    except FileNotFoundError:
        return True


def _check(directory: Path, request: CheckLayer, findings: Findings) -> None:
    record = _check_parts(directory, request, findings)
    _check_strangers(directory, findings)
    if record is not None and request.deep and not findings:
        _check_deeply(directory, record, request.limits, findings)


def _check_parts(directory: Path, request: CheckLayer, findings: Findings) -> LayerRecord | None:
    record = _check_record(directory, request.diff_id, findings)
    _check_part(directory / ROOTFS, stat.S_IFDIR, "folder", findings)
    if record is None:
        return None
    if record.HasField("stored_bytes"):
        size = _check_part(directory / TAR_SPLIT, stat.S_IFREG, "file", findings)
        if size is not None and record.HasField("split_bytes") and size != record.split_bytes:
            findings.add_fault(f"has a {TAR_SPLIT} of {size} bytes, not {record.split_bytes}")
    elif request.deep:
        findings.add_unchecked(f"was put by a version that kept no {TAR_SPLIT}, so its bytes cannot be checked")
    if record.replaced_lost and request.deep:
        findings.add_unchecked("replaces its own files in a way that was not kept, so its bytes cannot be checked")
    return record


def _check_deeply(directory: Path, record: LayerRecord, limits: Limits, findings: Findings) -> None:
    tick = _Ticker(record.size_bytes).tick
    try:
        expected = Expectations(record, (directory / RECORD).lstat(), findings)
        with _opened(directory) as (root, split):
            DeepCheck(directory, root, split, record, expected, limits, findings, tick).run()
    except PermissionError as error:
        findings.add_unchecked(f"cannot be read by this user: {error.strerror}")


def _check_record(directory: Path, diff_id: DiffID, findings: Findings) -> LayerRecord | None:
    try:
        record = read_record(directory)
    except RecordError as error:
        if isinstance(error.__cause__, PermissionError):
            findings.add_unchecked(f"has a record {RECORD} that this user cannot read: {error.__cause__.strerror}")
            return None
        findings.add_fault(f"has no sound record {RECORD}: {error.reason}")
        return None
    if record.diff_id != diff_id:
        findings.add_fault(f"has the record of another, {record.diff_id}")
    return record


def _check_part(part: Path, kind: int, what: str, findings: Findings) -> int | None:
    """Return the size of a part; None if it is not what it should be."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        findings.add_fault(f"lacks its {what} {part.name}")
        return None
    if stat.S_IFMT(found.st_mode) != kind:
        findings.add_fault(f"has a {part.name} that is no {what}")
        return None
    return found.st_size


def _check_strangers(directory: Path, findings: Findings) -> None:
    try:
        folder = os.open(directory, FOLDER_FLAGS)
        try:
            strangers = sorted(set(os.listdir(folder)) - _PARTS)
        finally:
            os.close(folder)
    except PermissionError as error:
        findings.add_unchecked(f"cannot be read by this user: {error.strerror}")
        return
    for name in strangers:
        findings.add_fault(f"has {shown(name)} beside its parts, which no put made")


@contextmanager
def _opened(directory: Path) -> Iterator[tuple[int, int]]:
    root = os.open(directory / ROOTFS, FOLDER_FLAGS)
    try:
        split = os.open(directory / TAR_SPLIT, FILE_FLAGS)
        try:
            yield root, split
        finally:
            os.close(split)
    finally:
        os.close(root)


class _Ticker:
    """Looks now and then whether to stop, and whether it is time to report."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._next = 0.0

    def tick(self, checked_bytes: int) -> None:
        raise_if_discarded()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_INTERVAL
            report(CheckCounts(checked_bytes, self._size_bytes))
