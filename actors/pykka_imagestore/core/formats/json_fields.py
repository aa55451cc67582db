"""JSON out of an archive, checked field by field; what is wrong becomes a sentence that names the field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from pykka_imagestore.errors import ArchiveError
from pykka_imagestore.text import shown

MAX_NESTING = 100


def parse_json(archive: str, data: bytes, name: str, *, is_written_again: bool = False) -> Any:
    """Parse the JSON of a member.

    Args:
        archive: Path of the archive, for the sentence.
        name: What the archive calls the member.
        is_written_again: Whether its numbers are: then they must be such as a float can be.

    Raises:
        ArchiveError: It is no JSON, nested deeper than anything sound, or has a number that is out of range.
    """
    try:
        # Python alone would guess that bytes are UTF-16, and take surrogates and a mark at the beginning.
        parse_float = _parse_finite if is_written_again else None
        document = json.loads(data.decode(), parse_constant=_refuse_constant, parse_float=parse_float)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, _ConstantError) as error:
        raise ArchiveError(archive, f"{shown(name)} is no JSON: {error}") from error
    except OverflowError as error:
        raise ArchiveError(archive, f"{shown(name)} has a number that is out of range") from error
    except ValueError as error:
        raise ArchiveError(archive, f"{shown(name)} has a number of more digits than anything sound") from error
    if _is_nested(document, MAX_NESTING):
        raise ArchiveError(archive, f"{shown(name)} has JSON nested more than {MAX_NESTING} deep")
    return document


def expect_object(archive: str, value: object, where: str) -> dict[str, Any]:
    """Return a value that must be an object.

    Raises:
        ArchiveError: It is none.
    """
    if not isinstance(value, dict):
        raise ArchiveError(archive, f"{where} should be an object, but is {shape(value)}")
    return value


def expect_list(archive: str, value: object, where: str) -> list[Any]:
    """Return a value that must be a list; null, as Go writes an empty one, is empty.

    Raises:
        ArchiveError: It is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ArchiveError(archive, f"{where} should be a list, but is {shape(value)}")
    return value


def expect_text(archive: str, value: object, where: str) -> str:
    """Return a value that must be a string.

    Raises:
        ArchiveError: It is none.
    """
    if not isinstance(value, str):
        raise ArchiveError(archive, f"{where} should be a string, but is {shape(value)}")
    return value


def expect_texts(archive: str, value: object, where: str) -> tuple[str, ...]:
    """Return a value that must be a list of strings, or null.

    Raises:
        ArchiveError: It is none.
    """
    return tuple(expect_text(archive, item, where) for item in expect_list(archive, value, where))


def shape(value: object) -> str:
    """Return what a JSON value is, for a sentence."""
    if value is None:
        return "missing or null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "an object", str: "a string", bool: "true or false"}.get(type(value), "a number")


class _ConstantError(ValueError):
    """What Python takes for a number, and JSON does not."""


def _refuse_constant(constant: str) -> object:
    msg = f"{constant} is none of its values"
    raise _ConstantError(msg)


def _parse_finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # which would be written as something that is no JSON
        raise OverflowError
    return number


def _is_nested(document: object, levels: int) -> bool:
    """Tell whether values lie deeper than that; what is written again later must not exhaust the stack there."""
    values = [document]
    for _ in range(levels):
        values = [below for value in values for below in _parts(value)]
    return bool(values)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
