"""``imagestore get NAME``: where the layers of an image lie."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.output import image_document, print_json, print_table
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths


def run(options: argparse.Namespace) -> None:
    """Print the image's config digest and the path of each layer, root layer first."""
    store, name = store_directory(options.store), ImageName.parse_stored(options.name)
    image = StorePaths(store).locate(view_store(store).get(name))
    if options.json:
        print_json(image_document(image))
        return
    rows = [("name", image.name, ""), ("config", image.config_digest or "-", "")]
    rows += [("layer", layer.diff_id, str(layer.path)) for layer in image.layers]
    print_table(rows)
