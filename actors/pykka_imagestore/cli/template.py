r"""What ``--format`` says: a line for each document, with fields of the JSON document in braces.

``{name}`` is a field, ``{config.Env}`` a field of an object, ``{layers.0.path}`` one of an array's first element.
``\t`` and ``\n`` are a tab and a line end; ``{{`` and ``}}`` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pykka_imagestore.cli.json_text import Number, to_json
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import escaped

_PART = re.compile(r"\{\{|\}\}|\\[tn\\]|\{(?P<field>[^{}]+)\}|[^{}\\]+|\\")
_CLEAN = re.compile(r"[^\t\n]+")
_LITERAL = {"{{": "{", "}}": "}", "\\t": "\t", "\\n": "\n", "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        parts: Texts, ready to be printed, and fields as tuples of their keys.
    """

    parts: tuple[str | tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str, fields: Collection[str] = ()) -> Template:
        """Parse a template.

        Args:
            fields: Those that a document has; none if it may have any.

        Raises:
            InvalidInputError: It has a brace alone, no field, or one that no document has.
        """
        parts: list[str | tuple[str, ...]] = []
        position = 0
        while position < len(text):
            match = _PART.match(text, position)
            if match is None:
                raise InvalidInputError(f"{text!r} has a brace without its other one; write {{{{ or }}}} for a brace")
            parts.append(_part(match, fields))
            position = match.end()
        if not any(isinstance(part, tuple) for part in parts):  # such as "json", or a Go template
            how = "a field is in single braces" if "{{" in text else "write its name in braces"
            raise InvalidInputError(f"{text!r} has no field; {how}, such as {{name}}, or use --json")
        return cls(tuple(parts))

    def names(self, field: str) -> bool:
        """Tell whether a field is asked for."""
        return any(isinstance(part, tuple) and part[0] == field for part in self.parts)

    def render(self, document: object) -> str:
        """Return the line of a document, without its end; characters of a field that are not printable are escaped."""
        return "".join(part if isinstance(part, str) else _shown(_find(document, part)) for part in self.parts)


def _part(match: re.Match[str], fields: Collection[str]) -> str | tuple[str, ...]:
    if match["field"] is None:
        return _LITERAL.get(match[0]) or _CLEAN.sub(lambda clean: escaped(clean[0]), match[0])
    keys = tuple(match["field"].split("."))
    if fields and keys[0] not in fields:
        raise InvalidInputError(f"there is no field {keys[0]!r}, but {', '.join(fields)}")
    return keys


def _find(value: object, keys: tuple[str, ...]) -> object:
    """Return what is found below the keys; None if nothing is."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escaped(value)
    return value.text if isinstance(value, Number) else to_json(value)
