"""``imagestore du``: what images take on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pykka_imagestore import tasks
from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import print_json, print_table
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.cli.times import format_time
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.core.usage import ContainerUsage, ImageUsage, LayerUsage, LeaseUsage


def run(options: argparse.Namespace) -> None:
    """Print tables, or an object, of the disk usage of images, layers and containers, and of leases."""
    view = view_store(store_directory(options.store))
    trees = view.containers.find_unmeasured(0)
    if trees:
        request = tasks.MeasureContainers(tuple((tree.directory, tree.without) for tree in trees))
        view.containers.note(trees, tasks.measure_containers(request))
    usage = view.usage()
    if options.json:
        print_json(
            {
                "bytes": usage.bytes,
                "unused_bytes": usage.unused_bytes,
                "inodes": usage.inodes,
                "images": list(map(_image_document, usage.images)),
                "layers": list(map(_layer_document, usage.layers)),
                "leases": list(map(_lease_document, usage.leases)),
                "containers": list(map(_container_document, usage.containers)),
            }
        )
        return
    total = ("all of the store", format_size(usage.bytes), "", str(usage.inodes), "")
    unused = ("what no image has", format_size(usage.unused_bytes), "", "", "")
    print_table([("IMAGE", "SIZE", "OWN", "INODES", "LAST USED"), *map(_image_row, usage.images), total, unused])
    if options.layers:
        print_table([("LAYER", "SIZE", "INODES", "IMAGES"), *map(_layer_row, usage.layers)])
    if usage.containers:
        print_table([("CONTAINER", "SIZE", "INODES", "BACKEND", "IMAGE"), *map(_container_row, usage.containers)])
    if usage.leases:
        print_table([("LEASE", "PROCESS", "LAYERS"), *map(_lease_row, usage.leases)])


def _image_row(image: ImageUsage) -> Sequence[str]:
    sizes = format_size(image.bytes), format_size(image.own_bytes), str(image.inodes)
    return image.name, *sizes, format_time(image.last_used) or "-"


def _layer_row(layer: LayerUsage) -> Sequence[str]:
    return layer.diff_id, format_size(layer.bytes), str(layer.inodes), ", ".join(layer.images) or "-"


def _container_row(container: ContainerUsage) -> Sequence[str]:
    sizes = format_size(container.bytes), str(container.inodes)
    return container.container_id, *sizes, container.backend, container.image


def _lease_row(lease: LeaseUsage) -> Sequence[str]:
    return lease.purpose, str(lease.process), str(len(lease.layers))


def _lease_document(lease: LeaseUsage) -> dict[str, object]:
    return {"purpose": lease.purpose, "process": lease.process, "layers": list(lease.layers)}


def _container_document(container: ContainerUsage) -> dict[str, object]:
    return {
        "id": container.container_id,
        "image": container.image,
        "backend": container.backend,
        "bytes": container.bytes,
        "inodes": container.inodes,
    }


def _image_document(image: ImageUsage) -> dict[str, object]:
    return {
        "name": image.name,
        "bytes": image.bytes,
        "own_bytes": image.own_bytes,
        "inodes": image.inodes,
        "last_used": format_time(image.last_used),
    }


def _layer_document(layer: LayerUsage) -> dict[str, object]:
    return {"diff_id": layer.diff_id, "bytes": layer.bytes, "inodes": layer.inodes, "images": list(layer.images)}
