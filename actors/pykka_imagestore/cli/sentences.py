"""Errors as sentences for people."""

from __future__ import annotations

import os

from pykka_imagestore.cli.descriptors import shown_descriptor
from pykka_imagestore.cli.process_limit import explain_if_at_limit
from pykka_imagestore.errors import AmbiguousImageError, StoreError

# Named here, not imported: the runtime is slow to import, and the verbs that only read do not need it.
_RUNTIME_ERRORS = "pykka_imagestore.runtime.errors"


def sentence_of(error: Exception) -> str:
    """Return the sentence that tells a user of an error; it is not escaped."""
    return shown_descriptor(_text_of(error))


def _text_of(error: Exception) -> str:
    if isinstance(error, AmbiguousImageError):
        return f"{error}; see --name and --select"
    if not isinstance(error, StoreError | OSError) and (explained := explain_if_at_limit(error)) is not None:
        return explained
    if isinstance(error, StoreError | ImportError) or type(error).__module__ == _RUNTIME_ERRORS:
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"unexpected {type(error).__qualname__}: {error}"
