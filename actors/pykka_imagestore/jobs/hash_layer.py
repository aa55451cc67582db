"""Find out what a layer is, without unpacking it. Runs in a worker process."""

from __future__ import annotations

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.limiter import Limiter
from pykka_imagestore.jobs.unpack.refusals import layer_refusal
from pykka_imagestore.runtime.worker import raise_if_discarded


def hash_layer(layer: LayerBlob, limits: Limits = DEFAULT_LIMITS) -> DiffID:
    """Return a layer's DiffID.

    Raises:
        LayerError: It cannot be inflated, or to more than the limits allow.
        ArchiveChangedError: Its file is not the one that was indexed, or was written to meanwhile.
    """
    limiter = Limiter(limits, None)

    def after_block(stream: LayerStream) -> None:
        raise_if_discarded()
        limiter.check(stream.bytes_read, stream.size_bytes)

    with open_blob(layer, is_verified=False) as source:
        try:
            stream = LayerStream(source, None, after_block, limits)
            stream.drain()
            return stream.diff_id()
        except TarError as error:
            raise layer_refusal(layer, None, b"", error) from error
