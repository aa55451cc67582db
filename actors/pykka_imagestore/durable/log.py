"""What the store logs: lines in which nothing that it read acts on a terminal, or looks like another line."""

from __future__ import annotations

import logging
from typing import Any

from pykka_imagestore.text import escaped


def logger_of(module: str) -> logging.Logger:
    """Return the logger of a module, which escapes whatever it puts into a line."""
    logger = logging.getLogger(module)
    logger.addFilter(_escape)
    return logger


def _escape(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_escaped, record.args))
    return True


def _escaped(value: Any) -> Any:
    return value if isinstance(value, int | float) else escaped(str(value))
