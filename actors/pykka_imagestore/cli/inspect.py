"""``imagestore inspect NAME``: an image's config."""

from __future__ import annotations

import argparse
import json

from pykka_imagestore.cli.arguments import store_folder
from pykka_imagestore.cli.output import print_json, print_text
from pykka_imagestore.cli.stored import read_config, read_image
from pykka_imagestore.errors import StoreError


def run(options: argparse.Namespace) -> None:
    """Print the config: indented, or as one compact document."""
    store = store_folder(options.store)
    image = read_image(store, options.name)
    config = _parse(image.name, read_config(store, image))
    if options.json:
        print_json(config)
    else:
        print_text(_pretty(config))


def _parse(name: str, unsafe_config: bytes) -> object:
    try:
        return json.loads(unsafe_config, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"the config of {name} is no JSON: {error}") from error


def _refuse_constant(constant: str) -> object:
    msg = f"{constant} is no JSON value"
    raise ValueError(msg)


def _pretty(config: object) -> str:
    """Return indented JSON whose strings show all letters, and escape what a terminal would act upon."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1] for character in text
    )
