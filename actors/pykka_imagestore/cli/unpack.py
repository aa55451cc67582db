"""``imagestore unpack LAYER DIRECTORY``: one layer file, into an empty directory."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import print_json, print_table
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.progress import LayerProgress, Progress
from pykka_imagestore.jobs.answers import ANSWERS
from pykka_imagestore.jobs.unpack_into import UnpackInto, undo_unpack, unpack_into
from pykka_imagestore.jobs.untar_layer import LayerCounts
from pykka_imagestore.progress_feed import Listener
from pykka_imagestore.runtime import Future, WorkerPool


def run(options: argparse.Namespace) -> None:
    """Unpack the layer; print what it is."""
    show_warnings()
    with StopSignals() as signals:
        request = UnpackInto.prepare(options.layer, options.directory)
        try:
            with WorkerPool(1, name="imagestore", answers=ANSWERS) as pool, progress_bar() as listener:
                counts = signals.wait(_unpack(pool, request, listener))
        except BaseException:
            undo_unpack(request)
            raise
    if options.json:
        print_json({"diff_id": counts.diff_id, "bytes": counts.size_bytes, "entries": counts.entries})
    else:
        print_table([("diff_id", counts.diff_id), ("bytes", str(counts.size_bytes)), ("entries", str(counts.entries))])


def _unpack(pool: WorkerPool, request: UnpackInto, listener: Listener | None) -> Future[LayerCounts]:
    def tell(counts: LayerCounts) -> None:
        if listener is not None:
            layer = LayerProgress(
                counts.diff_id, counts.bytes_read, request.layer.size, counts.entries, done=bool(counts.diff_id)
            )
            listener(Progress((request.layer.name,), (layer,)))

    return pool.run(unpack_into, request, on_report=tell)
