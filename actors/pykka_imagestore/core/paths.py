"""Where everything lies in a store's directory.

<store>/
    storedImages            which layers make which image: see durable/checkpoint.py
    layers/sha256-<hex>/    a layer, there entirely or not at all
        rootfs/             its unpacked files
        layer.pb            its record, a LayerRecord
        tar-split.zst       what of its tar is no file's body, compressed
        replaced/           files that later entries replaced, if there are any, and a list of their paths
    configs/sha256-<hex>    image configs, byte for byte
    staging/<random>/       work in progress
        lock                held by the process whose work it is
    gc/<random>/            what was removed, waiting to be deleted
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, directory_name

ROOTFS = "rootfs"
RECORD = "layer.pb"
TAR_SPLIT = "tar-split.zst"
REPLACED = "replaced"
REPLACED_PATHS = "paths"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class StorePaths:
    """The paths in one store; ``root`` is absolute."""

    root: Path

    @property
    def stored_images(self) -> Path:
        """The reference store's checkpoint."""
        return self.root / "storedImages"

    @property
    def layers(self) -> Path:
        """The folder of published layers."""
        return self.root / "layers"

    @property
    def configs(self) -> Path:
        """The folder of image configs."""
        return self.root / "configs"

    @property
    def staging(self) -> Path:
        """The folder of work in progress."""
        return self.root / "staging"

    @property
    def gc(self) -> Path:
        """The folder of what is being deleted."""
        return self.root / "gc"

    def layer(self, diff_id: DiffID) -> Path:
        """Return the directory of a layer."""
        return self.layers / directory_name(diff_id)

    def rootfs(self, diff_id: DiffID) -> Path:
        """Return the directory of a layer's unpacked files."""
        return self.layer(diff_id) / ROOTFS

    def config(self, config_digest: str) -> Path:
        """Return the file of an image config."""
        return self.configs / directory_name(config_digest)
