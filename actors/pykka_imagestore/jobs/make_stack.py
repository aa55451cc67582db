"""Find out what a stack of layers needs on top, and write it into staging. Runs in a worker process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.budget import NOTHING
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS, STACK_RECORD
from pykka_imagestore.core.plan_rootfs import plan_rootfs
from pykka_imagestore.core.rootfs import Reads, stack_id
from pykka_imagestore.fs.create import make_directory, open_own
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.fix_ups import Written, write_fix_ups
from pykka_imagestore.rootfs.stored_layer import opened_layers


@dataclass(frozen=True, slots=True)
class MakeStack:
    """Which stack.

    Attributes:
        layers: The directories of its layers in layers/, the root layer first.
        reads: Which whiteouts those read who will merge the layers.
        target: A directory to make, on the store's file system; anything that has its name is removed first.
    """

    layers: tuple[str, ...]
    reads: Reads
    target: str


def make_stack(request: MakeStack) -> None:
    """Make ``target``, for ``durable.stacks.publish_stack``; nothing is synced yet. Safe to run again.

    Raises:
        StackError: The layers do not fit together.
        RecordError: What the store wrote of one of them cannot be read.
        StateError: This process cannot see what one of them hides.
        OSError: A layer cannot be read, or the disk failed or is full.
        In each case ``target`` may be there in part.
    """
    remove_tree(request.target)
    with opened_layers(request.layers) as layers:
        fix_ups = plan_rootfs(layers, request.reads)
        is_empty = fix_ups.is_empty and bool(layers)  # without layers, what is on top is all there is: the root
        make_directory(request.target, 0o755)
        written = Written(WhiteoutFormat.NONE, NOTHING)
        if not is_empty:
            written = write_fix_ups(fix_ups, layers, request.reads, os.path.join(request.target, ROOTFS))
        layer_ids = [layer.diff_id for layer in layers]
        record = StackRecord(
            stack=stack_id(layer_ids, request.reads),
            layer_ids=layer_ids,
            reads=request.reads,
            is_empty=is_empty,
            stored_bytes=written.size.bytes,
            inodes=written.size.inodes,
            layer_whiteouts=[layer.whiteouts for layer in layers],
            whiteouts=written.whiteouts,
        )
    with open(os.path.join(request.target, STACK_RECORD), "wb", opener=open_own) as file:
        file.write(with_checksum(record.SerializeToString()))
