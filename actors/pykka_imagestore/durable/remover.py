"""Removes from a store what nobody needs: names by a commit, layers and configs by a rename into gc/.

From reading what is needed until the last rename no lease can be taken; see ``durable/leases.py``.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pykka_imagestore.core.check_report import Evicted
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.inventory import find_unneeded
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.paths import REMOVED_STACK, StorePaths
from pykka_imagestore.core.plan_prune import Pruned, PruneOptions, plan_prune
from pykka_imagestore.durable.containers import ContainerTable
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.identity import Identity, identify
from pykka_imagestore.durable.leases import find_needs
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.references import References, Remove
from pykka_imagestore.durable.reserve import in_reserve
from pykka_imagestore.durable.stacks import StackTable
from pykka_imagestore.durable.stored_view import StoredView
from pykka_imagestore.errors import NotFoundError, StateError

logger = logger_of(__name__)

D = TypeVar("D", bound=str)

# Of an immutable directory, one of another user, a mount point.
_IMMOVABLE = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY})


class Remover:
    """Removes, for one thread. What it removes waits in directories below gc/, which the caller deletes and releases.

    Attributes:
        view: What the store holds, for the same thread.
    """

    def __init__(self, paths: StorePaths, on: Disk) -> None:
        self._paths = paths
        self._disk = on
        self._references = References(paths, on)
        self._containers = ContainerTable(paths)
        self._stacks = StackTable(paths)
        self.view = StoredView(paths, self._references)

    def remove(self, name: ImageName) -> tuple[DockerImage, LockedDirectory | None]:
        """Forget an image, durably; move what only it needed to gc/.

        Raises:
            NotFoundError: It is not there.
        """
        (image,) = self._references.commit([Remove(name)])  # commit point: the image is gone
        if image is None:
            raise NotFoundError(name.stored)
        configs = [] if image.config_digest is None else [image.config_digest]
        with locked(self._paths.leases_lock):
            # Leases before images: a put that releases its lease in between has stored its image by then.
            needs = self._find_needs()
            # Synced: a power cut could otherwise bring back an image that another process replaced, but not its layers.
            images = self._references.settle()
            layers, unneeded = find_unneeded(images, needs, dict.fromkeys(image.layer_ids), configs)
            waiting, _ = self._move_to_gc(layers, unneeded)
            return image, waiting

    def prune(self, options: PruneOptions) -> tuple[Pruned, LockedDirectory | None]:
        """Forget the images that ``options`` select, durably; move all that nobody needs to gc/. Or only plan it."""
        # Layers are measured once, and those that are new before others must wait for the lock.
        self.view.inventory(self._references.settle())
        with locked(self._paths.leases_lock):
            # A put under way has taken its lease by now, so what it puts is seen to be needed.
            needs = self._find_needs()
            inventory = self.view.inventory(self._references.settle())
            pruned = plan_prune(inventory, needs, options, time.time())
            if options.dry_run:
                return pruned, None
            names = [Remove(ImageName.parse_stored(image.name), replace(image, missing=())) for image in pruned.images]
            if names:
                self._references.commit(names)  # commit point: the images are gone
            waiting, stayed = self._move_to_gc(pruned.layers, pruned.configs)
            return (pruned.without(stayed, inventory) if stayed else pruned), waiting

    def evict(
        self, layers: Mapping[DiffID, Identity], configs: Iterable[Digest]
    ) -> tuple[Evicted, LockedDirectory | None]:
        """Move damaged layers and configs to gc/, even if images have them, but none that is leased or was put anew.

        Args:
            layers: Which directories they were when the check looked at them.
            configs: They are read again.
        """
        with locked(self._paths.leases_lock):
            now = {layer: identify(self._paths.layer(layer)) for layer in layers}
            same = [layer for layer in layers if now[layer] == layers[layer]]
            judged = {config: self._is_damaged(config) for config in configs}
            damaged = [config for config, is_damaged in judged.items() if is_damaged]
            unneeded = find_unneeded((), self._find_needs(), same, damaged)
            waiting, stayed = self._move_to_gc(*unneeded)
            evicted = (*_without(unneeded[0], stayed), *_without(unneeded[1], stayed))
            put_anew = (
                *(layer for layer in layers if now[layer] not in (None, layers[layer])),
                *(config for config, is_damaged in judged.items() if is_damaged is False),
            )
            return Evicted(evicted, put_anew), waiting

    def close(self) -> None:
        """Close the files."""
        self._references.close()

    def _find_needs(self) -> Needs:
        """Return what leases and containers need. The exclusive lock is held."""
        return find_needs(self._paths) | self._containers.needs()

    def _is_damaged(self, config: Digest) -> bool | None:
        """Return whether a config does not have its digest; None if it is not there, or may not be read."""
        try:
            return sha256(read_file(self._paths.config(config))) != config
        except (FileNotFoundError, PermissionError):
            return None
        except (OSError, StateError):
            return True

    def _move_to_gc(
        self, layers: Iterable[DiffID], configs: Iterable[Digest]
    ) -> tuple[LockedDirectory | None, frozenset[str]]:
        """Rename layers and configs into a new directory below gc/, what stacks with these layers need on top first.

        That was made for the form in which a layer keeps deletions: one that is put anew may have another. What is not
        there, or is no digest, is skipped.

        Returns:
            The directory, and the digests of what stayed because the kernel refused to move it.

        Raises:
            OSError: The disk failed. The next sweep deletes what was moved by then.
        """
        sources: list[tuple[str, Path]] = [
            *((layer, self._paths.layer(layer)) for layer in layers if is_sha256(layer)),
            *((config, self._paths.config(config)) for config in configs if is_sha256(config)),
        ]
        there = [(digest, source) for digest, source in sources if os.path.lexists(source)]
        if not there:
            return None, frozenset()
        waiting = LockedDirectory.below(self._paths.gc, self._paths.guard(self._paths.gc))
        try:
            in_reserve(self._paths, waiting.make)
            for stack in self._stacks.without_layers(frozenset(digest for digest, _ in there)):
                self._move_out(stack.path, waiting.path / f"{REMOVED_STACK}{stack.path.name}")
            stayed = [digest for digest, source in there if not self._move_out(source, waiting.path / source.name)]
        except OSError:
            waiting.release()
            raise
        return waiting, frozenset(stayed)

    def _move_out(self, source: Path, target: Path) -> bool:
        try:
            with suppress(FileNotFoundError):
                # commit point: the layer or config is gone
                in_reserve(self._paths, partial(self._disk.rename, source, target))
        except OSError as error:
            if error.errno not in _IMMOVABLE:
                raise
            logger.warning("%s could not be removed, and stays: %s", source, error.strerror)
            return False
        return True


def _without(digests: tuple[D, ...], stayed: AbstractSet[str]) -> tuple[D, ...]:
    return tuple(digest for digest in digests if digest not in stayed)
