"""Answers of workers that may be taken over: data only, of types that the pool's user lists.

An answer is JSON. A value that JSON lacks is an array that begins with its kind: ``["tuple", 1, 2]``. No answer can
name a function or a class: an object is the number of its type in the list that both sides have, the arguments of its
constructor and, for an error, its attributes. So loading an answer runs only these constructors, and takes memory in
proportion to its size: at most 20 times as much, if it is large.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from pykka_imagestore.runtime.wire import MalformedError

_MAX_ARRAYS = 1 << 19  # an empty set has 8 bytes in JSON, and takes 400 in memory
_SIMPLE = (type(None), bool, int, float, str)
_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class PlainAnswers:
    """Workers send plain values, and objects of the given types: frozen dataclasses, enums, errors, paths.

    Plain values are None, bool, int, float, str, bytes, and list, tuple, dict, set and frozenset of these. Keys of a
    dict and members of a set are None, str, bytes, or int of at most 60 bits.

    Args:
        types: The types of the objects, or their names, ``module:name``, which are imported when an answer has one.
            Of an error, its arguments and attributes are sent.
        max_bytes: How large one answer may be.
    """

    def __init__(self, types: Iterable[type | str], max_bytes: int) -> None:
        self.max_bytes = max_bytes
        # By name, so that a worker need not import the types that it never sends.
        self._names = tuple(kind if isinstance(kind, str) else _name_of(kind) for kind in types)
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def dump(self, value: object) -> bytes:
        """Return a value as bytes; TypeError if its type may not be sent."""
        return json.dumps(self._encode(value), separators=(",", ":")).encode()

    def load(self, data: bytes) -> Any:
        """Return the value; MalformedError if the data is no answer."""
        try:
            if data.count(b"[") > _MAX_ARRAYS:
                msg = "too many arrays"
                raise ValueError(msg)
            return self._decode(json.loads(data, object_pairs_hook=_refuse_object))
        except Exception as error:  # noqa: BLE001 - whatever a constructor raises
            reason = str(error)[:1000].encode("unicode_escape").decode()  # the text may be the worker's
            msg = f"it sent data that is no answer ({type(error).__name__}: {reason})"
            raise MalformedError(msg) from None

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SIMPLE:
            return value
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind in (list, tuple):
            return [kind.__name__, *map(self._encode, value)]
        if kind in (set, frozenset):
            return [kind.__name__, *(self._encode(_hashable(member)) for member in value)]
        if kind is dict:
            return ["dict", *([self._encode(_hashable(key)), self._encode(item)] for key, item in value.items())]
        number = self._numbers.get(_name_of(kind))
        if number is None:
            msg = f"{kind.__qualname__} is no type that may be sent"
            raise TypeError(msg)
        arguments, attributes = _parts(value)
        if not attributes:
            return ["new", number, *map(self._encode, arguments)]
        return ["object", number, self._encode(arguments), self._encode(attributes)]

    def _decode(self, data: Any) -> Any:
        if not isinstance(data, list):
            return data
        kind, *items = data
        if kind in _CONTAINERS:
            members = map(self._decode, items)
            return _CONTAINERS[kind](list(members if kind in ("list", "tuple") else map(_hashable, members)))
        if kind == "bytes":
            (text,) = items
            return text.encode("latin-1")
        if kind == "dict":
            return {_hashable(self._decode(key)): self._decode(item) for key, item in items}
        if kind == "new":
            number, *arguments = items
            return _build(pkgutil.resolve_name(self._names[number]), tuple(map(self._decode, arguments)), {})
        if kind == "object":
            number, arguments, attributes = items
            return _build(pkgutil.resolve_name(self._names[number]), self._decode(arguments), self._decode(attributes))
        msg = f"{kind!r} is no kind of value"
        raise ValueError(msg)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _refuse_object(_: object) -> None:
    msg = "an object"  # a small one takes much memory
    raise TypeError(msg)


def _hashable(value: Any) -> Any:
    """Return the key of a dict, or the member of a set, if it is of an allowed type.

    Larger numbers, and tuples, can be chosen so that all have the same hash: with some thousands, building the dict
    would take hours.
    """
    if value is None or isinstance(value, str | bytes) or (isinstance(value, int) and abs(value) < 1 << 60):
        return value
    msg = f"a dict's key or a set's member is no str, bytes or int of at most 60 bits, but a {type(value).__qualname__}"
    raise TypeError(msg)


def _parts(value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that make an equal object of the value's type, and the attributes to set on it."""
    if dataclasses.is_dataclass(value):
        return tuple(getattr(value, each.name) for each in dataclasses.fields(value)), {}
    if isinstance(value, enum.Enum):
        return (value.value,), {}
    if isinstance(value, os.PathLike):
        return (os.fspath(value),), {}
    _, arguments, *rest = value.__reduce__()
    return arguments, {name: item for name, item in (rest[0] if rest else {}).items() if not name.startswith("__")}


def _build(kind: type, arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    value = kind(*arguments)
    for name, item in attributes.items():
        if name.startswith("__") or callable(getattr(kind, name, None)):  # it would replace a method
            msg = f"an attribute {name}"
            raise ValueError(msg)
        setattr(value, name, item)
    return value
