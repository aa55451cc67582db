"""What a check of a layer finds: what is wrong, and what could not be checked."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from pykka_imagestore.durable.identity import Identity
from pykka_imagestore.text import shown

MAX_FAULTS = 20
# Errors that say nothing of the layer, only of the process that checks it; or of one in a container that is shown the
# layer's own files, and has a lease of one, fcntl(2).
_OF_THIS_PROCESS = frozenset({errno.EACCES, errno.EAGAIN, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """What a check found. A sound layer that was checked in full has neither faults nor unchecked parts.

    Attributes:
        faults: What is wrong, each as the end of a sentence about the layer: the first 20, and the number of the rest.
        unchecked: What could not be checked, likewise; the first 20. Nothing is known to be wrong with it.
        identity: Identity of the directory that was checked; None if there was none.
    """

    faults: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    identity: Identity | None = field(default=None, compare=False)


class Findings:
    """Collects what a check finds.

    Attributes:
        has_unread: Whether this process could not look at something in the tree.
    """

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._more_faults = 0
        self._unchecked: dict[str, None] = {}
        self.has_unread = False

    def __bool__(self) -> bool:
        """Tell whether anything was found, wrong or unchecked."""
        return bool(self._faults or self._unchecked)

    @property
    def has_faults(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._faults)

    def add_fault(self, fault: str) -> None:
        """Add a fault, once."""
        if fault in self._faults:
            return
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(fault)
        else:
            self._more_faults += 1

    def add_unchecked(self, what: str) -> None:
        """Add something that cannot be checked, once."""
        if len(self._unchecked) < MAX_FAULTS:
            self._unchecked[what] = None

    def add_error(self, path: bytes, error: OSError) -> None:
        """Add a node that could not be looked at: a fault of the layer, or unchecked if the process is the reason."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self.add_fault(f"lacks {shown(path)}")
        elif error.errno in _OF_THIS_PROCESS:
            self.has_unread = True
            self.add_unchecked(f"has {shown(path)}, which cannot be read: {error.strerror}")
        else:
            self.add_fault(f"has {shown(path)}, which cannot be read: {error.strerror}")

    def result(self) -> LayerCheck:
        """Return what was found."""
        more = (f"has {self._more_faults} more faults",) if self._more_faults else ()
        return LayerCheck((*self._faults, *more), tuple(self._unchecked))
