"""The shallow check of a layer: its parts are there, and its record is sound and its own. No file's content is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.paths import RECORD, REPLACED, ROOTFS, TAR_SPLIT
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.errors import RecordError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.text import shown

_PARTS = {RECORD, ROOTFS, TAR_SPLIT, REPLACED}


def check_parts(stored: Path, diff_id: DiffID, findings: Findings) -> LayerRecord | None:
    """Look at the parts of a stored layer.

    Args:
        stored: Its directory.
        diff_id: The layer that it must be.
        findings: Gets what is wrong, and what could not be checked.

    Returns:
        Its record; None if that cannot be read.

    Raises:
        OSError: The layer cannot be looked at.
    """
    record = _check_record(stored, diff_id, findings)
    _check_part(stored / ROOTFS, stat.S_IFDIR, "directory", findings)
    if record is not None and keeps_tar_split(record):
        size = _check_part(stored / TAR_SPLIT, stat.S_IFREG, "file", findings)
        if size is not None and record.HasField("split_bytes") and size != record.split_bytes:
            findings.add_fault(f"has a {TAR_SPLIT} of {size} bytes, not {record.split_bytes}")
    _check_strangers(stored, findings)
    return record


def keeps_tar_split(record: LayerRecord) -> bool:
    """Tell whether a layer was put by a version that kept its tar-split."""
    return record.HasField("stored_bytes")


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
        findings.add_fault(f"has the record of another layer, {record.diff_id}")
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
