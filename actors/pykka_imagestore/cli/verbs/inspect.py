"""``imagestore inspect NAME...``: the configs of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.json_text import parse_json
from pykka_imagestore.cli.named import advised, find_names
from pykka_imagestore.cli.output import print_formatted, print_json, print_pretty
from pykka_imagestore.cli.several import SomeFailedError, do_each
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import StoreError


def run(options: argparse.Namespace) -> None:
    """Print each config: indented, or as one compact document."""
    store = store_directory(options.store)
    view = view_store(store)
    failed = do_each(options.names, lambda name: _show(options, _find_config(view, store, name)))
    if failed:
        raise SomeFailedError(failed, len(options.names), "image", "shown")


def _show(options: argparse.Namespace, config: object) -> None:
    if options.json:
        print_json(config)
    elif options.format is not None:
        print_formatted(options.format, [config])
    else:
        print_pretty(config)


def _find_config(view: StoredView, store: Path, text: str) -> object:
    with advised(store, text):
        return _read_config(view, find_names(store, text)[0])


def _read_config(view: StoredView, name: str) -> object:
    image = view.get(ImageName.parse_stored(name))
    try:
        return parse_json(view.config(image))
    except ValueError as error:
        raise StoreError(f"the config of {image.name} is no JSON: {error}") from error
