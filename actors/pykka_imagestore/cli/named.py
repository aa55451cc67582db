"""Which image a user means: by its name, or by its config digest or the beginning of that.

A name comes first: a repository may be named like the digits of a digest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import DEFAULT_TAG, ImageName
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import ImageIncompleteError, InvalidNameError, NotFoundError, StoreError
from pykka_imagestore.text import listed

MIN_DIGITS = 12  # as many as list shows
_DIGEST = re.compile(rf"(?:sha256:)?([a-f0-9]{{{MIN_DIGITS},64}})")
_SHORT_DIGEST = re.compile(rf"(?:sha256:)?[a-f0-9]{{4,{MIN_DIGITS - 1}}}")


class AmbiguousDigestError(StoreError):
    """More than one image is meant.

    Attributes:
        digest: What was asked for.
        names: The images, in order.
        configs: Their config digests.
    """

    def __init__(self, digest: str, names: tuple[str, ...], configs: tuple[str, ...]) -> None:
        super().__init__(digest, names, configs)
        self.digest, self.names, self.configs = digest, names, configs

    def __str__(self) -> str:
        if len(set(self.configs)) == 1:
            return f"{self.digest} is the config digest of {listed(self.names)}; say which by its name"
        candidates = [f"{name} ({config})" for name, config in zip(self.names, self.configs, strict=True)]
        return f"{self.digest} begins the config digests of {listed(candidates)}; write more digits"


class NothingNamedError(NotFoundError):
    """No image is meant by what a user typed, but something else may be.

    Attributes:
        advice: What to do about that, as the end of a sentence.
        kind: What was looked for.
    """

    def __init__(self, name: str, advice: str, kind: str = "image") -> None:
        super().__init__(name)
        self.args = name, advice, kind
        self.advice, self.kind = advice, kind

    def __str__(self) -> str:
        return f"no {self.kind} {self.name} is in the store{self.advice}"


@contextmanager
def advised(store: Path, text: str, kind: str = "image") -> Iterator[None]:
    """Say more where no image is found that a user named so.

    Args:
        kind: What else the user may have named, too.

    Raises:
        NothingNamedError: The block raised NotFoundError, and something else may be meant.
    """
    try:
        yield
    except ImageIncompleteError:
        raise
    except NotFoundError as error:
        advice = advice_on(text) or _similar(store, text)
        if not advice and kind == "image":
            raise
        raise NothingNamedError(error.name if kind == "image" else text, advice, kind) from error


def advice_on(text: str) -> str:
    """Return what to do if a text that names no image was meant otherwise, as the end of a sentence; perhaps empty."""
    if _SHORT_DIGEST.fullmatch(text):
        return f"; if it begins a digest, write at least {MIN_DIGITS} digits"
    if os.path.isfile(text) or os.path.isfile(f"{text}/oci-layout"):  # noqa: PTH113 - what is no path is no file
        return f"; but {text} is here: put it first, with imagestore put {text}"
    return ""


def _similar(store: Path, text: str) -> str:
    """Return which images are named much like a text, as the end of a sentence; perhaps empty."""
    if is_digest(text):
        return ""
    import difflib  # noqa: PLC0415 - slow, and seldom needed

    wanted = ImageName.parse_stored(text)
    repository = wanted.stored.removesuffix(wanted.tag or DEFAULT_TAG)
    names = [image.name for image in StoredView.open(store).list()]
    found = [name for name in names if name.startswith(repository)]
    if not found:  # by repository: those of one tag would all be alike
        repositories = {name: name.rpartition(":")[0] for name in names}
        close = difflib.get_close_matches(repository.removesuffix(":"), set(repositories.values()))
        found = [name for name in names if repositories[name] in close]
    return f"; there is {listed(found)}" if found else ""


def is_digest(text: str) -> bool:
    """Tell whether a text may be a config digest, or the beginning of one."""
    return _DIGEST.fullmatch(text) is not None


def find_names(store: Path, text: str) -> list[str]:
    """Return the names of all images that have the config digest that is meant; a name is returned as it is.

    Raises:
        NotFoundError: No image is meant.
        AmbiguousDigestError: It begins several config digests.
    """
    if not is_digest(text):
        return [text]
    images = _find_images(store, text)
    if len({image.config_digest for image in images}) > 1:
        raise _ambiguous(text, images)
    return [image.name for image in images]


def find_names_to_keep(store: Path, text: str) -> list[str]:
    """Return names as ``find_names`` does. A name need not be there; too few digits of a digest would keep nothing.

    Raises:
        As ``find_names``; NothingNamedError if these are such digits.
    """
    if _SHORT_DIGEST.fullmatch(text) and not _find_named(StoredView.open(store).list(), text):
        raise NothingNamedError(text, advice_on(text))
    return find_names(store, text)


def find_only_name(store: Path, text: str) -> str:
    """Return the name of the one image that is meant.

    Raises:
        NotFoundError: No image is meant.
        AmbiguousDigestError: Several are, and be it one image with several names.
    """
    if not is_digest(text):
        return text
    images = _find_images(store, text)
    if len(images) > 1:
        raise _ambiguous(text, images)
    return images[0].name


def _find_images(store: Path, text: str) -> list[DockerImage]:
    images = StoredView.open(store).list()
    beginning = f"sha256:{text.removeprefix('sha256:')}"
    found = _find_named(images, text) or [
        image for image in images if (image.config_digest or "").startswith(beginning)
    ]
    if not found:
        raise NotFoundError(text)
    return found


def _find_named(images: Sequence[DockerImage], text: str) -> list[DockerImage]:
    name = _stored_name(text)
    return [image for image in images if image.name == name]


def _stored_name(text: str) -> str | None:
    try:
        return ImageName.parse_stored(text).stored
    except InvalidNameError:
        return None


def _ambiguous(text: str, images: Sequence[DockerImage]) -> AmbiguousDigestError:
    configs = tuple(image.config_digest or "" for image in images)
    return AmbiguousDigestError(text, tuple(image.name for image in images), configs)
