"""An image whose layers stay in the store for as long as it is leased."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.leases import HeldLease


class LeasedImage(Uncopyable):
    """An image, and the lease that keeps its layers in the store.

    The lease belongs to this process. It ends with ``release``, at the end of the ``with`` block, when this object is
    no longer referenced, or when the process ends, however it ends. Closing the store does not end it.

    It cannot be copied or pickled. To hand it on to another process, also to a forked child, send the ``token``. That
    process calls ``LocalStore.take_over(token)`` on a store of its own on the same directory, and has a lease of its
    own once that future is ready. Hold this one until the other process has confirmed that, then release it.

    Attributes:
        image: The image; its layers are there.
    """

    instead = "send its token, and call LocalStore.take_over(token) there"

    def __init__(self, image: ImageInfo, lease: HeldLease, note_use: Callable[[], object]) -> None:
        self.image = image
        self._lease = lease
        self._note_use = note_use

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.release()

    @property
    def token(self) -> str:
        """What another process needs to take the lease over; no secret, and valid while this lease is held."""
        return self._lease.token

    def release(self) -> None:
        """End the lease; the image counts as used until now. Idempotent."""
        if self._lease.is_held():
            self._note_use()
        self._lease.release()
