"""Root file systems made by the calling thread, for a program that does nothing else.

No actor and no worker process is started: to start them takes longer than to mount an overlay. What takes worker
processes, or a namespace that a process has to hold, is left to a Provisioner.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.provision.backends import Backends
from pykka_imagestore.provision.making import Site, advance, make
from pykka_imagestore.provision.order import ProvisionOrder
from pykka_imagestore.provision.provisioned import Rootfs
from pykka_imagestore.rootfs.mounts import may_mount


def provision_directly(directory: Path, order: ProvisionOrder, *, owner: str, durable: bool) -> Rootfs | None:
    """Make a root file system; None, and nothing of it is left, if that takes more than this thread.

    Args:
        directory: A store. The other arguments, and what is raised, are those of ``Provisioner``.
    """
    if not may_mount():
        return None
    paths, on = StorePaths(directory), disk(durable=durable)
    make_store(paths, on)
    with closing(Site(paths, on, Backends.of_this_machine(), 1, owner)) as site:
        steps = make(site, StoredView.open(directory), order)
        try:
            outcome = advance(steps, None)
        finally:
            steps.close()  # where they wait for workers, they undo what they did
            site.remover.delete_removed()
    return outcome if isinstance(outcome, Rootfs) else None
