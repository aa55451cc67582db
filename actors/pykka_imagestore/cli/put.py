"""``imagestore put ARCHIVE``: the images of an archive, into the store."""

from __future__ import annotations

import argparse
import sys

from pykka_imagestore.cli.arguments import store_folder
from pykka_imagestore.cli.descriptors import own_descriptor
from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import image_document, print_images, print_json
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.errors import InvalidInputError
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.progress_feed import Listener
from pykka_imagestore.runtime import Future


def run(options: argparse.Namespace) -> None:
    """Put one image under ``--name``, or all under their own names; print them."""
    show_warnings()
    if options.archive == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise InvalidInputError("standard input is a terminal; an archive should come through it")
    with StopSignals() as signals, _start(options) as store:
        with progress_bar() as listener:
            images = signals.wait(_put(store, options, listener))
        signals.wait(store.swept())  # what dead processes left, if any
    if options.json:
        print_json([image_document(image) for image in images])
    else:
        print_images(images)


def _start(options: argparse.Namespace) -> LocalStore:
    return LocalStore.start(store_folder(options.store), workers=options.workers, durable=not options.not_durable)


def _put(store: LocalStore, options: argparse.Namespace, listener: Listener | None) -> Future[tuple[ImageInfo, ...]]:
    archive, sandbox = own_descriptor(options.archive), options.sandbox
    choice = {"select": options.select, "platform": options.platform}
    if options.name is None:
        return store.load(archive, sandbox, **choice, progress=listener)
    put = store.put(options.name, archive, sandbox, **choice, progress=listener)
    return put.then(lambda image: (image,))
