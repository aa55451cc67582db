"""Checks of what a caller of the library gives: each error says what was given, and what is allowed. Pure."""

from __future__ import annotations

import math
from pathlib import Path

from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import shown

_MAX_SHOWN = 200


def require_count(what: str, value: object, least: int, unit: str) -> None:
    """Require a whole number, or None.

    Args:
        what: The parameter's name.
        least: The smallest number that is allowed.
        unit: What is counted, such as "bytes".

    Raises:
        InvalidInputError: It is something else.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return
    raise _refusal(what, value, f"a whole number of {unit}, at least {least}, or None")


def require_seconds(what: str, value: object, *, above_zero: bool = False) -> None:
    """Require a finite number of seconds, or None.

    Args:
        above_zero: Whether 0 is refused too.

    Raises:
        InvalidInputError: It is something else.
    """
    if value is None:
        return
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_above = value > 0 if above_zero else value >= 0
        if is_above and math.isfinite(value):
            return
    raise _refusal(what, value, f"a number of seconds, {'more than' if above_zero else 'at least'} 0, or None")


def require_type(what: str, value: object, kind: type, name: str) -> None:
    """Require an object of a type; ``name`` tells which that is, in words.

    Raises:
        InvalidInputError: It is of another one.
    """
    if not isinstance(value, kind):
        raise _refusal(what, value, name)


def require_flag(what: str, value: object) -> None:
    """Require True or False.

    Raises:
        InvalidInputError: It is something else.
    """
    require_type(what, value, bool, "True or False")


def require_text(what: str, value: object) -> None:
    """Require a text, or None.

    Raises:
        InvalidInputError: It is something else.
    """
    if value is not None:
        require_type(what, value, str, "a str, or None")


def require_function(what: str, value: object) -> None:
    """Require what can be called, or None.

    Raises:
        InvalidInputError: It is something else.
    """
    if value is not None and not callable(value):
        raise _refusal(what, value, "a function of one argument, or None")


def parse_path(what: str, value: object) -> Path:
    """Return a path that a caller gives: not an empty text, which would be the working directory.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        path = Path(value) if value != "" else None  # type: ignore[arg-type]
    except TypeError:
        path = None
    if path is None or "\0" in str(path):
        raise _refusal(what, value, "a path, as a str or a pathlib.Path")
    return path


def _refusal(what: str, value: object, allowed: str) -> InvalidInputError:
    given = shown(value) if isinstance(value, str) else repr(value)[:_MAX_SHOWN]
    return InvalidInputError(f"{what} is {given}; it takes {allowed}")
