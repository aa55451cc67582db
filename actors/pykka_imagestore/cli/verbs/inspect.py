"""``imagestore inspect NAME``: an image's config."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.json_text import parse_json
from pykka_imagestore.cli.output import print_json, print_pretty
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import StoreError


def run(options: argparse.Namespace) -> None:
    """Print the config: indented, or as one compact document."""
    store, name = store_directory(options.store), ImageName.parse_stored(options.name)
    view = view_store(store)
    image = view.get(name)
    try:
        config = parse_json(view.config(image))
    except ValueError as error:
        raise StoreError(f"the config of {image.name} is no JSON: {error}") from error
    if options.json:
        print_json(config)
    else:
        print_pretty(config)
