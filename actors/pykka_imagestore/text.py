"""Text from outside, made fit for a sentence: escaped, quoted, and not too long. Imports nothing."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LISTED = 20
_MAX_NAME = 200


def shown(unsafe_name: bytes | str) -> str:
    """Return a name from outside for a sentence: quoted, escaped, and not longer than a line."""
    name = unsafe_name if isinstance(unsafe_name, str) else unsafe_name.decode("utf-8", "backslashreplace")
    text = repr(name)
    return text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}…'"


def plain(unsafe_name: str) -> str:
    """Return a name for a sentence: as it is if it is short and cannot harm a terminal, else as ``shown`` does."""
    return unsafe_name if unsafe_name.isprintable() and len(unsafe_name) <= _MAX_NAME else shown(unsafe_name)


def listed(unsafe_names: Sequence[str]) -> str:
    """Return the first names of a list for a sentence, and how many more there are."""
    more = f" and {len(unsafe_names) - _MAX_LISTED} more" if len(unsafe_names) > _MAX_LISTED else ""
    return ", ".join(map(plain, unsafe_names[:_MAX_LISTED])) + more


def escaped(unsafe_text: str, max_length: int | None = None) -> str:
    """Return a text with each character escaped that is not printable: control characters, line ends, bidi marks.

    To escape an escaped text changes nothing.

    Args:
        max_length: A longer text is cut after so many characters.
    """
    if max_length is not None and len(unsafe_text) > max_length:
        return f"{escaped(unsafe_text[:max_length])}…"
    if unsafe_text.isprintable():
        return unsafe_text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in unsafe_text
    )
