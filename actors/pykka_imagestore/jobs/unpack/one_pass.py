"""One pass over a layer's bytes: inflate, hash, parse, extract."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.errors import DigestMismatchError, LayerError
from pykka_imagestore.jobs.unpack.extractor import Extracted, Extractor
from pykka_imagestore.jobs.unpack.hash_thread import HashThread
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.leader import Leader
from pykka_imagestore.jobs.unpack.limiter import Limiter, too_large
from pykka_imagestore.jobs.unpack.refusals import layer_refusal
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.ticker import Ticker
from pykka_imagestore.text import plain, shown

_FIRST_REPORT = 0.02  # seconds: upon it, peers are called


@dataclass(frozen=True, slots=True)
class UnpackedLayer:
    """What a layer was, and what became of it."""

    counts: LayerCounts
    extracted: Extracted


def unpack(
    source: ByteSource,
    layer: LayerBlob,
    root: int,
    path: str,
    diff_id: DiffID | None,
    *,
    limits: Limits = DEFAULT_LIMITS,
    replaced: Replaced | None = None,
    keep: Callable[[bytes], object] | None = None,
    peers_at: str | None = None,
    keep_root: bool = False,
    keeps_lower_links: bool = False,
) -> UnpackedLayer:
    """Unpack a layer into the empty directory that is open as ``root``; check its DiffID.

    Args:
        source: The layer's bytes as they are stored.
        layer: What is known of them.
        path: Where that directory is, for errors.
        diff_id: What the layer must turn out to be; None takes any.
        replaced: Keeps what later entries replace; by default nothing does.
        keep: Called with the bytes of the tar that are no file's body.
        peers_at: Where to wait for peers; None to have none.
        keep_root: Leave the directory's own owner, mode and attributes as they are.
        keeps_lower_links: Whether to return hard links to files of lower layers; else they are refused.

    Raises:
        As ``untar_layer``; what was unpacked so far stays.
    """
    replaced = Replaced() if replaced is None else replaced
    with (
        HashThread() as hash_thread,
        Leader(peers_at, root, replaced) as leader,
        closing(
            Extractor(root, leader, replaced, limits, keep_root=keep_root, keeps_lower_links=keeps_lower_links)
        ) as extractor,
    ):
        limiter, ticker = Limiter(limits, path, root), Ticker(LayerCounts, _FIRST_REPORT)

        def after_block(stream: LayerStream) -> None:
            leader.welcome()
            hash_thread.enable(is_enabled=leader.has_idle_peer())  # an idle peer leaves a CPU
            limiter.check(stream.bytes_read, stream.size_bytes)
            ticker.tick(stream.bytes_read, extractor.entries, stream.size_bytes)

        stream = LayerStream(source, layer.digest, after_block, limits, keep, hash_thread)
        try:
            extracted = _extract_all(layer, stream, extractor, limits)
        except LayerError:
            leader.close()  # a peer that dies from here on changes nothing
            with suppress(TarError):  # past a limit, the blob is not read to its end
                _check_blob(layer, stream)  # a blob that is not the publisher's says nothing about the image
            raise
        leader.close()
        _check_blob(layer, stream)
        found = stream.diff_id()
        if diff_id is not None and found != diff_id:
            raise DigestMismatchError(layer.origin, f"layer {plain(layer.name)}", diff_id, found)
    return UnpackedLayer(LayerCounts(stream.bytes_read, extracted.entries, stream.size_bytes, found), extracted)


def _extract_all(layer: LayerBlob, stream: LayerStream, extractor: Extractor, limits: Limits) -> Extracted:
    index, name, size = 0, b"", 0  # of the entry at fault; a fault in a header comes before the name is known
    try:
        for entry in read_entries(stream, limits):
            name, size = entry.name, entry.size if entry.sparse is None else entry.sparse.size_bytes
            extractor.extract(entry, stream)
            index, name = entry.index + 1, b""
        stream.drain()
        return extractor.finish()
    except TarError as found:
        error = extractor.first_fault(found)
        index, name = error.where or (index, name)
        raise layer_refusal(layer, index, name, error) from error
    except OSError as error:
        refusal = too_large(error, layer.origin, f"layer {plain(layer.name)}: entry {index} {shown(name)}", size)
        if refusal is None:
            raise
        raise refusal from error


def _check_blob(layer: LayerBlob, stream: LayerStream) -> None:
    found = stream.blob_digest()
    if found is not None and layer.digest is not None and found != layer.digest:
        raise DigestMismatchError(layer.origin, f"blob {plain(layer.name)}", layer.digest, found)
