"""What the command's runs are given, and what they must say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwritable_output(how: str) -> Iterator[int]:
    """Lend a descriptor that cannot be written to: of a full disk, or of a pipe whose other end is closed."""
    if how == "full disk":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    yield target
    os.close(target)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 1, nothing on stdout, and one sentence that has these words."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("imagestore: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
