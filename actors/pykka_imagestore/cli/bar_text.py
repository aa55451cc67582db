"""The text of a progress bar: as much of it as a terminal is wide. Pure, and in ASCII."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.cli.output import counted
from pykka_imagestore.core.sizes import format_size

_MAX_TITLE_LENGTH = 40
_MIN_TITLE_LENGTH = 6  # less of it says nothing
_MIN_BAR, _MAX_BAR = 4, 40  # characters between the brackets
_MIN_RATE = 0.001  # in a second: below it, nobody wants to know how long the rest takes
_ORDER = ("title", "bar", "percent", "amount", "rate", "time", "details")
_BY_IMPORTANCE = ("percent", "time", "rate", "bar", "title", "amount", "details")


@dataclass(frozen=True, slots=True)
class Reading:
    """How far some work has come.

    Attributes:
        title: What it is.
        done: How much is done.
        expected: How much there is to do; 0 if that is not known yet.
        noun: What one of those is that are counted; None for bytes.
        details: What else is told if there is room.
    """

    title: str
    done: int = 0
    expected: int = 0
    noun: str | None = None
    details: str = ""


def bar_text(reading: Reading, width: int, seconds: float, rate: float) -> str:
    """Return the text, of no more than ``width`` characters.

    Args:
        seconds: Since the work began.
        rate: How much is done in a second; 0 if that is not known.
    """
    parts = _parts(reading, seconds, rate)
    shown: dict[str, str] = {}
    for name in _BY_IMPORTANCE:
        text, room = parts.get(name, ""), width - sum(len(part) + 1 for part in shown.values())
        if name == "title" and len(text) > room >= _MIN_TITLE_LENGTH:
            text = f"{text[: room - 2]}.."
        if text and len(text) <= room:
            shown[name] = text
    if "bar" in shown:
        room = width - sum(len(part) + 1 for part in shown.values()) + len(shown["bar"]) - 1
        shown["bar"] = _bar(reading.done / reading.expected, min(_MAX_BAR, room))
    return " ".join(shown[name] for name in _ORDER if name in shown)


def _parts(reading: Reading, seconds: float, rate: float) -> dict[str, str]:
    parts = {"title": _ascii(reading.title)[:_MAX_TITLE_LENGTH], "details": reading.details}
    if not reading.expected:
        return parts | {"time": _clock(seconds)}
    done = min(reading.done, reading.expected)
    left = (reading.expected - done) / rate if rate > _MIN_RATE else None
    parts |= {"bar": _bar(0, _MIN_BAR), "percent": f"{100 * done // reading.expected:2}%"}
    parts["time"] = f"{'-:--' if left is None else _clock(left)} left"
    if reading.noun is None:
        parts["amount"] = f"{format_size(done)} of {format_size(reading.expected)}"
        parts["rate"] = f"{format_size(int(rate))}/s"
    else:
        parts["amount"] = f"{done} of {counted(reading.expected, reading.noun)}"
    return parts


def _bar(share: float, length: int) -> str:
    full = int(min(1.0, share) * length)
    return f"[{'#' * full}{'.' * (length - full)}]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ascii(text: str) -> str:
    # Of other letters it is not known how wide a terminal shows them, and a line too long cannot be erased.
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
