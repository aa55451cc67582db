"""``imagestore unpack LAYER DIRECTORY``: one layer file, into an empty directory."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import absolute
from pykka_imagestore.cli.descriptors import path_for_others
from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import complain, done_anyway, print_json, print_table
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.progress import LayerProgress, Progress
from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.jobs.answers import ANSWERS
from pykka_imagestore.jobs.unpack_into import UnpackInto, undo_unpack, unpack_into
from pykka_imagestore.jobs.untar_layer import LayerCounts
from pykka_imagestore.progress_feed import Listener
from pykka_imagestore.runtime import Future, WorkerPool


def run(options: argparse.Namespace) -> None:
    """Unpack the layer; print what it is."""
    show_warnings()
    with StopSignals() as signals:
        request = UnpackInto.prepare(path_for_others(options.layer), absolute(options.directory))
        try:
            counts = _wait(request, signals)
        except BaseException:
            _undo(request)
            raise
        with done_anyway():
            _print(options, counts)


def _wait(request: UnpackInto, signals: StopSignals) -> LayerCounts:
    with WorkerPool(1, name="imagestore", answers=ANSWERS) as pool, progress_bar() as listener:
        return signals.wait(_unpack(pool, request, listener))


def _undo(request: UnpackInto) -> None:
    try:
        undo_unpack(request)
    except (NotRemovedError, OSError) as error:  # what it was undone for is told, too
        complain(f"warning: {request.directory} is not as it was: {error}")


def _print(options: argparse.Namespace, counts: LayerCounts) -> None:
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
