"""Unpack one layer: one pass over its bytes that inflates, hashes, checks and writes. Runs in a worker process."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.layer_record import pack_layer_record
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.paths import RECORD, REPLACED, ROOTFS, TAR_SPLIT
from pykka_imagestore.core.tar.format import EscapeError, OverLimitError, TarError
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.errors import (
    DigestMismatchError,
    EscapingEntryError,
    LayerError,
    LimitError,
    NoSpaceError,
    NotRemovedError,
)
from pykka_imagestore.fs.attributes import Outcome, remove_acls
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.made import make_directory, open_own
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.fs.times import find_time_range
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.extractor import Extractor
from pykka_imagestore.jobs.unpack.hash_thread import HashThread
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.leader import Helpers, wait_for_helpers
from pykka_imagestore.jobs.unpack.limiter import Limiter, free_bytes, free_inodes, require_space
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.sandbox import Sandbox
from pykka_imagestore.jobs.unpack.tar_split import TarSplitWriter
from pykka_imagestore.runtime.worker import raise_if_discarded, report
from pykka_imagestore.text import plain

REPORT_INTERVAL = 0.1  # seconds
_FIRST_REPORT = 0.02  # seconds: upon it, help is called for


@dataclass(frozen=True, slots=True)
class UntarLayer:
    """What to unpack.

    Attributes:
        layer: Where its bytes lie.
        target: A directory to make, on the store's file system; what is there is removed first.
        diff_id: What the layer must turn out to be; None takes any.
        sandbox: Directory for what there is to say; None for nowhere.
        limits: How much it may ask for.
        helpers_at: Where to wait for ``help_unpack``, a path beside ``target``; None to do it alone.
    """

    layer: LayerBlob
    target: str
    diff_id: DiffID | None = None
    sandbox: str | None = None
    limits: Limits = DEFAULT_LIMITS
    helpers_at: str | None = None


_NOT_YET = DiffID("")


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """How far a layer has come, or what it was in the end.

    Attributes:
        bytes_read: Bytes read of the layer as it is stored.
        entries: Entries unpacked.
        size_bytes: Bytes of its uncompressed tar.
        diff_id: What the layer is; empty while it is being unpacked.
    """

    bytes_read: int
    entries: int
    size_bytes: int
    diff_id: DiffID = _NOT_YET


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
        if request.helpers_at is not None:
            wait_for_helpers(rootfs)
        remove_tree(request.target)
        try:
            with _made_root(request.target, rootfs) as root:
                counts = unpack(
                    request.layer,
                    root,
                    rootfs,
                    request.diff_id,
                    beside=request.target,
                    limits=request.limits,
                    helpers_at=request.helpers_at,
                )
        except BaseException as error:
            with suppress(NotRemovedError):  # whoever removes the staging directory around will tell
                remove_tree(request.target)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = request.target  # a full disk does not say which
            raise
        sandbox.say(
            f"{plain(request.layer.name)}: {counts.diff_id}, {counts.entries} entries, {counts.size_bytes} bytes"
        )
    return counts


def unpack(
    layer: LayerBlob,
    root: int,
    path: str,
    diff_id: DiffID | None,
    *,
    beside: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    helpers_at: str | None = None,
    outcome: Outcome | None = None,
    keep_root: bool = False,
) -> LayerCounts:
    """Unpack a layer into the empty directory that is open as ``root``; check its DiffID.

    Args:
        path: Where that directory is, for errors.
        beside: The layer's directory, for its record and what else it takes to check the layer later; None for none.
        outcome: Where to tell what became of the layer; None for nowhere.
        keep_root: Leave the directory's own owner, mode and attributes as they are.

    Raises:
        As ``untar_layer``; but what was unpacked so far stays.
    """
    outcome = Outcome() if outcome is None else outcome
    is_verified = diff_id is not None or layer.digest is not None
    with open_blob(layer, is_verified=is_verified) as source:
        with (
            _space_for(layer, root, path),
            closing(Replaced(None if beside is None else os.path.join(beside, REPLACED), outcome)) as replaced,
            nullcontext() if beside is None else TarSplitWriter(os.path.join(beside, TAR_SPLIT)) as split,
            HashThread() as behind,
        ):
            ticker = _Ticker(Limiter(limits, path, root), outcome, behind)
            keep = None
            if split is not None:
                keep, outcome.owner = split.write, (os.geteuid(), os.getegid())
                outcome.times = find_time_range(root)
            stream = ticker.stream = LayerStream(source, layer.digest, ticker.tick, limits, keep, behind)
            try:
                with (
                    _helped(helpers_at, root, outcome, replaced, ticker) as helpers,
                    closing(Extractor(root, outcome, limits, helpers, replaced, keep_root=keep_root)) as extractor,
                ):
                    _extract_all(layer, stream, extractor, limits)
            except LayerError:
                _check_blob(layer, stream)  # bytes that are not the publisher's are no fault of the image
                raise
            _check_blob(layer, stream)
        found = stream.diff_id()
        if diff_id is not None and found != diff_id:
            raise DigestMismatchError(layer.origin, f"layer {plain(layer.name)}", diff_id, found)
    if beside is not None and split is not None:
        with open(os.path.join(beside, RECORD), "wb", opener=open_own) as record:
            record.write(_record(found, stream.size_bytes, outcome, split.sums, replaced.checksum))
    return LayerCounts(stream.bytes_read, outcome.entries, stream.size_bytes, found)


def hash_layer(layer: LayerBlob, limits: Limits = DEFAULT_LIMITS) -> DiffID:
    """Return a layer's DiffID without unpacking it.

    Raises:
        LayerError: It cannot be inflated, or to more than the limits allow.
        ArchiveChangedError: Its file is not the one that was indexed, or was written to meanwhile.
    """
    with open_blob(layer, is_verified=False) as source:
        ticker = _Ticker(Limiter(limits, None), Outcome(), HashThread())
        try:
            stream = ticker.stream = LayerStream(source, None, ticker.tick, limits)
            stream.drain()
            return stream.diff_id()
        except TarError as error:
            raise _refusal(layer, None, b"", error) from error


def _check_blob(layer: LayerBlob, stream: LayerStream) -> None:
    found = stream.blob_digest()
    if found is not None and layer.digest is not None and found != layer.digest:
        raise DigestMismatchError(layer.origin, f"blob {plain(layer.name)}", layer.digest, found)


@contextmanager
def _helped(
    address: str | None, root: int, outcome: Outcome, replaced: Replaced, ticker: _Ticker
) -> Iterator[Helpers | None]:
    helpers = None
    if address is not None:
        with suppress(OSError):  # a file system without sockets or locks: then it is done alone
            helpers = Helpers(address, root, outcome, replaced)
    with nullcontext() if helpers is None else helpers:
        ticker.helpers = helpers
        try:
            yield helpers
        finally:
            ticker.helpers = None


@contextmanager
def _made_root(target: str, rootfs: str) -> Iterator[int]:
    """Make a layer's directory, and in it a root with its plain mode and owner; lend that, open."""
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


def disown(root: int) -> None:
    """Rid a directory of what comes from above: a set-group-ID bit or an ACL there would reach every file in it."""
    os.fchown(root, os.geteuid(), os.getegid())
    remove_acls(root)


@contextmanager
def _space_for(layer: LayerBlob, root: int, path: str) -> Iterator[None]:
    """See first that a layer may fit; say how much is missing if it does not."""
    needed = layer.least_bytes
    require_space(path, needed, root)
    try:
        yield
    except OSError as error:
        free = free_bytes(root) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        if free is None or isinstance(error, NoSpaceError):
            raise
        raise NoSpaceError(path, needed, free, free_inodes(root)) from error


def _extract_all(layer: LayerBlob, stream: LayerStream, extractor: Extractor, limits: Limits) -> None:
    index, name = 0, b""  # of the entry at fault; one whose header is has no name yet
    try:
        for entry in read_entries(stream, limits):
            name = entry.name
            extractor.extract(entry, stream)
            index, name = entry.index + 1, b""
        stream.drain()
        extractor.finish()
    except TarError as found:
        error = extractor.first_fault(found)
        index, name = error.where or (index, name)
        raise _refusal(layer, index, name, error) from error


def _refusal(layer: LayerBlob, index: int | None, name: bytes, error: TarError) -> LayerError:
    where = layer.origin, layer.name, index, name, str(error)
    if isinstance(error, OverLimitError):
        return LimitError(*where, error.limit)
    return EscapingEntryError(*where) if isinstance(error, EscapeError) else LayerError(*where)


def _record(
    diff_id: DiffID, size_bytes: int, outcome: Outcome, split: tuple[int, int], replaced_checksum: int
) -> bytes:
    return pack_layer_record(
        diff_id=diff_id,
        size_bytes=size_bytes,
        entries=outcome.entries,
        whiteouts=outcome.whiteouts,
        implicit_directories=outcome.implicit_directories,
        unset=sorted(outcome.unset),
        unset_count=outcome.unset_count,
        stored_bytes=outcome.stored_bytes,
        replaced_lost=outcome.replaced_lost,
        inodes=outcome.inodes,
        owner=outcome.owner,
        times=outcome.times,
        split=split,
        replaced_checksum=replaced_checksum,
    )


class _Ticker:
    """Looks, after each block, whether to stop, whether somebody has come to help, and whether it is time to report."""

    def __init__(self, guard: Limiter, outcome: Outcome, behind: HashThread) -> None:
        self.stream: LayerStream | None = None
        self.helpers: Helpers | None = None
        self._guard = guard
        self._outcome = outcome
        self._behind = behind
        self._next = time.monotonic() + _FIRST_REPORT

    def tick(self) -> None:
        raise_if_discarded()
        if self.helpers is not None:
            self.helpers.welcome()
            # A worker that has come to help and has nothing to do leaves a CPU.
            self._behind.beside = self.helpers.have_come and self.helpers.are_idle()
        if self.stream is None:
            return
        self._guard.check(self.stream.bytes_read, self.stream.size_bytes)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_INTERVAL
            report(LayerCounts(self.stream.bytes_read, self._outcome.entries, self.stream.size_bytes))
