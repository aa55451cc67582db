"""``imagestore put ARCHIVE``: puts the images of an archive into the store."""

from __future__ import annotations

import argparse
from typing import Any

from pykka_imagestore.cli.arguments import absolute, store_directory
from pykka_imagestore.cli.descriptors import readable_path
from pykka_imagestore.cli.output import done_anyway, image_document, print_images, print_json
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.progress import Listener
from pykka_imagestore.runtime import Future


def run(options: argparse.Namespace) -> None:
    """Put one image under ``--name``, or all images under their own names; print them."""
    with StopSignals() as signals:
        with readable_path(options.archive) as archive:
            images = _put(options, archive, signals)
        with done_anyway():
            if options.json:
                print_json([image_document(image) for image in images])
            else:
                print_images(images)


def _put(options: argparse.Namespace, archive: str, signals: StopSignals) -> tuple[ImageInfo, ...]:
    directory = store_directory(options.store)
    with LocalStore.start(
        directory, workers=options.workers, durable=not options.not_durable, follow_links=options.follow_links
    ) as store:
        with progress_bar() as listener:
            put = _start(store, options, archive, listener)
            images = signals.wait(put) if options.name is None else (signals.wait(put),)
        signals.wait_if_not_stopped(store.swept())  # leftovers of dead processes
        return images


def _start(store: LocalStore, options: argparse.Namespace, archive: str, listener: Listener | None) -> Future[Any]:
    sandbox = None if options.sandbox is None else absolute(options.sandbox)
    choice = {"select": options.select, "platform": options.platform}
    if options.name is None:
        return store.load(archive, sandbox, **choice, progress=listener)
    return store.put(options.name, archive, sandbox, **choice, progress=listener)
