"""Paths of this process' own descriptors, standard input or a shell's ``<(...)``, as worker processes can open them."""

from __future__ import annotations

import os
import re

_OWN = re.compile(r"-|/dev/(stdin|fd/([0-9]+))|/proc/self/fd/([0-9]+)")


def own_descriptor(path: str) -> str:
    """Return the path by which another process finds what is open here, or any other path as it is.

    Spec:
        proc_pid_fd(5).
    """
    own = _OWN.fullmatch(path)
    return path if own is None else f"{_folder()}{own[2] or own[3] or 0}"


def shown_descriptor(sentence: str) -> str:
    """Return a sentence with such paths as users know them."""
    return sentence.replace(_folder(), "/dev/fd/")


def _folder() -> str:
    return f"/proc/{os.getpid()}/fd/"
