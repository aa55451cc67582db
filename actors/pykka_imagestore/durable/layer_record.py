"""A layer's record, ``layer.pb``: a LayerRecord and nothing else, see proto/layer.proto."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from google.protobuf.message import DecodeError

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.checksum import checksum_fault
from pykka_imagestore.core.digest import is_sha256
from pykka_imagestore.core.paths import RECORD
from pykka_imagestore.errors import RecordError


def read_record(layer_directory: Path) -> LayerRecord:
    """Return the record of the layer in a directory.

    Raises:
        RecordError: It is missing, cannot be read, or is no whole and sound record. One of an older version has no
            checksum, and is taken as it is.
    """
    path = layer_directory / RECORD
    try:
        data = _read(path)
    except OSError as error:
        raise RecordError(str(path), f"it cannot be read: {error.strerror}") from error
    try:
        record = LayerRecord.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise RecordError(str(path), f"it is no LayerRecord: {error}") from error
    # The parser asks neither for required fields nor for UTF-8.
    if not is_sha256(record.diff_id):
        raise RecordError(str(path), "it is no LayerRecord: it names no DiffID")
    if not all(unset.HasField("path") and isinstance(unset.what, str) for unset in record.unset):
        raise RecordError(str(path), "it is no LayerRecord: a field is missing or no text")
    if not all(link.HasField("path") and link.HasField("target") for link in record.lower_links):
        raise RecordError(str(path), "it is no LayerRecord: a hard link lacks its path or target")
    fault = _checksum_fault(data, record)
    if fault is not None:
        raise RecordError(str(path), fault)
    return record


def _checksum_fault(data: bytes, record: LayerRecord) -> str | None:
    if record.HasField("checksum"):
        return checksum_fault(data, record.checksum)
    # With a bit changed in its tag, a checksum is no field that we know.
    return "its checksum is missing: it was changed, or is damaged" if record.HasField("uid") else None


def _read(path: Path) -> bytes:
    # Not blocking: a fifo would be waited on for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a device may have no end
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file.read()
