"""What must hold of a store's directory, whatever happened to it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from gallery import Gallery, Tree, look
from history import History, Value
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore import ImageIncompleteError, ImageInfo, LocalStore, NotFoundError
from pykka_imagestore.core.digest import DiffID, directory_name, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.locks import _FLOCK, _OPEN

KNOWN_NAMES = {"imagestore", "storedImages", "storedImages.journal"} | {
    "layers",
    "configs",
    "staging",
    "gc",
    "leases",
    "locks",
    "reserve",
    "containers",
    "stacks",
}
PASSING_NAMES = {"imagestore.new", "storedImages.new", "storedImages.journal.new"}  # the next ones replace them


class Violation(AssertionError):  # noqa: N818 - a finding, not an error of the program
    """What must hold does not."""


def check_stopped(directory: Path, gallery: Gallery, history: History) -> dict[str, Value]:
    """Check a directory that no process uses: it opens, shows what it must, and what is left over goes.

    Changes it: it is recovered and pruned, and each image is put and removed.

    Returns:
        What each name shows.

    Raises:
        Violation: Something does not hold.
    """
    require_free_locks(directory)
    with opened(directory) as store:
        store.recover().get(timeout=TIMEOUT)
        shown = check_images(store, directory, gallery, history)
        check_layers(directory, gallery)
        store.swept().get(timeout=TIMEOUT)
        _require_empty(directory / "staging", directory / "gc")
        report = store.check(deep=True).get(timeout=TIMEOUT)
        unchecked = [finding for finding in report.unchecked if finding.kind != "journal"]  # what a crash cut off
        _require(not report.faults and not unchecked, f"a deep check finds {report}")
        before = store.list().get(timeout=TIMEOUT)
        store.prune().get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)
        _require_empty(directory / "staging", directory / "gc", directory / "leases")
        _require(store.list().get(timeout=TIMEOUT) == before, "a plain prune changed the images")
        needed = {directory_name(layer.diff_id) for image in before for layer in image.layers}
        _require(set(os.listdir(directory / "layers")) == needed, "after a prune there are other layers than needed")
        _put_one_more(store, gallery)
        unknown = set(os.listdir(directory)) - KNOWN_NAMES - PASSING_NAMES
        _require(not unknown, f"{unknown} lie in the store")
    return shown


def check_running(store: LocalStore, directory: Path, gallery: Gallery, history: History) -> dict[str, Value]:
    """Check a store that other processes have open, while they do nothing. Changes nothing.

    Returns:
        What each name shows.

    Raises:
        Violation: Something does not hold.
    """
    shown = check_images(store, directory, gallery, history)
    check_layers(directory, gallery)
    return shown


def check_images(store: LocalStore, directory: Path, gallery: Gallery, history: History) -> dict[str, Value]:
    """Check that each name shows what it may, with all its layers and its config; return what each shows."""
    all_shown: dict[str, Value] = {}
    images = {image.name: image for image in store.list().get(timeout=TIMEOUT)}
    for name in sorted(history.names | set(images)):
        may = history.may_show(name)
        image = images.get(name)
        shown = None if image is None else gallery.name_of(image)
        _require(image is None or shown is not None, f"{name} is an image that nobody put: {image}")
        _require(shown in may, f"{name} shows {shown}, and may show {sorted(map(str, may))} only")
        if image is None:
            with pytest.raises(NotFoundError):
                store.get(name).get(timeout=TIMEOUT)
        else:
            _check_served(store, image, directory)
        all_shown[name] = shown
    return all_shown


def check_layers(directory: Path, gallery: Gallery) -> None:
    """Check that each layer is whole: it holds what the layer holds that was unpacked alone."""
    wanted = {directory_name(diff_id): tree for diff_id, tree in gallery.trees.items()}
    for name in sorted(os.listdir(directory / "layers")):
        _require(name in wanted, f"layers/{name} is no layer that anybody put")
        require_whole(directory / "layers" / name, wanted[name])


def require_whole(layer: Path, wanted: Tree) -> None:
    """Check one layer's directory.

    Raises:
        Violation: It is not what it must be, or not there.
    """
    _require(layer.is_dir(), f"{layer} is not there")
    found = look(layer)
    if found != wanted:
        different = sorted(path for path in found.keys() | wanted if found.get(path) != wanted.get(path))
        first = different[0]
        raise Violation(
            f"{layer}: {len(different)} of {len(wanted)} paths are not as they were put, the first {first!r}: "
            f"{found.get(first)}, and not {wanted.get(first)}"
        )


def require_free_locks(directory: Path) -> None:
    """Check that no lock is held: the dead hold none.

    Raises:
        Violation: One is.
    """
    directories = [directory / "locks", directory / "leases"]
    owned = [path for name in ("staging", "gc") for path in _entries(directory / name)]
    for path in [
        *(path for directory in directories for path in _entries(directory)),
        *(path / "lock" for path in owned),
    ]:
        if path.is_file():
            descriptor = os.open(path, _OPEN)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            except OSError as error:
                raise Violation(f"{path} is locked, though no process lives that could hold it") from error
            finally:
                os.close(descriptor)


def image_layers(directory: Path, image: ImageInfo) -> list[tuple[DiffID, Path]]:
    """Return the layers of an image, and where they must be."""
    paths = StorePaths(directory)
    return [(layer.diff_id, paths.layer(layer.diff_id)) for layer in image.layers]


def _check_served(store: LocalStore, image: ImageInfo, directory: Path) -> None:
    lost = [layer for layer, path in image_layers(directory, image) if not path.exists()]
    _require(not lost and not image.missing, f"{image.name} lost {lost or image.missing}")
    try:
        _require(store.get(image.name).get(timeout=TIMEOUT) == image, f"{image.name} is listed and got as two images")
        config = store.config(image.name).get(timeout=TIMEOUT)
    except ImageIncompleteError as error:
        raise Violation(str(error)) from error
    _require(sha256(config) == image.config_digest, f"the config of {image.name} has other bytes: {config[:40]!r}")


def _put_one_more(store: LocalStore, gallery: Gallery) -> None:
    name = "one-more"
    for image in sorted(gallery.archives):
        put = store.put(name, gallery.archives[image]).get(timeout=TIMEOUT)
        _require(gallery.name_of(put) == image, f"{image} was put and is {put}")
    store.remove(name).get(timeout=TIMEOUT)


def _require_empty(*directories: Path) -> None:
    for directory in directories:
        _require(not _entries(directory), f"{directory} still holds {[path.name for path in _entries(directory)]}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
