"""Copies and links of an ordinary user: what takes a mount is mounted in the namespaces of a helper process."""

from __future__ import annotations

from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.copy import Copy, needs_mount
from pykka_imagestore.rootfs.namespace import InNamespace, Namespace


class CopyInNamespace:
    """Makes files as a backend does, and mounts them where this process may, if that is needed.

    A copy that is written to in its own place is a plain directory, as every process of this user sees it.
    """

    def __init__(self, backend: Copy, namespace: Namespace) -> None:
        self.name = backend.name
        self.reads = backend.reads
        self.parts = backend.parts
        self._here = backend
        self._there = InNamespace(backend, namespace)
        self._namespace = namespace

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why a request cannot be served; starts the process that is to mount it, before anything is copied."""
        reason = self._here.why_not_filled(request)
        if reason is None and needs_mount(request):
            obstacle = self._namespace.refusal()
            reason = None if obstacle is None else str(obstacle)
        return reason

    def mount(self, request: RootfsRequest) -> Mounted:
        """Open a root file system that was filled, or mount it; its path is one in the namespaces then.

        Raises:
            RootfsError: The kernel refused, or the process cannot be started.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: It is not there, or the machine has no room.
        """
        return self._for(request).mount(request)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the root file system wherever it is attached."""
        self._for(request).unmount(request)

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether it is still mounted where ``mount`` attached it."""
        return self._for(request).is_attached(request)

    def _for(self, request: RootfsRequest) -> Copy | InNamespace:
        return self._there if needs_mount(request) else self._here
