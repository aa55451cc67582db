"""``imagestore put ARCHIVE...``: puts the images of archives into the store."""

from __future__ import annotations

import argparse
from typing import Any

from pykka_imagestore.cli.arguments import absolute, store_directory
from pykka_imagestore.cli.descriptors import readable_path
from pykka_imagestore.cli.output import (
    done_anyway,
    image_document,
    print_formatted,
    print_images,
    print_json,
    print_lines,
)
from pykka_imagestore.cli.progress_bar import progress_bar
from pykka_imagestore.cli.several import SomeFailedError, do_each
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.local_store import LocalStore
from pykka_imagestore.progress import Listener
from pykka_imagestore.runtime import Future


def run(options: argparse.Namespace) -> None:
    """Put one image under ``--name``, or all images under their own names; print them."""
    images: list[ImageInfo] = []
    with StopSignals() as signals:
        directory = store_directory(options.store)
        durable, follow_links = not options.not_durable, options.follow_links
        with LocalStore.start(directory, workers=options.workers, durable=durable, follow_links=follow_links) as store:
            failed = do_each(options.archives, lambda archive: images.extend(_put(store, options, archive, signals)))
            signals.wait_if_not_stopped(store.swept())  # leftovers of dead processes
        with done_anyway():
            _print(options, images)
    if failed:
        raise SomeFailedError(failed, len(options.archives), "archive", "put")


def _put(store: LocalStore, options: argparse.Namespace, path: str, signals: StopSignals) -> tuple[ImageInfo, ...]:
    with readable_path(path) as archive, progress_bar(quiet=options.quiet) as listener:
        put = _start(store, options, archive, listener)
        return signals.wait(put) if options.name is None else (signals.wait(put),)


def _start(store: LocalStore, options: argparse.Namespace, archive: str, listener: Listener | None) -> Future[Any]:
    sandbox = None if options.sandbox is None else absolute(options.sandbox)
    choice = {"select": options.select, "platform": options.platform}
    if options.name is None:
        return store.load(archive, sandbox, **choice, progress=listener)
    return store.put(options.name, archive, sandbox, **choice, progress=listener)


def _print(options: argparse.Namespace, images: list[ImageInfo]) -> None:
    if options.json:
        print_json([image_document(image) for image in images])
    elif options.format is not None:
        print_formatted(options.format, map(image_document, images))
    elif options.quiet:
        print_lines(image.name for image in images)
    elif images:
        print_images(images)
