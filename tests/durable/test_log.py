from __future__ import annotations

import ast
from pathlib import Path

import pykka_imagestore
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.errors import NotRemovedError

ROOT = Path(pykka_imagestore.__path__[0])
EVIL = "\x1b[2J\n2026-01-01 INFO all is well\u202e\ud800"


def test_what_is_logged_is_one_printable_line(caplog):
    logger = logger_of("test_log")

    logger.warning("%s could not be removed after %d tries: %s", Path("gc", EVIL), 3, NotRemovedError(EVIL, EVIL))
    logger.warning("nothing to add")

    assert all(message.isprintable() for message in caplog.messages)
    assert caplog.messages[0].startswith(
        "gc/\\x1b[2J\\n2026-01-01 INFO all is well\\u202e\\ud800 could not be removed after 3 "
    )
    assert caplog.messages[1] == "nothing to add"


def test_loggers_of_the_store_escape_what_they_say():
    """The runtime, which knows no store and logs no names of its files, has plain ones."""
    plain = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] not in ("runtime", "cli")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "getLogger"
    ]

    assert plain == ["durable/log.py"]
