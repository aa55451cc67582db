"""Layers unpacked by the real job, by functions that other processes can import too."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support import seams
from support.processes import TIMEOUT
from support.trees import Node, describe

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import FileRange, LayerBlob
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.errors import StoreError
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer
from pykka_imagestore.jobs.help_unpack import HelpUnpack, help_unpack
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.leader import Leader
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import UnpackInto
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

NEWER_FIELDS = [field.name for field in LayerRecord.DESCRIPTOR.fields if field.number >= 10]


@dataclass(frozen=True)
class Unpacked:
    """A layer that was unpacked below ``target``."""

    target: Path
    counts: LayerCounts

    @property
    def rootfs(self) -> Path:
        return self.target / "rootfs"

    @property
    def nodes(self) -> dict[bytes, Node]:
        return describe(self.rootfs)

    @property
    def kinds(self) -> dict[bytes, str]:
        """Paths and kinds of all but the root; those of directories that no entry named are in brackets."""
        implicit = set(self.record.implicit_directories)
        nodes = {path: node.kind for path, node in self.nodes.items() if path}
        return {path: f"[{kind}]" if path in implicit else kind for path, kind in nodes.items()}

    @property
    def record(self) -> LayerRecord:
        return LayerRecord.FromString((self.target / "layer.pb").read_bytes())

    def write_record(self, record: LayerRecord) -> None:
        """Give it another record, with its checksum if it is none of an older version's."""
        record.ClearField("checksum")
        data = record.SerializeToString()
        (self.target / "layer.pb").write_bytes(with_checksum(data) if record.HasField("uid") else data)

    def forget_what_is_new(self) -> None:
        """Make its record one that an older version wrote."""
        record = self.record
        for field in NEWER_FIELDS:
            record.ClearField(field)
        self.write_record(record)

    def check(self, limits: Limits = DEFAULT_LIMITS) -> LayerCheck:
        """Check every byte of it."""
        return check_layer(CheckLayer(str(self.target), self.counts.diff_id, deep=True, limits=limits))

    @property
    def lower_links(self) -> dict[bytes, bytes]:
        """Its hard links to files of the layers below, and where they lead to."""
        return {link.path: link.target for link in self.record.lower_links}

    @property
    def unset(self) -> list[tuple[bytes, str]]:
        return [(unset.path, unset.what) for unset in self.record.unset]


def blob_of(data: bytes, directory: str | Path) -> LayerBlob:
    """Return a layer that lies in a file ``layer.tar``."""
    stored = Path(directory, "layer.tar")
    stored.write_bytes(data)
    return blob_at(stored)


def blob_at(path: str | Path, offset: int = 0, size: int | None = None, name: str = "layer.tar") -> LayerBlob:
    """Return a layer that lies in a file as it is now; by default it is all of it."""
    identity = FileIdentity.of(os.stat(path))
    return LayerBlob(name, identity.size_bytes if size is None else size, FileRange(str(path), offset, identity))


def nowhere_blob(name: str = "layer.tar", size: int = 0) -> LayerBlob:
    """Return a layer for tests that read none of its bytes."""
    return LayerBlob(name, size, FileRange("image.tar", 0, FileIdentity(1, 1)))


def request_into(target: Target, layer: LayerBlob) -> UnpackInto:
    """Return what a worker is to do for the command."""
    return UnpackInto(layer, target.path, target.identity(), target.is_new)


def unpack_layer(
    data: bytes, directory: str | Path, diff_id: DiffID | None = None, limits: Limits = DEFAULT_LIMITS
) -> Unpacked:
    """Unpack a layer into ``directory/layer``; what was there is replaced."""
    target = Path(directory, "layer")
    unpacked = Unpacked(target, untar_layer(UntarLayer(blob_of(data, directory), str(target), diff_id, limits=limits)))
    assert unpacked.check(limits).faults == ()
    return unpacked


def refusal(data: bytes, directory: str | Path, limits: Limits) -> str:
    """Return why a layer is refused; empty if it is not."""
    try:
        unpack_layer(data, directory, limits=limits)
    except StoreError as error:
        return str(error)
    return ""


def unpack_with_peers(
    data: bytes,
    directory: str | Path,
    peers: int = 2,
    help_: Callable[[HelpUnpack], None] = help_unpack,
    digest: Digest | None = None,
) -> Unpacked:
    """Unpack a layer with peers in threads, which are connected before the first entry is unpacked."""
    target, address = Path(directory, "layer"), str(Path(directory, "peers"))
    layer = replace(blob_of(data, directory), digest=digest)
    request = UntarLayer(layer, str(target), peers_at=address)
    with ThreadPoolExecutor(peers) as threads:

        def attended(*args: Any) -> Leader:
            leader = Leader(*args)
            helping.extend(threads.submit(help_, HelpUnpack(address)) for _ in range(peers))
            while len(leader._links) < peers:
                assert leader._listener is not None
                assert select.select([leader._listener], [], [], TIMEOUT)[0]
                leader.welcome()
            return leader

        helping: list[Future[None]] = []
        with patch(seams.LEADER, attended):
            try:
                unpacked = Unpacked(target, untar_layer(request))
            finally:
                for peer in helping:
                    peer.result(timeout=TIMEOUT)  # what killed it says more than that it died
    assert unpacked.check().faults == ()
    return unpacked


def unpack_with_peers_and_look(data: bytes, directory: str | Path) -> tuple[dict[bytes, Node], bytes]:
    """As ``unpack_and_look``, with peers."""
    unpacked = unpack_with_peers(data, directory)
    return unpacked.nodes, unpacked.record.SerializeToString()


def unpack_and_look(data: bytes, directory: str | Path) -> tuple[dict[bytes, Node], bytes]:
    """Unpack a layer where nobody else can look; return its nodes and its serialized record."""
    unpacked = unpack_layer(data, directory)
    return unpacked.nodes, unpacked.record.SerializeToString()


def unpack_and_check(data: bytes, directory: str | Path) -> tuple[LayerCheck, bytes]:
    """Unpack a layer; return what a deep check of it finds, and its serialized record."""
    unpacked = unpack_layer(data, directory)
    return unpacked.check(), unpacked.record.SerializeToString()


def unpack_change_mode_and_check(data: bytes, directory: str | Path, path: bytes, mode: int) -> LayerCheck:
    """Unpack a layer and change a mode in it; return what a deep check finds."""
    unpacked = unpack_layer(data, directory)
    (unpacked.rootfs / os.fsdecode(path)).chmod(mode)
    return unpacked.check()
