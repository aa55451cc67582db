"""Reading Protocol Buffers' messages. The library is imported with the first one: it takes longer than all of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")


def parse_message(kind: type[M], data: bytes) -> M:
    """Return the message that ``data`` is.

    Raises:
        ValueError: It is none, or has text that is not UTF-8.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def has_unknown_fields(message: Message) -> bool:
    """Tell whether a message has fields that its kind, as this release knows it, does not have."""
    from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415

    return bool(UnknownFieldSet(message))
