"""Shows what the store logs, as sentences on stderr."""

from __future__ import annotations

import logging

from pykka_imagestore.cli.output import complain


def show_log(*, verbose: bool) -> None:
    """Print what is logged on stderr, each record on one line, without tracebacks.

    Args:
        verbose: Whether to print what the store does, too, and not only warnings and errors.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[_Sentences()])
    if verbose:
        logging.getLogger("pykka_imagestore").setLevel(logging.INFO)


class _Sentences(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # It warns of each incomplete image at each start. `list` marks these, and `get` refuses them with a reason.
        if record.name == "pykka_imagestore.reference_store" and record.levelno == logging.WARNING:
            return
        error = record.exc_info[1] if record.exc_info else None
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        complain(f"{warning}{record.getMessage()}" + (f": {error}" if error else ""))
