"""What ``check`` and ``repair`` have in common."""

from __future__ import annotations

import argparse
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import print_json, print_line
from pykka_imagestore.cli.progress_bar import check_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.check_report import CheckReport, Finding
from pykka_imagestore.errors import StoreError
from pykka_imagestore.local_store import LocalStore


class FaultsFoundError(StoreError):
    """A store is damaged.

    Attributes:
        directory: The store.
        count: How many faults it has.
        is_repaired: Whether what was damaged was taken out.
    """

    def __init__(self, directory: str, count: int, is_repaired: bool) -> None:
        super().__init__(directory, count, is_repaired)
        self.directory, self.count, self.is_repaired = directory, count, is_repaired

    def __str__(self) -> str:
        found = f"{self.directory} had {self.count} faults" if self.is_repaired else f"{self.directory} is damaged"
        what = "put the images again that lack something" if self.is_repaired else "repair it, and put the images again"
        return f"{found}; {what}"


def look(options: argparse.Namespace, *, repair: bool) -> None:
    """Check or repair a store, and print what was found.

    Raises:
        FaultsFoundError: Something was wrong.
    """
    show_warnings()
    directory = store_directory(options.store)
    require_store(directory)
    with StopSignals() as signals:
        with LocalStore.start(directory, workers=options.workers) as store:
            work = store.repair if repair else store.check
            with check_bar() as listener:
                report = signals.wait(work(deep=options.deep, progress=listener))
            signals.wait_if_not_stopped(store.swept())
        if options.json:
            print_json(_document(report))
        else:
            _print(report, repair=repair)
    if report.faults:
        raise FaultsFoundError(str(directory), len(report.faults), repair)


def _print(report: CheckReport, *, repair: bool) -> None:
    for fault in report.faults:
        print_line(str(fault))
    for unchecked in report.unchecked:
        print_line(f"not checked: {unchecked}")
    for name in report.taken_out:
        print_line(f"took out {name}")
    for name in report.left_in if repair else ():
        print_line(f"left {name} in: somebody needs it now; repair again later")
    for name in report.put_anew:
        print_line(f"left {name} in: it was put anew since it was looked at; check again")
    counts = f"{report.images} images, {report.layers} layers, {report.configs} configs"
    print_line(f"{counts}: {len(report.faults)} faults")


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
