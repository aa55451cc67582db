"""The types that a worker process of a store may answer with, beside plain values: results of the jobs, and errors.

A worker parses hostile archives, so it may have been taken over. Nothing else that it sends is read.
"""

from __future__ import annotations

import builtins
from types import ModuleType

from pykka_imagestore import errors
from pykka_imagestore.core.archive_index import ArchivedImage, ArchiveIndex, RefusedImage
from pykka_imagestore.core.format_error import (
    FormatError,
    LimitExceededError,
    UnsupportedFormatError,
    WrongDigestError,
)
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import Absent, CopyRange, DirectoryMember, Estimate, FileRange, LayerBlob
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_configs import ConfigsCheck
from pykka_imagestore.jobs.check_layer import CheckCounts
from pykka_imagestore.jobs.export_tar import ExportCounts, ExportedTar
from pykka_imagestore.jobs.unpack.batches import MalformedMessageError
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.leader import PeerLostError
from pykka_imagestore.jobs.unpack_into import Unpacked
from pykka_imagestore.runtime.answers import PlainAnswers

_MAX_BYTES = 32 << 20  # of an index, that is 100,000 layers


def _errors_of(module: ModuleType) -> list[type]:
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)]


ANSWERS = PlainAnswers(
    [
        *(ArchivedImage, ArchiveIndex, RefusedImage, FileIdentity),
        *(LayerBlob, FileRange, CopyRange, DirectoryMember, Absent, Estimate),
        *(LayerCounts, Unpacked, CheckCounts, LayerCheck, ConfigsCheck),
        *(ExportCounts, ExportedTar),
        *(FormatError, UnsupportedFormatError, LimitExceededError, WrongDigestError),
        *_errors_of(errors),
        *_errors_of(builtins),
        PeerLostError,
        MalformedMessageError,
    ],
    _MAX_BYTES,
)
