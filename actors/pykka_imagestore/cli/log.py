"""Shows what the store logs, as sentences on stderr."""

from __future__ import annotations

import logging

from pykka_imagestore.cli.output import complain


def show_warnings() -> None:
    """Print logged warnings and errors on stderr, each on one line, without tracebacks."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Sentences()])


class _Sentences(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # It warns of each incomplete image at each start. `list` marks these, and `get` refuses them with a reason.
        if record.name == "pykka_imagestore.reference_store" and record.levelno < logging.ERROR:
            return
        error = record.exc_info[1] if record.exc_info else None
        complain(f"warning: {record.getMessage()}" + (f": {error}" if error else ""))
