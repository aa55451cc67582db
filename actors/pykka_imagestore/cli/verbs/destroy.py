"""``imagestore destroy ID...``: removes containers, and what was written to them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.containers import OWNER
from pykka_imagestore.cli.output import done_anyway, print_json, print_line
from pykka_imagestore.cli.several import SomeFailedError, do_each
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.provision.removing import ContainerRemover
from pykka_imagestore.rootfs.mounts import may_mount


def run(options: argparse.Namespace) -> None:
    """Unmount the containers, remove them, wait until their files are deleted, and print their ids."""
    directory = store_directory(options.store)
    require_store(directory)
    destroyed: list[str] = []
    with StopSignals() as signals:
        destroy_each = _destroy_directly if may_mount() else _destroy_with_workers
        failed = destroy_each(directory, options.ids, signals, destroyed)
        with done_anyway():
            for container_id in destroyed:
                _print(options, container_id)
    if failed:
        raise SomeFailedError(failed, len(options.ids), "container", "destroyed")


def _destroy_directly(directory: Path, ids: Sequence[str], signals: StopSignals, destroyed: list[str]) -> int:
    with ContainerRemover.on(directory) as remover:

        def destroy(container_id: str) -> None:
            signals.raise_if_stopped()
            remover.remove(container_id)
            destroyed.append(container_id)

        try:
            return do_each(ids, destroy)
        finally:
            signals.do_if_not_stopped(remover.delete_removed)


def _destroy_with_workers(directory: Path, ids: Sequence[str], signals: StopSignals, destroyed: list[str]) -> int:
    """Destroy what an ordinary user's namespaces may hold, and what belongs to users that exist in there only."""
    # Imported here: to start them takes longer than to unmount and to remove.
    from pykka_imagestore.local_store import LocalStore  # noqa: PLC0415
    from pykka_imagestore.provisioner import Provisioner  # noqa: PLC0415

    with LocalStore.start(directory) as store:
        with Provisioner.start(store, owner=OWNER) as provisioner:

            def destroy(container_id: str) -> None:
                signals.wait(provisioner.destroy(container_id))
                destroyed.append(container_id)

            failed = do_each(ids, destroy)
        signals.wait_if_not_stopped(store.swept())
        return failed


def _print(options: argparse.Namespace, container_id: str) -> None:
    if options.json:
        print_json({"id": container_id})
    else:
        print_line(container_id if options.quiet else f"destroyed {container_id}")
