"""What the store logs, shown as the sentences that it is."""

from __future__ import annotations

import logging

from pykka_imagestore.cli.output import complain


def show_warnings() -> None:
    """Print warnings and errors that are logged on stderr, each on one line; no tracebacks."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Sentences()])


class _Sentences(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # It warns of each incomplete image at each start: `list` shows these, and who wants one is told.
        if record.name == "pykka_imagestore.reference_store" and record.levelno < logging.ERROR:
            return
        error = record.exc_info[1] if record.exc_info else None
        complain(f"warning: {record.getMessage()}" + (f": {error}" if error else ""))
