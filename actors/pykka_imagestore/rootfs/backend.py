"""What every backend does, and when.

    refusal   may it serve this request here? Nothing is made; a sentence says why not.
    parts     work that can be done side by side in worker processes: what is to be copied or linked. Often none.
    mount     in a thread of the agent, after all parts: mounts, opens, attaches. On return the root file system is
              complete.
    unmount   in a thread, perhaps of another process than the one that mounted: nothing of it is used afterwards,
              and its directory may be removed.

Each step may be run again after it was cut off anywhere, on the same directory. A step that fails leaves nothing but
what the removal of the container's directory removes, and no mount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest


@dataclass(frozen=True, slots=True)
class Mounted:
    """A root file system that is there.

    Attributes:
        fd: A descriptor of its root directory or its mount; the caller closes it.
        path: Where it is attached; None if it is not, or only in a namespace of its own.
        namespace_pid: The process that holds the namespaces in which it is mounted; None if those are ours.
    """

    fd: int
    path: str | None = None
    namespace_pid: int | None = None


class Backend(Protocol):
    """One way to make root file systems.

    Attributes:
        name: What callers choose it by.
        reads: Which whiteouts it reads, and so which fix-ups it is given.
    """

    name: str

    @property
    def reads(self) -> Reads: ...

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why this backend cannot serve a request here; None if it can, as far as can be told beforehand."""

    def parts(self, request: RootfsRequest, workers: int) -> tuple[FillPart, ...]:
        """Return the work that comes before ``mount``, for ``jobs.fill_rootfs``; empty if there is none."""

    def mount(self, request: RootfsRequest) -> Mounted:
        """Make the root file system.

        One that was made of parts may be mounted again, by another process too, and the request has no layers then.

        Raises:
            RootfsError: The kernel refused; the sentence says what, and what to do.
        """

    def unmount(self, request: RootfsRequest) -> None:
        """Undo ``mount``, also of a process that has ended; does nothing where nothing is mounted.

        The request has no layers.
        """

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether it is mounted where ``mount`` attached it, maybe in another process.

        The request has no layers.
        """
