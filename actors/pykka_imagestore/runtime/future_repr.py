"""What a future looks like in a log: its state, and its value or error, on one line."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

from pykka_imagestore.runtime.state import State

if TYPE_CHECKING:
    from pykka_imagestore.runtime.completable import Completable

MAX_SHOWN = 200

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


@reprlib.recursive_repr("<Future ...>")
def future_repr(future: Completable[Any]) -> str:
    """Return the ``repr`` of a future; what it shows of a value is cut and escaped."""
    state = f"{future._state.value}{', discard requested' if future.has_discard() else ''}"
    if future._state is State.PENDING or future._state is State.DISCARDED:
        return f"<Future {state}>"
    return f"<Future {state}: {_shown(future._value if future._error is None else future._error)}>"


def _shown(value: object) -> str:
    try:
        text = _error_repr(value) if type(value).__repr__ is BaseException.__repr__ else _repr.repr(value)
    except Exception:  # noqa: BLE001 - such as that of an int of ten thousand digits
        text = f"<{type(value).__name__}>"
    if len(text) > MAX_SHOWN:
        text = f"{text[:MAX_SHOWN]}…"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def _error_repr(error: Any) -> str:
    """Return what ``repr`` does, which would show all of the arguments first, however long they are."""
    return f"{type(error).__name__}({', '.join(map(_repr.repr, error.args[: _repr.maxtuple]))})"
