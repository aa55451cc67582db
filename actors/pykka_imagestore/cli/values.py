"""What arguments and options may say. One that says anything else is wrong usage: exit status 2, and the verb's usage.

Each function returns the value of a text, or raises for argparse. A module that only one of them needs is imported in
it, since most runs need none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pykka_imagestore.errors import InvalidInputError

if TYPE_CHECKING:
    from pykka_imagestore.cli.template import Template

T = TypeVar("T")

_MAX_DIGITS = 18


def path(text: str) -> str:
    """Return a path as it is. An empty one would mean the working directory, or the default store."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def archive(text: str) -> str:
    """Return an archive's path as it is."""
    from pykka_imagestore.cli.transports import advice_on  # noqa: PLC0415

    if (advice := advice_on(path(text))) is not None:
        raise argparse.ArgumentTypeError(advice)
    return text


def image_name(text: str) -> str:
    """Return an image's name as it is."""
    from pykka_imagestore.core.image_name import ImageName  # noqa: PLC0415

    _parse(ImageName.parse, text)
    return text


def stored_image(text: str) -> str:
    """Return what names an image that is in the store, as it is."""
    from pykka_imagestore.cli.named import advice_on, is_digest  # noqa: PLC0415

    try:
        return text if is_digest(text) else image_name(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}{advice_on(text)}") from error


def container_id(text: str) -> str:
    """Return a container's id as it is."""
    from pykka_imagestore.core.container import ID_FORM, is_container_id  # noqa: PLC0415

    if not is_container_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: {ID_FORM}")
    return text


def image_or_container(text: str) -> str:
    """Return what names an image or a container, as it is."""
    from pykka_imagestore.core.container import is_container_id  # noqa: PLC0415

    return text if is_container_id(text) else stored_image(text)


def new_container_id(text: str) -> str:
    """Return the id of a container that is to be made, as it is; no other container's is of use."""
    try:
        return container_id(text)
    except argparse.ArgumentTypeError:
        if _is_image(text):
            raise argparse.ArgumentTypeError(f"{text!r} is no id; the id comes first, then the image's name") from None
        raise


def _is_image(text: str) -> bool:
    try:
        return bool(stored_image(text))
    except argparse.ArgumentTypeError:
        return False


def platform(text: str) -> str:
    """Return a platform as it is."""
    from pykka_imagestore.core.platform import Platform  # noqa: PLC0415

    _parse(Platform.parse, text)
    return text


def template(text: str, fields: Sequence[str]) -> Template:
    """Return a parsed template."""
    from pykka_imagestore.cli.template import Template  # noqa: PLC0415

    return _parse(lambda text: Template.parse(text, fields), text)


def size(text: str) -> int:
    """Return the bytes that a size says."""
    from pykka_imagestore.core.sizes import parse_size  # noqa: PLC0415

    return _parse(parse_size, text)


def duration(text: str) -> int:
    """Return the seconds that a duration says."""
    from pykka_imagestore.core.sizes import parse_duration  # noqa: PLC0415

    return _parse(parse_duration, text)


def number(text: str) -> int:
    """Return a number that is not negative."""
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 up")
    return int(text)


def positive_number(text: str) -> int:
    """Return a number above 0."""
    if not (_is_number(text) and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _parse(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
