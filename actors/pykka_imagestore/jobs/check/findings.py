"""What a check finds: what is wrong, and what it could not look at."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from pykka_imagestore.durable.identity import Identity
from pykka_imagestore.text import shown

MAX_FAULTS = 20
# What says nothing of the layer, but of who looks at it.
_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """What a check found; a sound layer has neither faults nor anything that was not checked.

    Attributes:
        faults: What is wrong, each as the end of a sentence about the layer; 20 at most, and how many more there are.
        unchecked: What could not be checked, likewise. Nothing is known to be wrong with it.
        identity: Which directory was looked at; None if there was none.
    """

    faults: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    identity: Identity | None = field(default=None, compare=False)


class Findings:
    """Gathers what a check finds.

    Attributes:
        has_unread: Whether something in the tree could not be looked at by this process.
    """

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._more_faults = 0
        self._unchecked: dict[str, None] = {}
        self.has_unread = False

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self._faults or self._unchecked)

    @property
    def has_faults(self) -> bool:
        """Whether there is anything wrong."""
        return bool(self._faults)

    def add_fault(self, fault: str) -> None:
        """Note that something is wrong; said before, it is not said again."""
        if fault in self._faults:
            return
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(fault)
        else:
            self._more_faults += 1

    def add_unchecked(self, what: str) -> None:
        """Note that something cannot be checked; said before, it is not said again."""
        if len(self._unchecked) < MAX_FAULTS:
            self._unchecked[what] = None

    def add_error(self, path: bytes, error: OSError) -> None:
        """Note that something in the tree could not be looked at, and whose fault that is."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self.add_fault(f"lacks {shown(path)}")
        elif error.errno in _OURS:
            self.has_unread = True
            self.add_unchecked(f"has {shown(path)}, which cannot be read: {error.strerror}")
        else:
            self.add_fault(f"has {shown(path)}, which cannot be read: {error.strerror}")

    def result(self) -> LayerCheck:
        """Return what was found."""
        more = (f"has {self._more_faults} more faults",) if self._more_faults else ()
        return LayerCheck((*self._faults, *more), tuple(self._unchecked))
