"""``imagestore containers``: the root file systems that were provisioned."""

from __future__ import annotations

import argparse
import time
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import print_formatted, print_json, print_lines, print_table
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.cli.times import format_age, format_time
from pykka_imagestore.core.container import ContainerInfo
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.containers import find_containers


def run(options: argparse.Namespace) -> None:
    """Print a table, or a list, of the containers of all processes, by id."""
    directory = store_directory(options.store)
    require_store(directory)
    containers = find_containers(StorePaths(directory))
    if options.json:
        print_json(list(map(_document, containers)))
    elif options.format is not None:
        print_formatted(options.format, map(_document, containers))
    elif options.quiet:
        print_lines(container.container_id for container in containers)
    else:
        print_table([("ID", "IMAGE", "BACKEND", "OWNER", "MADE", "PATH"), *map(_row, containers)])


def _row(container: ContainerInfo) -> tuple[str, ...]:
    owner = container.owner if container.is_held else f"{container.owner} (ended)"
    made = f"{format_age(time.time() - container.created)} ago"
    return container.container_id, container.image, container.backend, owner, made, container.path or "-"


def _document(container: ContainerInfo) -> dict[str, Any]:
    return {
        "id": container.container_id,
        "image": container.image,
        "backend": container.backend,
        "path": container.path,
        "read_only": container.read_only,
        "owner": container.owner,
        "created": format_time(container.created),
        "is_held": container.is_held,
    }
