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
from pykka_imagestore.errors import RecordError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS, FILE_FLAGS
from pykka_imagestore.jobs.check.attributes import Expectations
from pykka_imagestore.jobs.check.deep_check import DeepCheck
from pykka_imagestore.jobs.check.findings import Findings, LayerCheck
from pykka_imagestore.runtime.worker import raise_if_discarded, report
from pykka_imagestore.text import shown

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
    stored = Path(request.directory)
    try:
        before = stored.lstat()
    except FileNotFoundError:
        return LayerCheck(("is missing",))
    identity = identify(stored)
    if not stat.S_ISDIR(before.st_mode):
        return LayerCheck(("is no directory",), identity=identity)
    findings = Findings()
    try:
        _check(stored, request, findings)
    except PermissionError as error:
        findings.add_unchecked(f"cannot be looked at by this user: {error.strerror}")
    except OSError:
        if not _is_gone(stored, before):
            raise
    if _is_gone(stored, before):
        return LayerCheck((), ("was removed while it was checked",))
    return replace(findings.result(), identity=identity)


def _is_gone(stored: Path, before: os.stat_result) -> bool:
    try:
        return not os.path.samestat(stored.lstat(), before)
    except FileNotFoundError:
        return True


def _check(stored: Path, request: CheckLayer, findings: Findings) -> None:
    record = _check_parts(stored, request, findings)
    _check_strangers(stored, findings)
    if record is not None and request.deep and not findings:
        _check_deeply(stored, record, request.limits, findings)


def _check_parts(stored: Path, request: CheckLayer, findings: Findings) -> LayerRecord | None:
    record = _check_record(stored, request.diff_id, findings)
    _check_part(stored / ROOTFS, stat.S_IFDIR, "directory", findings)
    if record is None:
        return None
    if record.HasField("stored_bytes"):
        size = _check_part(stored / TAR_SPLIT, stat.S_IFREG, "file", findings)
        if size is not None and record.HasField("split_bytes") and size != record.split_bytes:
            findings.add_fault(f"has a {TAR_SPLIT} of {size} bytes, not {record.split_bytes}")
    elif request.deep:
        findings.add_unchecked(f"was put by a version that kept no {TAR_SPLIT}, so its bytes cannot be checked")
    if record.replaced_lost and request.deep:
        findings.add_unchecked("replaces its own files in a way that was not kept, so its bytes cannot be checked")
    return record


def _check_deeply(stored: Path, record: LayerRecord, limits: Limits, findings: Findings) -> None:
    tick = _Ticker(record.size_bytes).tick
    try:
        expected = Expectations(record, (stored / RECORD).lstat(), findings)
        with _opened(stored) as (root, split):
            DeepCheck(stored, root, split, record, expected, limits, findings, tick).run()
    except PermissionError as error:
        findings.add_unchecked(f"cannot be read by this user: {error.strerror}")


def _check_record(stored: Path, diff_id: DiffID, findings: Findings) -> LayerRecord | None:
    try:
        record = read_record(stored)
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


def _check_strangers(stored: Path, findings: Findings) -> None:
    try:
        directory = os.open(stored, DIRECTORY_FLAGS)
        try:
            strangers = sorted(set(os.listdir(directory)) - _PARTS)
        finally:
            os.close(directory)
    except PermissionError as error:
        findings.add_unchecked(f"cannot be read by this user: {error.strerror}")
        return
    for name in strangers:
        findings.add_fault(f"has {shown(name)} beside its parts, which no put made")


@contextmanager
def _opened(stored: Path) -> Iterator[tuple[int, int]]:
    root = os.open(stored / ROOTFS, DIRECTORY_FLAGS)
    try:
        split = os.open(stored / TAR_SPLIT, FILE_FLAGS)
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
