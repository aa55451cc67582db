"""A progress bar on stderr, for people: nothing at all if stderr is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pykka_imagestore.cli.output import escaped

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from pykka_imagestore.core.progress import Progress
    from pykka_imagestore.progress_feed import Listener

MAX_TITLE_LENGTH = 40


@contextmanager
def progress_bar() -> Iterator[Listener | None]:
    """Show a bar while the block runs, which ends without a trace; None if nobody would see it.

    Yields:
        Takes how far the work has come, in any thread.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield None
        return
    bar = _make_bar()
    task = bar.add_task("reading the archive", total=None, entries=0, layers="?")

    def show(progress: Progress) -> None:
        bar.update(
            task,
            description=_title(progress),
            completed=progress.bytes_done,
            total=progress.bytes_expected,
            entries=progress.entries_done,
            layers=f"{sum(layer.done for layer in progress.layers)}/{len(progress.layers)}",
        )

    with bar:
        yield show


def _make_bar() -> Bar:
    # It is slow to import, and most runs show none.
    from rich import console, progress  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.DownloadColumn(),
        progress.TextColumn("{task.fields[entries]:,} entries", markup=False),
        progress.TextColumn("layers {task.fields[layers]}", markup=False),
        progress.TimeElapsedColumn(),
        console=console.Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def _title(progress: Progress) -> str:
    title = escaped(", ".join(progress.names))
    return title if len(title) <= MAX_TITLE_LENGTH else f"{title[:MAX_TITLE_LENGTH]}…"
