"""The backends that make root file systems, and which of them to try for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pykka_imagestore.provision_order import ProvisionOrder
from pykka_imagestore.rootfs.backend import Backend
from pykka_imagestore.rootfs.bind import Bind
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.rootfs.copy_in_namespace import CopyInNamespace
from pykka_imagestore.rootfs.link import Link
from pykka_imagestore.rootfs.namespace import InNamespace, Namespace, NamespaceError, may_mount
from pykka_imagestore.rootfs.namespace_refusal import Obstacle
from pykka_imagestore.rootfs.overlay import Overlay
from pykka_imagestore.runtime.launch import CannotStartError, python_command

_WRITABLE = ("overlay", "copy")
_READ_ONLY = ("overlay", "link", "copy")
_ONE_LAYER = ("bind", *_READ_ONLY)  # read-only


class Backends:
    """Backends by name.

    Args:
        namespace: What they mount in, if that is not this process' own; closed with this.
    """

    def __init__(self, backends: Iterable[Backend], namespace: Namespace | None = None) -> None:
        self._by_name = {backend.name: backend for backend in backends}
        self._namespace = namespace

    @classmethod
    def of_this_machine(cls) -> Backends:
        """Return all there are; they mount in a user namespace where this process may not."""
        if may_mount():
            return cls([Overlay(), Bind(), Copy(), Link()])
        namespace = new_namespace()
        mounting = [InNamespace(backend, namespace) for backend in (Overlay(), Bind())]
        copying = [CopyInNamespace(backend, namespace) for backend in (Copy(), Link())]
        return cls([*mounting, *copying], namespace)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._by_name)

    def for_order(self, order: ProvisionOrder, layers: int) -> tuple[Backend, ...]:
        """Return those that may make what is ordered of so many layers, the best first; or the one that is asked for.

        A mount takes no time and no room, and one layer needs no merging. A link shares what takes room; a copy always
        works.
        """
        if order.backend is not None:
            return (self._by_name[order.backend],)
        names = _WRITABLE if not order.read_only else _ONE_LAYER if layers == 1 else _READ_ONLY
        return tuple(self._by_name[name] for name in names if name in self._by_name)

    def for_container(self, name: str | None) -> tuple[Backend, ...]:
        """Return what made a container: the backend of a name, or all of them where that is not known."""
        if name is None:
            return tuple(self._by_name.values())
        return (self._by_name[name],) if name in self._by_name else ()

    def close(self) -> None:
        """End what they mount in."""
        if self._namespace is not None:
            self._namespace.close()


def new_namespace() -> Namespace:
    """Return what mounts for an ordinary user; its process is started when it is first needed."""
    return Namespace(_find_python)


def _find_python() -> list[str]:
    try:
        return python_command()
    except CannotStartError as error:
        reason = f"no process can be started that holds namespaces: {error}"
        raise NamespaceError(Obstacle(reason, "Else take the backend 'copy'")) from error
