"""``imagestore list``: all images."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import image_document, print_images, print_json
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.core.paths import StorePaths


def run(options: argparse.Namespace) -> None:
    """Print a table, or a list, of the images by name."""
    store = store_directory(options.store)
    images = StorePaths(store).locate_all(view_store(store).list())
    if options.json:
        print_json([image_document(image) for image in images])
    else:
        print_images(images)
