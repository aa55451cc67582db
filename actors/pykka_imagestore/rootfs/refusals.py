"""What is raised where a backend cannot serve a request, which is to leave nothing."""

from __future__ import annotations

import errno
import os

from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.errors import RootfsError
from pykka_imagestore.rootfs.backend import Backend

# What the kernel says of the machine or of this process, and not of one container.
OF_THE_MACHINE = frozenset({errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


def require_served(backend: Backend, request: RootfsRequest) -> None:
    """Require that a backend says nothing against a request.

    Raises:
        RootfsError: It does.
    """
    refusal = backend.refusal(request)
    if refusal is not None:
        raise refused(backend.name, request, refusal)


def refused(backend: str, request: RootfsRequest, reason: str) -> RootfsError:
    """Return what to raise where a backend cannot serve a request."""
    return RootfsError(os.path.basename(request.directory), ((backend, reason),))


def failed(backend: str, request: RootfsRequest, error: OSError) -> Exception:
    """Return what to raise where the kernel refused: the error itself, if another backend would meet it, too."""
    if error.filename is not None or error.errno in OF_THE_MACHINE:  # a directory that is not there; a full disk
        return error
    return refused(backend, request, f"the kernel refused. {error.strerror}")
