"""A progress bar on stderr, if that is a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pykka_imagestore.text import escaped

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from pykka_imagestore.checker import CheckListener
    from pykka_imagestore.core.check_report import CheckProgress
    from pykka_imagestore.core.progress import Progress
    from pykka_imagestore.progress import Listener

MAX_TITLE_LENGTH = 40


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Listener | None]:
    """Show the progress of a put while the block runs, and clear it afterwards.

    Yields:
        The listener to give the put, for any thread; None if there is no terminal.
    """
    with _shown_bar("reading the archive", quiet=quiet) as update:

        def show(progress: Progress) -> None:
            update(
                description=_title(progress),
                completed=progress.bytes_done,
                total=progress.bytes_expected,
                entries=f"{progress.entries_done:,} entries",
                layers=f"{sum(layer.done for layer in progress.layers)}/{len(progress.layers)}",
            )

        yield None if update is None else show


@contextmanager
def check_bar(*, quiet: bool) -> Iterator[CheckListener | None]:
    """Show the progress of a check, as ``progress_bar`` does."""
    with _shown_bar("checking", quiet=quiet) as update:

        def show(progress: CheckProgress) -> None:
            update(completed=progress.bytes_done, layers=f"{progress.layers_done}/{progress.layers_expected}")

        yield None if update is None else show


@contextmanager
def _shown_bar(title: str, *, quiet: bool) -> Iterator[Any]:
    """Show a bar while the block runs; yield the function that updates it, or None if there is no terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield None
        return
    bar = _make_bar()
    task = bar.add_task(title, total=None, entries="", layers="?")
    with bar:
        yield partial(bar.update, task)


def _make_bar() -> Bar:
    # It is slow to import, and most runs show none.
    from rich import console, progress  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.DownloadColumn(),
        progress.TextColumn("{task.fields[entries]}", markup=False),
        progress.TextColumn("layers {task.fields[layers]}", markup=False),
        progress.TimeElapsedColumn(),
        console=console.Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def _title(progress: Progress) -> str:
    title = escaped(", ".join(progress.names))
    return title if len(title) <= MAX_TITLE_LENGTH else f"{title[:MAX_TITLE_LENGTH]}…"
