"""What an agent and the process that holds its namespaces send each other: JSON, with descriptors beside it.

A message is four bytes for its length, with which the descriptors travel, and then so many bytes. Nothing that is read
is run: there is no pickle.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import RootfsRequest, StackLayer
from pykka_imagestore.errors import InvalidInputError, RootfsError
from pykka_imagestore.rootfs.overlay_trial import Trial

Message = dict[str, Any]

MAX_BYTES = 1 << 22  # a path of 4,096 bytes for each of 500 layers is half of that
_LENGTH_BYTES = 4
_SEND_BYTES = 16 << 10  # which a socket takes at once when it takes anything
_DESCRIPTOR = struct.Struct("i")


class WrongMessageError(ValueError):
    """What came is no message, or a message is too long."""


def pack(message: Mapping[str, object]) -> bytes:
    """Return a message as bytes.

    Raises:
        WrongMessageError: It is too long.
    """
    body = json.dumps(message).encode()
    if len(body) > MAX_BYTES:
        msg = f"a message of {len(body)} bytes; {MAX_BYTES} are the most"
        raise WrongMessageError(msg)
    return body


Wait = Callable[[int], object]
"""Called with POLLIN or POLLOUT before each call that may block; raises where that is not worth waiting for."""


def send(connection: socket.socket, body: bytes, descriptors: Sequence[int] = (), wait: Wait = lambda _: None) -> None:
    """Send a packed message, and descriptors of which the receiver gets its own."""
    wait(select.POLLOUT)
    socket.send_fds(connection, [len(body).to_bytes(_LENGTH_BYTES)], descriptors)
    rest = memoryview(body)
    while rest:
        wait(select.POLLOUT)
        rest = rest[connection.send(rest[:_SEND_BYTES]) :]


def receive(connection: socket.socket, wait: Wait = lambda _: None) -> tuple[Message, int | None]:
    """Return the next message, and the descriptor that came with it, which the caller closes.

    Raises:
        EOFError: The other end is closed.
        WrongMessageError: It is no message.
    """
    # Not by recv_fds, which takes flags and ignores them: a program that is started meanwhile would inherit it.
    room = socket.CMSG_LEN(_DESCRIPTOR.size)
    wait(select.POLLIN)
    start, beside, *_ = connection.recvmsg(_LENGTH_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = [descriptor for *_, data in beside for (descriptor,) in _DESCRIPTOR.iter_unpack(data)]
    try:
        length = int.from_bytes(start + _read(connection, _LENGTH_BYTES - len(start), wait))
        if length > MAX_BYTES:
            msg = f"a message of {length} bytes was announced; {MAX_BYTES} are the most"
            raise WrongMessageError(msg)
        message = json.loads(_read(connection, length, wait))
        if not isinstance(message, dict):
            msg = "what came is no message"
            raise WrongMessageError(msg)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return message, next(iter(descriptors), None)


def _read(connection: socket.socket, count: int, wait: Wait) -> bytes:
    data = bytearray()
    while len(data) < count:
        wait(select.POLLIN)
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def pack_request(request: RootfsRequest) -> Message:
    """Return a request as plain values."""
    return dataclasses.asdict(request)


def parse_request(message: Message) -> RootfsRequest:
    """Return the request that was packed."""
    layers = tuple(StackLayer(layer["path"], WhiteoutFormat(layer["whiteouts"])) for layer in message["layers"])
    return RootfsRequest(**{**message, "layers": layers})


def pack_trial(trial: Trial) -> Message:
    """Return a trial as plain values."""
    return dataclasses.asdict(trial)


def parse_trial(message: Message) -> Trial:
    """Return the trial that was packed."""
    return Trial(**{**message, "options": tuple(message["options"])})


def pack_error(error: Exception) -> Message:
    """Return an error as plain values."""
    if isinstance(error, RootfsError):
        return {"kind": "refused", "container_id": error.container_id, "reasons": error.reasons}
    if isinstance(error, InvalidInputError):
        return {"kind": "input", "sentence": str(error)}
    if isinstance(error, OSError):
        return {"kind": "system", "number": error.errno, "sentence": error.strerror, "path": error.filename}
    return {"kind": "other", "sentence": f"{type(error).__name__}: {error}"}


def parse_error(message: Message) -> Exception:
    """Return the error that was packed; of a kind that is not expected, with its text."""
    kind = message["kind"]
    if kind == "refused":
        return RootfsError(message["container_id"], [(backend, reason) for backend, reason in message["reasons"]])
    if kind == "input":
        return InvalidInputError(message["sentence"])
    if kind == "system":
        return OSError(message["number"], message["sentence"], *filter(None, [message["path"]]))
    return RuntimeError(f"in the process that holds the namespaces: {message['sentence']}")
