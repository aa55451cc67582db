"""Parse what an image config says of running it. Pure.

Spec:
    OCI image-spec v1.1 config.md, "Properties", config; Docker image spec v1.2, "Container RunConfig Field
    Descriptions". Both have the same fields; Docker reads them whatever their case, and takes a text for a list of one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from pykka_imagestore.core.format_error import FormatError, inside
from pykka_imagestore.core.formats.json_fields import describe, expect_object, get_optional_text, get_texts, parse_json
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.text import shown

# Linux, include/uapi/linux/binfmts.h and limits.h: execve(2) takes no longer text, and open(2) no longer path.
MAX_ARGUMENT_BYTES = (128 << 10) - 1
MAX_PATH_BYTES = 4095
# What it takes in all of arguments and environment where the stack may grow to 8 MiB, as it usually may.
MAX_COMMAND_BYTES = 2 << 20
MAX_WORD_BYTES = 1024

_Fields = Mapping[str, Any]
_Pairs = tuple[tuple[str, str], ...]


def parse_run_config(config: bytes) -> RunConfig:
    """Return what a config says of running its image; what it does not say, or says is null, is empty.

    All of it can be given to the kernel: no text has a NUL, none is too long, and the working directory is absolute.

    Raises:
        FormatError: It is no image config, or has what cannot be run.
    """
    document = _any_case(expect_object(parse_json(config)))
    with inside("config"):
        fields = _any_case(_get_object(document, "config"))
        entrypoint, arguments = _get_command(fields, "Entrypoint"), _get_command(fields, "Cmd")
        environment = _get_environment(fields)
        _check_together(entrypoint + arguments, environment)
        return RunConfig(
            entrypoint,
            arguments,
            environment,
            _get_text(fields, "User", MAX_WORD_BYTES),
            _get_working_directory(fields),
            _get_labels(fields),
            _get_keys(fields, "ExposedPorts", MAX_WORD_BYTES),
            _get_keys(fields, "Volumes", MAX_PATH_BYTES),
            _get_text(fields, "StopSignal", MAX_WORD_BYTES),
        )


def _any_case(fields: _Fields) -> _Fields:
    """Return fields by their names in lower case; of several the last one counts, as it does for Docker."""
    return {key.lower(): value for key, value in fields.items()}


def _field(fields: _Fields, key: str) -> _Fields:
    """Return one field under its proper name, by which a fault tells it."""
    return {key: fields.get(key.lower())}


def _get_object(fields: _Fields, key: str) -> dict[str, Any]:
    value = fields.get(key.lower())
    return {} if value is None else expect_object(value, key)


def _get_text(fields: _Fields, key: str, max_bytes: int) -> str:
    return _checked(get_optional_text(_field(fields, key), key), max_bytes, key)


def _get_command(fields: _Fields, key: str) -> tuple[str, ...]:
    field = _field(fields, key)
    texts = (field[key],) if isinstance(field[key], str) else get_texts(field, key)
    return tuple(_checked(text, MAX_ARGUMENT_BYTES, f"{key} {number}") for number, text in enumerate(texts))


def _get_environment(fields: _Fields) -> _Pairs:
    environment: dict[str, str] = {}
    for number, text in enumerate(get_texts(_field(fields, "Env"), "Env")):
        where = f"Env {number}"
        name, equals, value = _checked(text, MAX_ARGUMENT_BYTES, where).partition("=")
        if not name:
            msg = f"should be NAME=VALUE, but is {shown(text)}"
            raise FormatError(msg, (where,))
        if equals:
            environment[name] = value
        else:
            environment.pop(name, None)  # Docker has it that a name alone is unset
    return tuple(environment.items())


def _get_working_directory(fields: _Fields) -> str:
    path = _get_text(fields, "WorkingDir", MAX_PATH_BYTES) or "/"
    if not path.startswith("/"):
        msg = f"should be an absolute path, but is {shown(path)}"
        raise FormatError(msg, ("WorkingDir",))
    # There a runtime's own descriptors lie, by which one left its container (runc, CVE-2024-21626).
    if posixpath.normpath(f"/{path.lstrip('/')}").split("/")[1] == "proc":
        msg = f"should be a directory of the image, but {shown(path)} is the kernel's"
        raise FormatError(msg, ("WorkingDir",))
    return path


def _get_labels(fields: _Fields) -> _Pairs:
    labels = _get_object(fields, "Labels")
    for key, value in labels.items():
        if not isinstance(value, str | None):
            msg = f"should be a string, but is {describe(value)}"
            raise FormatError(msg, ("Labels", shown(key)))
    return tuple(
        (_checked(key, None, "Labels"), _checked(value or "", None, "Labels")) for key, value in labels.items()
    )


def _get_keys(fields: _Fields, key: str, max_bytes: int) -> tuple[str, ...]:
    """Return the keys of an object whose values say nothing."""
    return tuple(_checked(text, max_bytes, key) for text in _get_object(fields, key))


def _checked(text: str, max_bytes: int | None, *where: str) -> str:
    """Return a text that can be given to the kernel.

    Raises:
        FormatError: It cannot.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:  # JSON can spell half of a character
        msg = f"should be Unicode, but is {shown(text)}"
        raise FormatError(msg, where) from error
    if "\0" in text:
        msg = f"should have no NUL, but is {shown(text)}"
        raise FormatError(msg, where)
    if max_bytes is not None and size > max_bytes:
        msg = f"should be no longer than {max_bytes} bytes, but has {size}"
        raise FormatError(msg, where)
    return text


def _check_together(command: tuple[str, ...], environment: _Pairs) -> None:
    """Refuse more than a program can be given. Each text takes its bytes, a NUL and a pointer."""
    texts = [*command, *(f"{name}={value}" for name, value in environment)]
    size = sum(len(text.encode()) + 9 for text in texts)
    if size > MAX_COMMAND_BYTES:
        msg = f"has a command and an environment of {size} bytes, and a program can be given {MAX_COMMAND_BYTES}"
        raise FormatError(msg)
