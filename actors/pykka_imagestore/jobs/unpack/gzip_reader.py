"""Inflates gzip. What this imports takes half a megabyte of a worker."""

from __future__ import annotations

from typing import BinaryIO, cast

from isal import igzip, igzip_lib

from pykka_imagestore.jobs.unpack.frames import Readable

_ERROR = cast(type[Exception], igzip_lib.IsalError)  # its stub says that it is an instance


class GzipReader:
    """Reads gzip members in a row as one."""

    def __init__(self, source: BinaryIO) -> None:
        self._file = cast(Readable, igzip.open(source))  # type: ignore[no-untyped-call]

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end.

        Raises:
            EOFError, OSError, ValueError: The compressed bytes are damaged or cut off, or the disk failed.
        """
        try:
            return self._file.read(size)
        except _ERROR as error:
            raise ValueError(str(error)) from error
