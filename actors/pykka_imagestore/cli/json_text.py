"""Reads JSON from a config, and writes it for a terminal or a program, whatever it contains.

Numbers keep the digits that they were written with: as Python's numbers they would lose digits, or become ``Infinity``,
which is no JSON.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from pykka_imagestore.errors import StoreError

_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it is written."""

    text: str


def parse_json(data: bytes) -> object:
    """Parse a JSON document. If an object has a key twice, the last one counts.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(data, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None


def to_json(document: object, pretty_in: str | None = None) -> str:
    """Return a document as JSON, in ASCII on one line.

    Args:
        pretty_in: An encoding. With one, the text is indented, and strings show all letters that it can encode.

    Raises:
        StoreError: It is nested too deeply.
    """
    try:
        return _Writer(pretty_in).write(document, "")
    except RecursionError:
        raise StoreError("the JSON to be printed is nested too deeply") from None


class _Writer:
    def __init__(self, pretty_in: str | None) -> None:
        self._pretty_in = pretty_in
        self._colon = ":" if pretty_in is None else ": "

    def write(self, value: object, indent: str) -> str:
        """Return a value; the lines below its first begin with ``indent``."""
        below = indent + _INDENT
        if isinstance(value, Number):
            return value.text
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            items = [f"{self._text(key)}{self._colon}{self.write(item, below)}" for key, item in value.items()]
            return self._join("{", items, "}", indent)
        if isinstance(value, list | tuple):
            return self._join("[", [self.write(item, below) for item in value], "]", indent)
        return json.dumps(value, allow_nan=False)

    def _join(self, begin: str, items: list[str], end: str, indent: str) -> str:
        if self._pretty_in is None or not items:
            return begin + ",".join(items) + end
        lines = f",\n{indent}{_INDENT}".join(items)
        return f"{begin}\n{indent}{_INDENT}{lines}\n{indent}{end}"

    def _text(self, text: str) -> str:
        if self._pretty_in is not None:
            with suppress(UnicodeEncodeError):
                shown = json.dumps(text, ensure_ascii=False)
                shown.encode(self._pretty_in)
                return "".join(map(_shown, shown))
        return json.dumps(text)


def _shown(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _refuse_constant(constant: str) -> object:
    msg = f"{constant} is no JSON value"
    raise ValueError(msg)
