"""Containers, as their records tell of them: what one was made of, how, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.store_names import is_own_name
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.text import shown


@dataclass(frozen=True, slots=True)
class Container:
    """What is recorded of a container before anything of it is made.

    Attributes:
        container_id: What the caller calls it.
        image: The image's name, in the familiar form.
        layer_ids: DiffIDs, root layer first.
        config_digest: Digest of the image's config; None if the store does not have it.
        backend: What makes its root file system.
        owner: A label that its agent keeps over restarts.
        holder: The process that has it, by its directory's name in staging/.
        created: Seconds since the epoch.
        boot: The kernel's boot_id then.
        stack: Which of stacks/ says how the layers are merged, ``sha256:<hex>``; None if that is not recorded.
        read_only: Whether nobody is to write to it.
        attached: Whether it is to be found by a path.
        target: The directory that it is attached to; None for ``rootfs`` in its own.
        upper_bytes: How much may be written to it; None for no bound.
        project: The project whose quota keeps that bound.
        is_filled: Whether all files are there that were copied or linked.
        for_runtime: Whether a container runtime guards it, so that set-user-ID programs and devices are to work.
    """

    container_id: str
    image: str
    layer_ids: tuple[DiffID, ...]
    config_digest: Digest | None
    backend: str
    owner: str
    holder: str
    created: int
    boot: str
    stack: str | None = None
    read_only: bool = False
    attached: bool = True
    target: str | None = None
    upper_bytes: int | None = None
    project: int | None = None
    is_filled: bool = False
    for_runtime: bool = False

    @property
    def needs(self) -> Needs:
        """What must stay in the store until it is destroyed."""
        configs = () if self.config_digest is None else (self.config_digest,)
        return Needs(frozenset(self.layer_ids), frozenset(configs))

    @property
    def has_own_files(self) -> bool:
        """Whether all of its files lie in its own directory; else it shows the layers', which are mounted there."""
        return self.backend in ("copy", "link")


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container in the store, of whichever process.

    Attributes:
        container_id: What its maker calls it.
        image: The image's name, in the familiar form.
        backend: What made its root file system: ``overlay``, ``copy``, ``link`` or ``bind``.
        path: Where its root file system is attached; None if it is not.
        read_only: Whether nobody is to write to it.
        owner: The label that its agent gave.
        created: Seconds since the epoch.
        is_held: Whether the process that made or adopted it is alive.
    """

    container_id: str
    image: str
    backend: str
    path: str | None
    read_only: bool
    owner: str
    created: int
    is_held: bool


ID_FORM = "at most 128 letters, digits, '_', '.' and '-', a letter or digit first"
"""What an id may be, as the end of a sentence."""


def is_container_id(text: str) -> bool:
    """Tell whether a text may be a container's id."""
    return is_own_name("containers", text)


def require_container_id(what: str, value: object) -> None:
    """Require an id: at most 128 letters, digits, ``_``, ``.`` and ``-``, a letter or digit first.

    Raises:
        InvalidInputError: It is something else.
    """
    if not (isinstance(value, str) and is_container_id(value)):
        given = shown(value) if isinstance(value, str) else repr(value)[:200]
        its_own = "; it has one, its container_id" if hasattr(value, "container_id") else ""
        raise InvalidInputError(f"{what} is {given}; it takes {ID_FORM}{its_own}")
