"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from pykka_imagestore.errors import InvalidInputError

_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,3}))?\s*([KMGTP]?)(i?B)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9})\s*([smhdw]?)", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PREFIXES = "kmgtp"


def parse_size(text: str) -> int:
    """Return the bytes that a text says: ``500``, ``20G``, ``1.5GiB``, ``20GB``.

    Raises:
        InvalidInputError: It says none.

    Spec:
        GNU coreutils manual, "Block size": K and KiB are 1024 bytes, KB 1000.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(f"{text!r} is no size; write bytes, or 500M, 20G, 1.5T")
    whole, fraction, prefix, suffix = match.groups()
    if fraction and not prefix:
        raise InvalidInputError(f"{text!r} is no size: a fraction of bytes; write a unit, as in 1.5G")
    base = 1000 if prefix and (suffix or "").upper() == "B" else 1024
    unit = base ** (_PREFIXES.index(prefix.lower()) + 1) if prefix else 1
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def parse_duration(text: str) -> int:
    """Return the seconds that a text says: ``90``, ``90s``, ``30m``, ``12h``, ``7d``, ``2w``.

    Raises:
        InvalidInputError: It says none.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(f"{text!r} is no duration; write seconds, or 30m, 12h, 7d, 2w")
    return int(match[1]) * _SECONDS[match[2].lower()]


def format_size(size_bytes: int) -> str:
    """Return a size for people, in powers of 1024: ``1.5 GiB``."""
    size, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size_bytes} B" if units[0] == "B" else f"{size:.3g} {units[0]}"
