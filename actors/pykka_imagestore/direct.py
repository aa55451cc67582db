"""Root file systems made and removed by the calling thread, for a program that does nothing else.

No actor and no worker process is started: to start them takes longer than to mount an overlay. What takes worker
processes, or a namespace that a process has to hold, is left to a Provisioner.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pykka_imagestore.backends import Backends
from pykka_imagestore.core.container import require_container_id
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import NotRemovedError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.making import Site, advance, make, remove
from pykka_imagestore.provision_order import ProvisionOrder
from pykka_imagestore.provisioned import Rootfs
from pykka_imagestore.rootfs.mounts import may_mount

if TYPE_CHECKING:
    from pykka_imagestore.runtime import Future

logger = logger_of(__name__)


def provision_directly(directory: Path, order: ProvisionOrder, *, owner: str, durable: bool) -> Rootfs | None:
    """Make a root file system; None, and nothing of it is left, if that takes more than this thread.

    Args:
        directory: A store. The other arguments, and what is raised, are those of ``Provisioner``.
    """
    if not may_mount():
        return None
    with _site(directory, owner, durable=durable) as site:
        steps = make(site, StoredView.open(directory), order)
        try:
            outcome = advance(steps, None)
        finally:
            steps.close()  # where they wait for workers, they undo what they did
            _delete(site.removed.give())
    return outcome if isinstance(outcome, Rootfs) else None


class DirectRemover:
    """Removes containers, and deletes their files in a thread."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @classmethod
    @contextmanager
    def on(cls, directory: Path, owner: str) -> Iterator[DirectRemover]:
        """Lend one for a store."""
        with _site(directory, owner, durable=True) as site:
            yield cls(site)

    def remove(self, container_id: str) -> None:
        """Do what ``Provisioner.destroy`` does, with the same errors."""
        require_container_id("container_id", container_id)
        remove(self._site, container_id, None)

    def delete(self) -> Future[None]:
        """Return once the files of what was removed are deleted; a discard leaves the rest to the next recovery."""
        from pykka_imagestore.runtime import Promise  # noqa: PLC0415 - who makes a root file system waits for nothing

        promise: Promise[None] = Promise()
        future = promise.future.on_discard(promise.discard)
        waiting = self._site.removed.give()
        threading.Thread(target=lambda: promise.compute(_delete, waiting), daemon=True).start()
        return future


@contextmanager
def _site(directory: Path, owner: str, *, durable: bool) -> Iterator[Site]:
    paths, on = StorePaths(directory), disk(durable=durable)
    make_store(paths, on)
    with closing(Site(paths, on, Backends.of_this_machine(), 1, owner)) as site:
        yield site


def _delete(waiting: LockedDirectory | None) -> None:
    if waiting is not None:
        try:
            remove_tree(str(waiting.path))
        except NotRemovedError as error:
            logger.warning("%s is left, and the next store here tries again: %s", waiting.path, error)
        waiting.release()
