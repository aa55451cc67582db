"""An image whose layers stay for as long as somebody needs them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.leases import HeldLease


class LeasedImage(Uncopyable):
    """An image, and the lease that keeps its layers in the store.

    The lease belongs to this process. It ends with ``release``, or at the end of the ``with`` block, or when nobody has
    this object any more, or when the process ends, however it ends. Closing the store does not end it.

    It cannot be copied or pickled. To hand it on to another process, a forked child too, send the ``token``; that
    process calls ``LocalStore.take_over(token)`` of a store of its own on the same directory, and has a lease of its
    own once that future is ready. Until then hold this one: have the other process say so, then release.

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
        """What another process needs to take the lease over; no secret, and good for as long as this one is held."""
        return self._lease.token

    def release(self) -> None:
        """Need the layers no longer; until now the image was used. Idempotent."""
        if self._lease.is_held():
            self._note_use()
        self._lease.release()
