"""``imagestore get NAME``: where the layers of an image lie."""

from __future__ import annotations

import argparse

from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.cli.named import advised, find_names
from pykka_imagestore.cli.output import image_document, print_formatted, print_json, print_lines, print_table
from pykka_imagestore.cli.stored import view_store
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.layer_facts import LayerFacts


def run(options: argparse.Namespace) -> None:
    """Print the image's config digest and the path of each layer, root layer first."""
    paths = StorePaths(store_directory(options.store))
    view = view_store(paths.root)
    with advised(paths.root, options.name):
        name = find_names(paths.root, options.name)[0]
        image = LayerFacts(paths).locate(view.get(ImageName.parse_stored(name)))
    if options.json:
        print_json(image_document(image))
        return
    if options.format is not None:
        print_formatted(options.format, [image_document(image)])
        return
    if options.quiet:
        print_lines(str(layer.path) for layer in image.layers)
        return
    rows = [("name", image.name, ""), ("config", image.config_digest or "-", "")]
    rows += [("layer", layer.diff_id, str(layer.path)) for layer in image.layers]
    print_table(rows)
