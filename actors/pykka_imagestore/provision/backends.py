"""The backends that make root file systems, and which of them to try for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from pykka_imagestore.rootfs.backend import Backend
from pykka_imagestore.rootfs.mounts import may_mount

if TYPE_CHECKING:
    from pykka_imagestore.provision.order import ProvisionOrder
    from pykka_imagestore.rootfs.backend import Backend
    from pykka_imagestore.rootfs.copy import Copy
    from pykka_imagestore.rootfs.namespace import Namespace

BACKENDS = ("overlay", "bind", "copy", "link")
_MOUNTING = ("overlay", "bind")  # always
_WRITABLE = ("overlay", "copy")
_READ_ONLY = ("overlay", "link", "copy")
_ONE_LAYER = ("bind", *_READ_ONLY)  # read-only


class Backends:
    """Backends by name, each of which is imported and made when it is first wanted. Threads may share it.

    Args:
        backends: Those that are made already.
        names: Those of this machine.
        namespace: What they mount in, if that is not this process' own; closed with this.
    """

    def __init__(
        self, backends: Iterable[Backend], names: Iterable[str] = (), namespace: Namespace | None = None
    ) -> None:
        self._made = {backend.name: backend for backend in backends}
        self._names = (*self._made, *names)
        self._namespace = namespace

    @classmethod
    def of_this_machine(cls) -> Backends:
        """Return all there are; they mount in a user namespace where this process may not."""
        return cls((), BACKENDS, None if may_mount() else new_namespace())

    def __contains__(self, name: str) -> bool:
        """Tell whether there is one of a name."""
        return name in self._names

    def for_order(self, order: ProvisionOrder, layers: int) -> Iterator[Backend]:
        """Yield those that may make what is ordered of so many layers, the best first; or the one that is asked for.

        A mount takes no time and no room, and one layer needs no merging. A link shares what takes room; a copy always
        works.
        """
        names = _WRITABLE if not order.read_only else _ONE_LAYER if layers == 1 else _READ_ONLY
        for name in names if order.backend is None else (order.backend,):
            if name in self._names:
                yield self._get(name)

    def for_container(self, name: str | None) -> Iterator[Backend]:
        """Yield what made a container: the backend of a name, or all of them where that is not known, or not here."""
        return map(self._get, (name,) if name in self._names else self._names)

    def close(self) -> None:
        """End what they mount in."""
        if self._namespace is not None:
            self._namespace.close()

    def _get(self, name: str) -> Backend:
        if name not in self._made:  # another thread may make another one meanwhile, which is as good
            backend = _make(name)
            self._made[name] = backend if self._namespace is None else _make_in(self._namespace, backend)
        return self._made[name]


def _make(name: str) -> Backend:
    # Each is imported with the first use: an overlay is mounted in less time than it takes to import the others.
    if name == "overlay":
        from pykka_imagestore.rootfs.overlay import Overlay  # noqa: PLC0415

        return Overlay()
    if name == "bind":
        from pykka_imagestore.rootfs.bind import Bind  # noqa: PLC0415

        return Bind()
    if name == "copy":
        from pykka_imagestore.rootfs.copy import Copy  # noqa: PLC0415

        return Copy()
    from pykka_imagestore.rootfs.link import Link  # noqa: PLC0415

    return Link()


def new_namespace() -> Namespace:
    """Return what mounts for an ordinary user; its process is started when it is first needed."""
    from pykka_imagestore.rootfs.namespace import Namespace  # noqa: PLC0415 - it takes as long as all else

    return Namespace(_find_python)


def _find_python() -> list[str]:
    from pykka_imagestore.rootfs.namespace import NamespaceError  # noqa: PLC0415
    from pykka_imagestore.rootfs.namespace_refusal import Obstacle  # noqa: PLC0415
    from pykka_imagestore.runtime.launch import CannotStartError, python_command  # noqa: PLC0415

    try:
        return python_command()
    except CannotStartError as error:
        reason = f"no process can be started that holds namespaces: {error}"
        raise NamespaceError(Obstacle(reason, "Else take the backend 'copy'")) from error


def _make_in(namespace: Namespace, backend: Backend) -> Backend:
    from pykka_imagestore.rootfs.copy_in_namespace import CopyInNamespace  # noqa: PLC0415
    from pykka_imagestore.rootfs.namespace import InNamespace  # noqa: PLC0415

    if backend.name in _MOUNTING:
        return InNamespace(backend, namespace)
    return CopyInNamespace(cast("Copy", backend), namespace)
