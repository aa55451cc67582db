"""The folder that a caller names for what the workers say about a put: files ``stdout`` and ``stderr``."""

from __future__ import annotations

import os
from typing import Self


class Sandbox:
    """Appends whole lines, also beside other workers; an error that leaves the ``with`` block goes to ``stderr``.

    Args:
        folder: Made if it is missing; None says nothing anywhere.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        if self._folder is not None:
            os.makedirs(self._folder, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._append("stderr", str(error) or repr(error))

    def say(self, line: str) -> None:
        """Add a line to ``stdout``."""
        self._append("stdout", line)

    def _append(self, file: str, line: str) -> None:
        if self._folder is not None:
            with open(os.path.join(self._folder, file), "ab", buffering=0) as stream:
                stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
