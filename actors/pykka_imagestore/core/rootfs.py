"""Root file systems, as values: of which directories one is merged, and what somebody wants of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.layer_record import WhiteoutFormat


class Reads(StrEnum):
    """Which whiteouts those read who merge layers; character devices are read by all."""

    TRUSTED = "trusted"
    """An overlay: ``trusted.overlay.opaque``."""
    USER = "user"
    """An overlay that is mounted with ``userxattr``: ``user.overlay.opaque``."""
    ANY = "any"
    """A merge of our own: every form."""


DEVICES_FOR = {
    Reads.TRUSTED: WhiteoutFormat.OVERLAY_TRUSTED,
    Reads.USER: WhiteoutFormat.OVERLAY_USER,
    Reads.ANY: WhiteoutFormat.OVERLAY_USER,  # the one that is shown to every process
}
"""In which form deletions that are devices are kept for those who read them."""


def stack_id(layer_ids: Iterable[str], reads: Reads) -> str:
    """Return what names the fix-ups of a stack of layers, the root layer first, for those who read it so."""
    return _stack_id(tuple(layer_ids), reads)


@lru_cache
def _stack_id(layer_ids: tuple[str, ...], reads: Reads) -> str:
    return sha256("\n".join((reads, *layer_ids)).encode())


@dataclass(frozen=True, slots=True)
class StackLayer:
    """One of the directories that a root file system is merged of.

    Attributes:
        path: A layer's ``rootfs/``, or that of a stack's fix-ups; absolute.
        whiteouts: How deletions are kept in it.
    """

    path: str
    whiteouts: WhiteoutFormat


@dataclass(frozen=True, slots=True)
class RootfsRequest:
    """What to make a root file system of, where, and how.

    Attributes:
        layers: The lowest first. What the stack needs on top to mean what its tars say is the last of them.
        directory: The container's, ``containers/<id>``: whatever is made lies below it.
        read_only: Whether nobody is to write to it.
        attach: Whether it is to be found by a path; else by its descriptor only.
        target: The directory to attach it to; None for ``rootfs`` below ``directory``.
        for_runtime: Whether a container runtime guards it, so that set-user-ID programs and devices are to work.
        upper_bytes: How much may be written to it; None for no bound.
        project: The project whose quota keeps that bound; None where there is none.
    """

    layers: tuple[StackLayer, ...]
    directory: str
    read_only: bool = False
    attach: bool = True
    target: str | None = None
    for_runtime: bool = False
    upper_bytes: int | None = None
    project: int | None = None


@dataclass(frozen=True, slots=True)
class FillPart:
    """A share of filling a directory with what some layers mean together. All shares may be done at once.

    Attributes:
        layers: The lowest first.
        directory: What is filled; it is there, and nobody else writes to it.
        scratch: A directory on the same file system, for what the shares have to tell each other.
        number: Which share, from 0.
        of: How many there are; how much each does turns out when they do it.
        link: Whether files are linked rather than copied.
    """

    layers: tuple[StackLayer, ...]
    directory: str
    scratch: str
    number: int = 0
    of: int = 1
    link: bool = False
