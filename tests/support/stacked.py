"""Stacks of tars as backends get them: unpacked, with what they need on top; and what a backend makes of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.layers import blob_of
from support.trees import Node, describe

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest, StackLayer
from pykka_imagestore.jobs.fill_rootfs import fill_rootfs
from pykka_imagestore.jobs.make_stack import MakeStack, make_stack
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.rootfs.backend import Backend, Mounted

WORKERS = 2


def unpacked(tars: Sequence[bytes], directory: Path) -> list[Path]:
    """Return the directories of layers that are unpacked from tars, the lowest first."""
    layers = []
    for number, tar in enumerate(tars):
        layers.append(directory / f"layer{number}")
        untar_layer(UntarLayer(blob_of(tar, directory), str(layers[-1])))
    return layers


def with_fix_ups(layers: Sequence[Path], reads: Reads, target: Path) -> tuple[StackLayer, ...]:
    """Return unpacked layers, and what they need on top, which is made at ``target``."""
    make_stack(MakeStack(tuple(map(str, layers)), reads, str(target)))
    record = StackRecord.FromString((target / "stack.pb").read_bytes())
    stack = [_stack_layer(layer) for layer in layers]
    if not record.is_empty:
        stack.append(StackLayer(str(target / "rootfs"), WhiteoutFormat(record.whiteouts)))
    return tuple(stack)


def stacked(tars: Sequence[bytes], directory: Path, reads: Reads = Reads.ANY) -> tuple[StackLayer, ...]:
    """Return a stack of tars, unpacked and made whole below a directory."""
    return with_fix_ups(unpacked(tars, directory), reads, directory / "stack")


@contextmanager
def made(backend: Backend, request: RootfsRequest) -> Iterator[Mounted]:
    """Make a root file system, and unmount it in the end."""
    Path(request.directory).mkdir(exist_ok=True)
    refusal = backend.refusal(request)
    assert refusal is None, refusal
    for part in backend.parts(request, WORKERS):
        assert isinstance(part, FillPart)
        fill_rootfs(part)
    mounted = backend.mount(request)
    try:
        yield mounted
    finally:
        os.close(mounted.fd)
        backend.unmount(request)


def made_tree(backend: Backend, request: RootfsRequest) -> dict[bytes, Node]:
    """Return what is in a root file system that a backend makes."""
    with made(backend, request) as mounted:
        return describe(f"/proc/self/fd/{mounted.fd}/.")


def _stack_layer(layer: Path) -> StackLayer:
    record = LayerRecord.FromString((layer / "layer.pb").read_bytes())
    return StackLayer(str(layer / "rootfs"), WhiteoutFormat(record.whiteouts))
