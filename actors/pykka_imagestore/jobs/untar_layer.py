"""Unpack one layer into staging. Runs in a worker process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.layer_record import pack_layer_record
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import RECORD, REPLACED, ROOTFS, TAR_SPLIT
from pykka_imagestore.core.time_range import TimeRange
from pykka_imagestore.errors import (
    NotRemovedError,
)
from pykka_imagestore.fs.attributes import disown
from pykka_imagestore.fs.create import make_directory, open_own
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.fs.times import find_time_range
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.leader import wait_for_peers
from pykka_imagestore.jobs.unpack.limiter import space_for
from pykka_imagestore.jobs.unpack.one_pass import UnpackedLayer, unpack
from pykka_imagestore.jobs.unpack.replaced import Replaced, ReplacedSummary
from pykka_imagestore.jobs.unpack.sandbox import Sandbox
from pykka_imagestore.jobs.unpack.tar_split import TarSplitWriter
from pykka_imagestore.text import plain


@dataclass(frozen=True, slots=True)
class UntarLayer:
    """What to unpack.

    Attributes:
        layer: Where its bytes lie.
        target: A directory to make, on the store's file system; anything that has its name is removed first.
        diff_id: What the layer must turn out to be; None takes any.
        sandbox: Directory for the worker's messages; None for none.
        limits: How much the layer may ask for.
        peers_at: Where to wait for ``help_unpack``, a path beside ``target``; None to unpack alone.
    """

    layer: LayerBlob
    target: str
    diff_id: DiffID | None = None
    sandbox: str | None = None
    limits: Limits = DEFAULT_LIMITS
    peers_at: str | None = None


def untar_layer(request: UntarLayer) -> LayerCounts:
    """Unpack a layer into ``target/rootfs`` and write its record beside it; nothing is synced yet.

    Reports LayerCounts ten times a second at most. Safe to run again.

    Returns:
        The final counts.

    Raises:
        LayerError: An entry is malformed, hostile, past a limit or not supported.
        DigestMismatchError: The layer is not the one expected, or its bytes are not those that the archive names.
        ArchiveChangedError: Its file is not the one that was indexed, or was written to.
        NoSpaceError: The disk is full, or would be.
        OSError: The disk failed.
        In each case ``target`` is gone.
    """
    rootfs = os.path.join(request.target, ROOTFS)
    with Sandbox(request.sandbox) as sandbox:
        if request.peers_at is not None:
            wait_for_peers(rootfs)
        with _new_layer(request.target, rootfs) as root:
            counts = _untar(request, root, rootfs)
        sandbox.say(
            f"{plain(request.layer.name)}: {counts.diff_id}, {counts.entries} entries, {counts.size_bytes} bytes"
        )
    return counts


def _untar(request: UntarLayer, root: int, rootfs: str) -> LayerCounts:
    """Do all in one pass: read, inflate, hash, parse, extract; then write the record."""
    layer, target = request.layer, request.target
    is_verified = request.diff_id is not None or layer.digest is not None
    with (
        open_blob(layer, is_verified=is_verified) as source,
        space_for(layer.least_bytes, root, rootfs),
        closing(Replaced(os.path.join(target, REPLACED))) as replaced,
        TarSplitWriter(os.path.join(target, TAR_SPLIT)) as split,
    ):
        times = find_time_range(root)
        unpacked = unpack(
            source,
            layer,
            root,
            rootfs,
            request.diff_id,
            limits=request.limits,
            replaced=replaced,
            keep=split.write,
            peers_at=request.peers_at,
            keeps_lower_links=True,
        )
    record = _pack_record(unpacked, replaced.summary(), split.sums, times)
    with open(os.path.join(target, RECORD), "wb", opener=open_own) as file:
        file.write(record)
    return unpacked.counts


@contextmanager
def _new_layer(target: str, rootfs: str) -> Iterator[int]:
    """Make a layer's directory, and in it a root with its plain mode and owner; lend that, open.

    After an error the layer's directory is removed.
    """
    remove_tree(target)
    try:
        make_directory(target, 0o755)
        os.chmod(target, 0o755)  # noqa: S103 - whatever the umask is; nobody else may enter the directory above
        make_directory(rootfs, 0o700)
        root = os.open(rootfs, DIRECTORY_FLAGS)
        try:
            disown(root)
            os.fchmod(root, 0o755)
            yield root
        finally:
            os.close(root)
    except BaseException as error:
        with suppress(NotRemovedError):  # the removal of the staging directory around it will tell
            remove_tree(target)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = target  # a full disk does not say which
        raise


def _pack_record(
    unpacked: UnpackedLayer, replaced: ReplacedSummary, split: tuple[int, int], times: TimeRange | None
) -> bytes:
    counts, extracted = unpacked.counts, unpacked.extracted
    return pack_layer_record(
        diff_id=counts.diff_id,
        size_bytes=counts.size_bytes,
        entries=extracted.entries,
        whiteouts=extracted.whiteouts,
        implicit_directories=extracted.implicit_directories,
        unset=sorted(extracted.unset.listed),
        unset_count=extracted.unset.count,
        stored_bytes=extracted.stored_bytes,
        replaced_lost=replaced.is_lost,
        inodes=extracted.inodes,
        implicit_root=extracted.implicit_root,
        lower_links=extracted.lower_links,
        opaque_directories=extracted.opaque_directories,
        hiding_directories=extracted.hiding_directories,
        owner=(os.geteuid(), os.getegid()),
        times=times,
        split=split,
        replaced_checksum=replaced.checksum,
    )
