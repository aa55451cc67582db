"""JSON out of an archive, checked field by field; a fault names the field, and the caller names the document. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pykka_imagestore.core.format_error import FormatError

MAX_NESTING = 100


def parse_json(data: bytes, *, is_written_again: bool = False) -> Any:
    """Parse a document.

    Args:
        is_written_again: Whether it will be written as JSON; then a float must be able to hold each of its numbers.

    Raises:
        FormatError: It is no JSON, nested deeper than anything sound, or has a number that is out of range.
    """
    try:
        # Python alone would guess that bytes are UTF-16, and take surrogates and a mark at the beginning.
        parse_float = _parse_finite if is_written_again else None
        document = json.loads(data.decode(), parse_constant=_refuse_constant, parse_float=parse_float)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, _ConstantError) as error:
        msg = f"is no JSON: {error}"
        raise FormatError(msg) from error
    except OverflowError as error:
        msg = "has a number that is out of range"
        raise FormatError(msg) from error
    except ValueError as error:
        msg = "has a number of more digits than anything sound"
        raise FormatError(msg) from error
    if _is_nested(document, MAX_NESTING):
        msg = f"has JSON nested more than {MAX_NESTING} deep"
        raise FormatError(msg)
    return document


def expect_object(value: object, *where: str) -> dict[str, Any]:
    """Return a value that must be an object.

    Raises:
        FormatError: It is none.
    """
    if not isinstance(value, dict):
        raise _unexpected("an object", value, where)
    return value


def get_list(fields: Mapping[str, Any], key: str) -> list[Any]:
    """Return a field that must be a list; one that is missing, or null, as Go writes an empty one, is empty.

    Raises:
        FormatError: It is none.
    """
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unexpected("a list", value, (key,))
    return value


def get_text(fields: Mapping[str, Any], key: str) -> str:
    """Return a field that must be a string.

    Raises:
        FormatError: It is none, or missing.
    """
    value = fields.get(key)
    if not isinstance(value, str):
        raise _unexpected("a string", value, (key,))
    return value


def get_optional_text(fields: Mapping[str, Any], key: str) -> str:
    """Return a field that must be a string; one that is missing, or null, is empty.

    Raises:
        FormatError: It is none.
    """
    return "" if fields.get(key) is None else get_text(fields, key)


def get_texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a field that must be a list of strings; one that is missing, or null, is empty.

    Raises:
        FormatError: It is none.
    """
    values = get_list(fields, key)
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise _unexpected("a string", value, (f"{key} {number}",))
    return tuple(values)


def describe(value: object) -> str:
    """Return what a JSON value is, for a sentence."""
    if value is None:
        return "missing or null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "an object", str: "a string", bool: "true or false"}.get(type(value), "a number")


def _unexpected(expected: str, value: object, where: tuple[str, ...]) -> FormatError:
    return FormatError(f"should be {expected}, but is {describe(value)}", where)


class _ConstantError(ValueError):
    """What Python takes for a number, and JSON does not."""


def _refuse_constant(constant: str) -> object:
    msg = f"{constant} is none of its values"
    raise _ConstantError(msg)


def _parse_finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # it would be written as something that is no JSON
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
