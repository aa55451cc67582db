"""Check that a stored layer is what was put. Runs in a worker process; writes nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import TAR_SPLIT
from pykka_imagestore.durable.identity import identify
from pykka_imagestore.jobs.check.deep_check import check_deeply
from pykka_imagestore.jobs.check.findings import Findings, LayerCheck
from pykka_imagestore.jobs.check.shallow_check import check_parts, keeps_tar_split
from pykka_imagestore.jobs.unpack.ticker import Ticker


@dataclass(frozen=True, slots=True)
class CheckLayer:
    """Which layer to check, and how.

    Attributes:
        directory: The layer's directory in the store.
        diff_id: The layer that it must be.
        deep: Whether to read every byte; if not, only its parts are looked at.
        limits: The limits on its entries, as when it was put.
    """

    directory: str
    diff_id: DiffID
    deep: bool = False
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """How far a deep check has come.

    Attributes:
        checked_bytes: Bytes of the layer's uncompressed tar that were checked.
        size_bytes: The size of that tar, as the layer's record says.
    """

    checked_bytes: int
    size_bytes: int


def check_layer(request: CheckLayer) -> LayerCheck:
    """Check a stored layer; return what is wrong with it.

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
    record = check_parts(stored, request.diff_id, findings)
    if record is None or not request.deep:
        return
    _note_missing_bytes(record, findings)
    if not findings:
        ticker = Ticker(partial(CheckCounts, size_bytes=record.size_bytes))
        check_deeply(stored, record, request.limits, findings, ticker.tick)


def _note_missing_bytes(record: LayerRecord, findings: Findings) -> None:
    """Note what the put did not keep, so that the tar cannot be put together again."""
    if not keeps_tar_split(record):
        findings.add_unchecked(f"was put by an older version that kept no {TAR_SPLIT}, so its bytes cannot be checked")
    if record.replaced_lost:
        findings.add_unchecked("replaces its own files in a way that was not kept, so its bytes cannot be checked")
