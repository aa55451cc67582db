"""What a caller wants of a root file system, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pykka_imagestore.core.container import require_container_id
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.parameters import parse_path, require_count, require_flag, require_text, require_type
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.provision.backends import BACKENDS
from pykka_imagestore.text import shown


@dataclass(frozen=True, slots=True)
class ProvisionOrder:
    """A root file system that is wanted.

    Attributes:
        container_id: What to call it.
        name: The image.
        backend: What is to make it; None for the best that works.
        read_only: Whether nobody is to write to it.
        target: The directory to attach it to, absolute; None for one in the store.
        attach: Whether it is to be found by a path.
        upper_bytes: How much may be written to it; None for no bound.
        for_runtime: Whether a container runtime guards it.
    """

    container_id: str
    name: ImageName
    backend: str | None
    read_only: bool
    target: str | None
    attach: bool
    upper_bytes: int | None
    for_runtime: bool

    @classmethod
    def of(
        cls,
        container_id: str,
        name: str,
        *,
        backend: str | None = None,
        read_only: bool = False,
        target: str | Path | None = None,
        attach: bool = True,
        upper_bytes: int | None = None,
        for_runtime: bool = False,
    ) -> Self:
        """Make one of what a caller says, as ``Provisioner.provision`` takes it.

        Raises:
            InvalidNameError: ``name`` is no image name.
            InvalidInputError: Something else is not what it takes, or does not go together.
        """
        _require_new_id(container_id)
        require_type("name", name, str, "an image name, a str such as the name of an ImageInfo")
        require_text("backend", backend)
        if backend is not None and backend not in BACKENDS:
            raise InvalidInputError(f"backend is {shown(backend)}; it takes one of {', '.join(BACKENDS)}, or None")
        require_flag("read_only", read_only)
        require_flag("attach", attach)
        require_flag("for_runtime", for_runtime)
        require_count("upper_bytes", upper_bytes, 1, "bytes")
        if upper_bytes is not None and read_only:
            raise InvalidInputError("upper_bytes bounds what is written, and read_only=True lets nobody write")
        if target is not None and not attach:
            raise InvalidInputError("target is where to attach it, and attach=False attaches it nowhere")
        path = None if target is None else str(parse_path("target", target).absolute())
        image = ImageName.parse_stored(name)
        return cls(
            container_id=container_id,
            name=image,
            backend=backend,
            read_only=read_only,
            target=path,
            attach=attach,
            upper_bytes=upper_bytes,
            for_runtime=for_runtime,
        )


def _require_new_id(container_id: object) -> None:
    if isinstance(container_id, str) and ":" in container_id:
        raise InvalidInputError(f"container_id is {shown(container_id)}; the id comes first, then the image's name")
    require_container_id("container_id", container_id)
