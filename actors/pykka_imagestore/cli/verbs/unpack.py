"""``imagestore unpack LAYER DIRECTORY``: unpacks one layer file into an empty directory."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import absolute
from pykka_imagestore.cli.descriptors import path_for_others
from pykka_imagestore.cli.output import complain, done_anyway, print_json, print_line, print_table
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.progress import LayerProgress, Progress
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.jobs.answers.allowlist import ANSWERS
from pykka_imagestore.jobs.archive.layer_file import layer_file
from pykka_imagestore.jobs.unpack.layer_counts import LayerCounts
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import Unpacked, UnpackInto, unpack_into
from pykka_imagestore.progress import Listener
from pykka_imagestore.runtime import Future, WorkerPool


def run(options: argparse.Namespace) -> None:
    """Unpack the layer; print its DiffID and sizes."""
    with StopSignals() as signals:
        layer = layer_file(path_for_others(options.layer))
        with Target(absolute(options.directory)) as target:
            try:
                unpacked = _wait(
                    UnpackInto(layer, target.path, target.identity(), target.is_new), signals, quiet=options.quiet
                )
                target.finish(unpacked.root_mode)
            except BaseException:
                _undo(target)
                raise
        with done_anyway():
            _print(options, unpacked.counts)


def _wait(request: UnpackInto, signals: StopSignals, *, quiet: bool) -> Unpacked:
    with WorkerPool(1, name="imagestore", answers=ANSWERS) as pool, progress_bar(quiet=quiet) as listener:
        return signals.wait(_unpack(pool, request, listener))


def _undo(target: Target) -> None:
    try:
        target.undo()
    except (NotRemovedError, OSError) as error:  # the reason for undoing it is told, too
        complain(f"warning: {target.path} is not as it was: {error}")


def _print(options: argparse.Namespace, counts: LayerCounts) -> None:
    if options.json:
        print_json({"diff_id": counts.diff_id, "bytes": counts.size_bytes, "entries": counts.entries})
    elif options.quiet:
        print_line(counts.diff_id)
    else:
        print_table(
            [("diff_id", counts.diff_id), ("size", format_size(counts.size_bytes)), ("entries", str(counts.entries))]
        )


def _unpack(pool: WorkerPool, request: UnpackInto, listener: Listener | None) -> Future[Unpacked]:
    def tell(counts: LayerCounts) -> None:
        if listener is not None:
            layer = LayerProgress(
                counts.diff_id, counts.bytes_read, request.layer.size, counts.entries, done=bool(counts.diff_id)
            )
            listener(Progress((request.layer.name,), (layer,)))

    return pool.run(unpack_into, request, on_report=tell)
