"""The types that a worker process of a store may answer with, beside plain values: results of the jobs, and errors.

A worker parses hostile archives, so it may have been taken over. Nothing else that it sends is read.
"""

from __future__ import annotations

import builtins
from types import ModuleType

from pykka_imagestore import errors
from pykka_imagestore.runtime.answers import PlainAnswers

_MAX_BYTES = 32 << 20  # of an index, that is 100,000 layers

# By name: with what a task answers comes all that it does, which takes longer to import than all else, and a program
# that makes a root file system of what is there runs no task.
NAMES = {
    "core.archive_index": ("ArchivedImage", "ArchiveIndex", "RefusedImage"),
    "core.format_error": ("FormatError", "UnsupportedFormatError", "LimitExceededError", "WrongDigestError"),
    "core.identity": ("FileIdentity",),
    "core.layer_blob": ("LayerBlob", "FileRange", "CopyRange", "DirectoryMember", "Absent", "Estimate"),
    "jobs.check.findings": ("LayerCheck",),
    "jobs.check_configs": ("ConfigsCheck",),
    "jobs.check_layer": ("CheckCounts",),
    "jobs.export_tar": ("ExportCounts", "ExportedTar"),
    "jobs.unpack.batches": ("MalformedMessageError",),
    "jobs.unpack.layer_counts": ("LayerCounts",),
    "jobs.unpack.leader": ("PeerLostError",),
    "jobs.unpack_into": ("Unpacked",),
}


def _errors_of(module: ModuleType) -> list[type]:
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)]


ANSWERS = PlainAnswers(
    [
        *(f"pykka_imagestore.{module}:{name}" for module, names in NAMES.items() for name in names),
        *_errors_of(errors),
        *_errors_of(builtins),
    ],
    _MAX_BYTES,
)
