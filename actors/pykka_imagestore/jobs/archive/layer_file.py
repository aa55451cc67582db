"""A layer that is a file of its own."""

from __future__ import annotations

import os
import stat

from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import FileRange, LayerBlob
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.jobs.archive.opening import open_for_reading


def layer_file(path: str) -> LayerBlob:
    """Return the layer in a file.

    Raises:
        InvalidInputError: It is no file.
        OSError: It cannot be read.
    """

    def refusal(found: str) -> InvalidInputError:
        return InvalidInputError(f"{path} is no file, but {found}")

    file = open_for_reading(path, refusal, stat.S_IFREG)
    try:
        identity = FileIdentity.of(os.fstat(file))
        return LayerBlob(os.path.basename(path), identity.size_bytes, FileRange(path, 0, identity))
    finally:
        os.close(file)
