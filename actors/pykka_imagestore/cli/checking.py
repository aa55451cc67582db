"""What the verbs ``check`` and ``repair`` share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import counted, print_json, print_line
from pykka_imagestore.cli.progress_bar import check_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.check_report import CheckReport, Finding
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.durable.layout import find_layers
from pykka_imagestore.errors import RecordError, StoreError
from pykka_imagestore.local_store import LocalStore


class FaultsFoundError(StoreError):
    """A check or a repair found faults.

    Attributes:
        directory: The store.
        count: How many faults.
        steps: What to do now, in order; nothing if a repair did all of it.
    """

    def __init__(self, directory: str, count: int, steps: tuple[str, ...]) -> None:
        super().__init__(directory, count, steps)
        self.directory, self.count, self.steps = directory, count, steps

    def __str__(self) -> str:
        advice = ", then ".join(self.steps) or "what was damaged is taken out, and no image needs it"
        return f"found {counted(self.count, 'fault')} in {self.directory}; {advice}"


def run_check(options: argparse.Namespace, *, repair: bool) -> None:
    """Check or repair a store, and print what was found.

    Raises:
        FaultsFoundError: Something was wrong.
    """
    directory = store_directory(options.store)
    require_store(directory)
    sizes = _find_sizes(StorePaths(directory)) if options.deep else {}
    began = time.monotonic()
    with StopSignals() as signals:
        with LocalStore.start(directory, workers=options.workers) as store:
            work = store.repair if repair else store.check
            with check_bar(sum(sizes.values()), quiet=options.quiet) as listener:
                report = signals.wait(work(deep=options.deep, progress=listener))
            signals.wait_if_not_stopped(store.swept())
        deep = " --deep" if options.deep else ""
        not_read = {finding.name for finding in (*report.faults, *report.unchecked)}  # or only in part
        read_bytes = sum(size for layer, size in sizes.items() if layer not in not_read)
        if options.json:
            print_json(_document(report) | {"read_bytes": read_bytes})
        else:
            read = f"; {format_size(read_bytes)} read in {time.monotonic() - began:.1f} s" if options.deep else ""
            _print(report, repair, deep, read, quiet=options.quiet)
    if report.faults:
        steps = _repair_steps(report, deep) if repair else _check_steps(report, deep)
        raise FaultsFoundError(str(directory), len(report.faults), tuple(steps))


def _print(report: CheckReport, repair: bool, deep: str, read: str, *, quiet: bool) -> None:
    for fault in report.faults:
        print_line(str(fault))
    if quiet:
        return
    for unchecked in report.unchecked:
        print_line(f"not checked: {unchecked}")
    for name in report.taken_out:
        print_line(f"took out {name}")
    for name in report.left_in if repair else ():
        print_line(f"left {name} in: somebody needs it now; run imagestore repair{deep} again later")
    for name in report.put_anew:
        print_line(f"left {name} in: it was put again after it was checked; run imagestore check{deep} again")
    counts = counted(report.images, "image"), counted(report.layers, "layer"), counted(report.configs, "config")
    print_line(f"{', '.join(counts)}: {counted(len(report.faults), 'fault')}{read}")


def _find_sizes(paths: StorePaths) -> dict[str, int]:
    """Return the size of each layer's tar, as far as it is known: what a deep check reads."""
    sizes: dict[str, int] = {}
    with suppress(OSError, StoreError):  # the check tells
        for layer in find_layers(paths):
            with suppress(RecordError):
                sizes[layer] = read_record(paths.layer(layer)).size_bytes
    return sizes


def _check_steps(report: CheckReport, deep: str) -> Iterator[str]:
    """Yield what to do about the faults that a check found, in order."""
    # What only a deep check finds, only a deep repair takes out.
    if any(fault.kind != "image" for fault in report.faults):
        yield f"run imagestore repair{deep}"
    yield from _put_again(report)


def _repair_steps(report: CheckReport, deep: str) -> Iterator[str]:
    """Yield what is still to be done after a repair, in order."""
    is_left = bool(report.left_in or report.put_anew)
    if report.taken_out or not is_left:  # a put reads nothing again of a layer that is there
        yield from _put_again(report)
    if report.left_in:
        yield f"run imagestore repair{deep} again when nobody needs what was left in"
    elif report.put_anew:
        yield f"run imagestore check{deep} again"


def _put_again(report: CheckReport) -> Iterator[str]:
    if any(fault.kind == "image" for fault in report.faults):
        yield "put the faulty images again"


def _document(report: CheckReport) -> dict[str, Any]:
    return {
        "images": report.images,
        "layers": report.layers,
        "configs": report.configs,
        "faults": list(map(_finding, report.faults)),
        "unchecked": list(map(_finding, report.unchecked)),
        "taken_out": list(report.taken_out),
        "put_anew": list(report.put_anew),
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"kind": finding.kind, "name": finding.name, "reason": finding.reason}
