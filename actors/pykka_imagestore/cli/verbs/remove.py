"""``imagestore remove NAME``: removes an image, and the layers that no other image has."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import done_anyway, image_document, print_json, print_line
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.cli.stored import require_store
from pykka_imagestore.local_store import LocalStore


def run(options: argparse.Namespace) -> None:
    """Remove the image, wait until its layers are deleted, and print what was removed."""
    directory = store_directory(options.store)
    require_store(directory)
    with StopSignals() as signals:
        with LocalStore.start(directory) as store:
            image = signals.wait(store.remove(options.name))
            signals.wait_if_not_stopped(store.swept())
        with done_anyway():
            if options.json:
                print_json(image_document(image))
            else:
                print_line(f"removed {image.name}")
