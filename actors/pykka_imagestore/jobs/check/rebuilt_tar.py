"""A layer's tar, put together again from its tar-split and the bodies of its files, and hashed on the way."""

from __future__ import annotations

import os
from collections.abc import Callable

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.core.tar.format import FILE, Entry
from pykka_imagestore.fs.holes import has_only_holes
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.unpack.tar_split import TarSplitReader
from pykka_imagestore.text import shown


class RebuiltTar:
    """The tar. Its entries are read from ``source``; the caller adds the body of each file when it is at its entry.

    Args:
        split: Descriptor of the tar-split.
        tick: Called now and then with the number of bytes that were hashed.

    Attributes:
        source: What a tar reader reads.
        is_whole: Whether all bodies were added so far. If not, the digest says nothing.
    """

    def __init__(self, split: int, findings: Findings, tick: Callable[[int], object]) -> None:
        self.source = TarSplitReader(split, lambda: tick(self.source.size_bytes))
        self.is_whole = True
        self._findings = findings

    def add_body(self, entry: Entry, file: int, path: bytes, found_bytes: int) -> None:
        """Add the body of a file, of ``found_bytes`` by its status, that is open as ``file``."""
        size = size_of(entry)
        if found_bytes != size:
            self._findings.add_fault(f"has {shown(path)} of {found_bytes} bytes, not {size}")
            self.is_whole = False
        elif entry.sparse is None:
            self._add_segment(file, path, 0, size)
        else:
            for segment in entry.sparse.segments:
                self._add_segment(file, path, *segment)
            if not has_only_holes(file, entry.sparse):
                self._findings.add_fault(f"has {shown(path)} with bytes where it should have a hole")

    def miss_body(self, entry: Entry) -> None:
        """Note that the body of an entry cannot be added, if it is a file's."""
        self.is_whole = self.is_whole and entry.kind != FILE

    def _add_segment(self, file: int, path: bytes, offset: int, size: int) -> None:
        while size:
            try:
                data = os.pread(file, min(size, BLOCK_BYTES), offset)
            except OSError as error:
                self._findings.add_error(path, error)
                data = b""
            if not data:
                self.is_whole = False
                return
            self.source.add(data)
            offset += len(data)
            size -= len(data)


def size_of(entry: Entry) -> int:
    """Return the size of the file that an entry makes, holes and all."""
    return entry.size if entry.sparse is None else entry.sparse.size_bytes
