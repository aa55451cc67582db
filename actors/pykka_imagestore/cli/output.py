"""Output: text for people, JSON for programs, and never a character that a terminal acts upon."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pykka_imagestore.cli import status_line
from pykka_imagestore.text import escaped

if TYPE_CHECKING:
    from pykka_imagestore.cli.template import Template
    from pykka_imagestore.core.image import DockerImage, ImageInfo, Layer

MAX_SENTENCE_LENGTH = 2000  # so that an archive with thousands of names does not fill the screen


class OutputError(Exception):
    """Standard output cannot be written: its reader is gone, or its disk is full."""


def print_line(unsafe_text: str) -> None:
    """Print one line, at once. Characters that are not printable are escaped.

    Raises:
        OutputError: It cannot be written.
    """
    _print(escaped(unsafe_text))


def flush_output() -> None:
    """Flush standard output, for code that prints by itself.

    Raises:
        OutputError: It cannot be written.
    """
    with _output_errors():
        if sys.stdout is not None:
            sys.stdout.flush()


@contextmanager
def done_anyway() -> Iterator[None]:
    """Complain and go on if the block cannot print its result: the work is done all the same."""
    try:
        yield
    except OutputError as error:
        give_up_output()
        complain(f"done, but {error}")


def give_up_output() -> None:
    """Discard what is still buffered: Python would try to write it when it exits, and print a traceback."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def print_json(document: object) -> None:
    """Print one JSON document on one line, in ASCII."""
    from pykka_imagestore.cli.json_text import to_json  # noqa: PLC0415 - what is printed for people needs no JSON

    _print(to_json(document))


def print_pretty(document: object) -> None:
    """Print indented JSON with letters of any script; what a terminal would act upon gets a JSON escape."""
    from pykka_imagestore.cli.json_text import to_json  # noqa: PLC0415

    _print(to_json(document, "ascii" if sys.stdout is None else sys.stdout.encoding))


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in left-aligned columns; cells are escaped."""
    lines = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[-1] = 0  # one long cell there would widen every line
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    _print("\n".join(padded))


def print_formatted(template: Template, documents: Iterable[object]) -> None:
    """Print the line that a template makes of each document."""
    lines = [template.render(document) for document in documents]
    if lines:
        _print("\n".join(lines))


def print_lines(unsafe_texts: Iterable[str]) -> None:
    """Print each text on one line, as ``print_line`` does."""
    lines = list(map(escaped, unsafe_texts))
    if lines:
        _print("\n".join(lines))


def print_script(safe_text: str) -> None:
    """Print a text of our own, line ends and all."""
    _print(safe_text.removesuffix("\n"))


def print_images(images: Iterable[ImageInfo]) -> None:
    """Print a table of images."""
    rows = [("NAME", "CONFIG", "LAYERS", "STATE")]
    rows += [(image.name, shortened(image.config_digest), str(len(image.layers)), state_of(image)) for image in images]
    print_table(rows)


def image_document(image: ImageInfo) -> dict[str, Any]:
    """Return the JSON document of an image; it has a field ``missing`` only if the image is incomplete."""
    document = {
        "name": image.name,
        "layers": list(map(_layer_document, image.layers)),
        "config_digest": image.config_digest,
    }
    return document | ({"missing": list(image.missing)} if image.missing else {})


def _layer_document(layer: Layer) -> dict[str, str]:
    """Return that of a layer; it has a field ``whiteouts`` only if that was looked up."""
    document = {"diff_id": layer.diff_id, "path": str(layer.path)}
    return document if layer.whiteouts is None else {**document, "whiteouts": layer.whiteouts}


def shortened(config_digest: str | None) -> str:
    """Return the first digits of a config digest, which are enough to name its image."""
    return "-" if config_digest is None else config_digest.removeprefix("sha256:")[:12]


def state_of(image: DockerImage | ImageInfo) -> str:
    """Return whether an image is complete."""
    return f"incomplete ({len(image.missing)} missing)" if image.missing else "complete"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def complain(sentence: str) -> None:
    """Print one sentence on stderr, on one line."""
    if sys.stderr is None:
        return
    try:
        with status_line.erased():
            print(f"imagestore: {escaped(sentence, MAX_SENTENCE_LENGTH)}", file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads it; the exit status tells


def _print(safe_text: str) -> None:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    encoding = sys.stdout.encoding
    with _output_errors():
        sys.stdout.write(safe_text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from error
