"""A few images with layers in common, and what each layer looks like when it is unpacked alone."""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass, replace
from pathlib import Path

from support.images import diff_id, docker_save
from support.layers import unpack_layer
from support.tars import directory, file, hard_link, symlink, tar, whiteout
from support.trees import Node, describe

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.image import DockerImage, ImageInfo

Tree = dict[bytes, Node]
OF_THE_MOMENT = {b"layer.pb"}  # its bytes tell what the layer takes on this file system; that it is there counts

IMAGES = {  # name of an archive: its layers
    "alpha": ("base", "libraries", "alpha"),
    "beta": ("base", "libraries", "beta"),
    "gamma": ("base", "gamma"),
    "delta": ("delta",),
}


@dataclass(frozen=True)
class Gallery:
    """Archives that can be put, and what must be in a store then.

    Attributes:
        archives: By the name of the image.
        layers: DiffIDs of each image, root layer first.
        trees: What is in each layer's directory.
    """

    archives: dict[str, Path]
    layers: dict[str, tuple[DiffID, ...]]
    trees: dict[DiffID, Tree]

    def name_of(self, image: DockerImage | ImageInfo) -> str | None:
        """Return which image of the gallery this is; None if it is none of them."""
        layers = image.layer_ids if isinstance(image, DockerImage) else tuple(layer.diff_id for layer in image.layers)
        return next((name for name, wanted in self.layers.items() if wanted == layers), None)

    def save(self, path: Path) -> Path:
        path.write_bytes(pickle.dumps(self))
        return path

    @classmethod
    def load(cls, path: Path) -> Gallery:
        found = pickle.loads(path.read_bytes())
        assert isinstance(found, cls)
        return found


def make_gallery(directory: Path) -> Gallery:
    """Write the archives, and unpack each layer alone."""
    data = {
        "base": _layer("base", 12, whiteout(b"base/gone"), symlink(b"sh", b"base/0"), hard_link(b"again", b"base/1")),
        "libraries": _layer("libraries", 30, large=300_000),
        "alpha": _layer("alpha", 5, large=70_000),
        "beta": _layer("beta", 5),
        "gamma": _layer("gamma", 20, large=150_000),
        "delta": _layer("delta", 1),
    }
    trees = {}
    for name, layer in data.items():
        (directory / name).mkdir(parents=True)
        unpacked = unpack_layer(layer, directory / name)
        trees[DiffID(diff_id(layer))] = look(unpacked.target)
    archives = {
        image: docker_save(directory / f"{image}.tar", {image: [data[layer] for layer in layers]}, image=image)
        for image, layers in IMAGES.items()
    }
    ids = {image: tuple(DiffID(diff_id(data[layer])) for layer in layers) for image, layers in IMAGES.items()}
    return Gallery(archives, ids, trees)


def look(layer: Path) -> Tree:
    """Return what a layer's directory holds, without the times of what is made now: whiteouts, and what is around."""
    return {path: _timeless(path, node) for path, node in describe(layer).items()}


def _timeless(path: bytes, node: Node) -> Node:
    if path.startswith(b"rootfs/") and node.kind != "c":
        return node
    return replace(node, mtime_ns=0, content=b"" if path in OF_THE_MOMENT else node.content)


def _layer(name: str, files: int, *more: bytes, large: int = 0) -> bytes:
    draw = random.Random(name)
    parts = [directory(name.encode(), mtime=1_000_000)]
    parts += [file(f"{name}/{n}".encode(), draw.randbytes(draw.randrange(1, 9000)), mtime=n) for n in range(files)]
    if large:
        parts.append(file(f"{name}/large".encode(), draw.randbytes(large), mtime=5))
    return tar(*parts, *more)
