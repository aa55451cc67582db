"""``imagestore provision ID NAME``: makes a root file system of an image, which stays until it is destroyed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pykka_imagestore.cli.arguments import absolute, store_directory
from pykka_imagestore.cli.containers import OWNER, run_config_document
from pykka_imagestore.cli.named import advised, find_names
from pykka_imagestore.cli.output import done_anyway, print_formatted, print_json, print_line, print_table
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.errors import RootfsError
from pykka_imagestore.provision.direct import provision_directly
from pykka_imagestore.provision.order import ProvisionOrder
from pykka_imagestore.provision.provisioned import Rootfs


def run(options: argparse.Namespace) -> None:
    """Make the root file system, and print where it is."""
    directory = store_directory(options.store)
    require_store(directory)
    with StopSignals() as signals:
        with advised(directory, options.name):
            name = find_names(directory, options.name)[0]
            durable = not options.not_durable
            order = ProvisionOrder.of(options.id, name, **_wanted(options))
            rootfs = provision_directly(directory, order, owner=OWNER, durable=durable)
            if rootfs is None:
                rootfs, reason = _provision_with_workers(options, directory, name, signals)
            else:
                reason = rootfs.reason
        with done_anyway():
            _print(options, rootfs, reason)


def _wanted(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "backend": options.backend,
        "read_only": options.read_only,
        "target": None if options.target is None else absolute(options.target),
        "upper_bytes": options.upper,
        "for_runtime": options.for_runtime,
    }


def _provision_with_workers(
    options: argparse.Namespace, directory: Path, name: str, signals: StopSignals
) -> tuple[Rootfs, str]:
    """Return the root file system, which outlives this program, and why it was made so."""
    # Imported here: most overlays need none of it.
    from pykka_imagestore.local_store import LocalStore  # noqa: PLC0415
    from pykka_imagestore.provisioner import Provisioner  # noqa: PLC0415

    with (
        LocalStore.start(directory) as store,
        Provisioner.start(store, owner=OWNER, durable=not options.not_durable) as provisioner,
    ):

        def provision(backend: str | None) -> Rootfs:
            wanted = {**_wanted(options), "backend": backend}
            return signals.wait(provisioner.provision(options.id, name, **wanted))

        rootfs = provision(options.backend)
        if rootfs.path is not None:
            return rootfs, rootfs.reason
        signals.wait(provisioner.destroy(options.id))
        missed = f"this user's {rootfs.backend} would be mounted in a namespace that ends with this command"
        asked = _needing_mounts(options)
        if asked:
            advice = f"; without {' and '.join(asked)} it is a copy, which stays"
            raise RootfsError(options.id, ((rootfs.backend, missed + advice),))
        try:
            return provision("copy"), missed
        except RootfsError as error:
            raise RootfsError(options.id, ((rootfs.backend, missed), *error.reasons)) from error


def _needing_mounts(options: argparse.Namespace) -> list[str]:
    """Return the options without which nothing has to be mounted: a copy that is read-only or attached is, too."""
    wanted = {"--backend": options.backend, "--read-only": options.read_only, "--target": options.target}
    return [option for option, value in wanted.items() if value]


def _print(options: argparse.Namespace, rootfs: Rootfs, reason: str) -> None:
    document = {
        "id": rootfs.container_id,
        "path": rootfs.path,
        "backend": rootfs.backend,
        "reason": reason,
        "config": run_config_document(rootfs.config),
    }
    if options.json:
        print_json(document)
    elif options.format is not None:
        print_formatted(options.format, [document])
    elif options.quiet:
        print_line(rootfs.path or "")
    else:
        print_table([("path", rootfs.path or "-"), ("backend", f"{rootfs.backend}: {reason}")])
