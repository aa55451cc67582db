"""``imagestore list``: all images."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import (
    image_document,
    print_formatted,
    print_json,
    print_lines,
    print_table,
    shortened,
    state_of,
)
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.cli.times import format_age, format_time
from pykka_imagestore.core.digest import directory_name
from pykka_imagestore.core.image import DockerImage, ImageInfo
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.durable.stored_view import StoredView


def run(options: argparse.Namespace) -> None:
    """Print a table, or a list, of the images by name."""
    paths = StorePaths(store_directory(options.store))
    view = view_store(paths.root)
    images = view.list()
    if options.quiet and not options.json and options.format is None:
        print_lines(image.name for image in images)
        return
    last_used = _find_last_uses(paths, images)
    # What a layer takes is in its record: to read these takes several times as long as all the rest.
    is_long = options.long or (options.format is not None and options.format.names("bytes"))
    sizes = _find_sizes(view, images) if is_long else {}
    if options.json or options.format is not None:
        documents = [_document(image, last_used, sizes) for image in paths.locate_all(images)]
        if options.json:
            print_json(documents)
        else:
            print_formatted(options.format, documents)
        return
    now = time.time()
    _print_table(images, {name: format_age(now - used) for name, used in last_used.items()}, sizes, is_long=is_long)


def _find_last_uses(paths: StorePaths, images: Sequence[DockerImage]) -> dict[str, float]:
    """Return when images were last used, by their names; without those of which nothing tells."""
    found: dict[str, float] = {}
    directory = os.fspath(paths.configs)
    for image in images:
        if image.config_digest is not None:
            with suppress(OSError):
                found[image.name] = os.lstat(f"{directory}/{directory_name(image.config_digest)}").st_mtime
    return found


def _find_sizes(view: StoredView, images: Sequence[DockerImage]) -> dict[str, int]:
    """Return what each image takes on disk, by name, as ``du`` does."""
    inventory = view.inventory(images)
    return {
        image.name: inventory.size_of(
            (image,), set(image.layer_ids), () if image.config_digest is None else (image.config_digest,)
        ).bytes
        for image in images
    }


def _document(image: ImageInfo, last_used: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, Any]:
    document = image_document(image) | {"last_used": format_time(last_used.get(image.name, 0.0))}
    return document | ({"bytes": sizes[image.name]} if sizes else {})


def _print_table(
    images: Sequence[DockerImage], ages: Mapping[str, str], sizes: Mapping[str, int], *, is_long: bool
) -> None:
    if is_long:
        header: tuple[str, ...] = ("NAME", "CONFIG", "LAYERS", "SIZE", "USED", "STATE")
    else:
        header = ("NAME", "CONFIG", "LAYERS", "USED", "STATE")
    rows = [header]
    for image in images:
        size = (format_size(sizes[image.name]),) if is_long else ()
        age = f"{ages[image.name]} ago" if image.name in ages else "-"
        config = shortened(image.config_digest)
        rows.append((image.name, config, str(len(image.layer_ids)), *size, age, state_of(image)))
    print_table(rows)
