"""``imagestore remove NAME...``: removes images, and the layers that no other image has."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.named import advised, find_only_name
from pykka_imagestore.cli.output import done_anyway, image_document, print_json, print_line
from pykka_imagestore.cli.progress_bar import removal_bar
from pykka_imagestore.cli.several import SomeFailedError, do_each
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.local_store import LocalStore


def run(options: argparse.Namespace) -> None:
    """Remove the images, wait until their layers are deleted, and print what was removed."""
    directory = store_directory(options.store)
    require_store(directory)
    removed: list[ImageInfo] = []
    with StopSignals() as signals:
        with LocalStore.start(directory) as store, removal_bar(StorePaths(directory), quiet=options.quiet):

            def remove(text: str) -> None:
                with advised(directory, text):
                    removed.append(signals.wait(store.remove(find_only_name(directory, text))))

            failed = do_each(options.names, remove)
            signals.wait_if_not_stopped(store.swept())
        with done_anyway():
            for image in removed:
                _print(options, image)
    if failed:
        raise SomeFailedError(failed, len(options.names), "image", "removed")


def _print(options: argparse.Namespace, image: ImageInfo) -> None:
    if options.json:
        print_json(image_document(image))
    else:
        print_line(image.name if options.quiet else f"removed {image.name}")
