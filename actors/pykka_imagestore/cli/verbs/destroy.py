"""``imagestore destroy ID...``: removes containers, and what was written to them."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.containers import OWNER
from pykka_imagestore.cli.output import done_anyway, print_json, print_line
from pykka_imagestore.cli.several import SomeFailedError, do_each
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.provisioner import Provisioner


def run(options: argparse.Namespace) -> None:
    """Unmount the containers, remove them, wait until their files are deleted, and print their ids."""
    directory = store_directory(options.store)
    require_store(directory)
    destroyed: list[str] = []
    with StopSignals() as signals:
        with LocalStore.start(directory) as store:
            with Provisioner.start(store, owner=OWNER) as provisioner:

                def destroy(container_id: str) -> None:
                    signals.wait(provisioner.destroy(container_id))
                    destroyed.append(container_id)

                failed = do_each(options.ids, destroy)
            signals.wait_if_not_stopped(store.swept())
        with done_anyway():
            for container_id in destroyed:
                _print(options, container_id)
    if failed:
        raise SomeFailedError(failed, len(options.ids), "container", "destroyed")


def _print(options: argparse.Namespace, container_id: str) -> None:
    if options.json:
        print_json({"id": container_id})
    else:
        print_line(container_id if options.quiet else f"destroyed {container_id}")
