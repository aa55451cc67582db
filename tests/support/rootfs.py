"""Layers to make root file systems of, and what of these is left on the machine."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pykka_imagestore
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import RootfsRequest, StackLayer
from pykka_imagestore.fs.whiteout_format import WHITEOUT_DEVICE
from pykka_imagestore.provision.backends import new_namespace
from pykka_imagestore.rootfs.mounts import FileSystemContext, unmount
from pykka_imagestore.rootfs.namespace import Namespace
from pykka_imagestore.rootfs.place import mount_entries

GONE = object()


def layer(path: Path, files: dict[str, object], whiteouts: WhiteoutFormat = WhiteoutFormat.NONE) -> StackLayer:
    """Make a layer of the content of its files; ``GONE`` is a whiteout, and what ends in ``/`` a directory."""
    path.mkdir(parents=True)
    for name, content in files.items():
        place = path / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if content is GONE:
            os.mknod(place, stat.S_IFCHR, WHITEOUT_DEVICE)
        elif isinstance(content, str):
            place.write_text(content)
    return StackLayer(str(path), whiteouts)


def request(directory: Path, *layers: StackLayer, **fields: object) -> RootfsRequest:
    """Return a request in a container's directory, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    return RootfsRequest(layers, str(directory), **fields)  # type: ignore[arg-type]


def require_mounts() -> None:
    """Skip the test if this process may not mount an overlay."""
    try:
        FileSystemContext("overlay").close()
    except OSError as error:
        pytest.skip(f"this machine lets us mount no overlay: {error.strerror}")


def points_below(directory: Path) -> list[str]:
    """Return where something is mounted below a directory; a place with two mounts comes twice."""
    return [entry.point for entry in mount_entries().values() if entry.point.startswith(f"{directory}/")]


@contextmanager
def no_mounts_left(directory: Path) -> Iterator[None]:
    """Require that nothing is mounted below a directory in the end; whatever is comes off."""
    try:
        yield
    finally:
        left = points_below(directory)
        for point in left:
            unmount(point)
    assert left == []


def names_in(descriptor: int, path: str = ".") -> list[str]:
    """Return what is in a directory below an open or pinned one."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
    try:
        return sorted(os.listdir(directory))
    finally:
        os.close(directory)


def read(descriptor: int, path: str) -> str:
    """Return the content of a file below an open or pinned directory."""
    with open(path, opener=lambda name, flags: os.open(name, flags, dir_fd=descriptor)) as file:
        return file.read()


def write(descriptor: int, path: str, text: str) -> None:
    """Write a file below an open or pinned directory."""
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=descriptor)) as file:
        file.write(text)


def descriptors_after(rounds: int, function: Callable[[], object]) -> tuple[int, int]:
    """Return how many descriptors are open after one call of a function, and after many."""
    function()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(rounds):
        function()
    return before, len(os.listdir("/proc/self/fd"))


def namespace_of(python: list[str] | None) -> Namespace:
    """Return what mounts for an ordinary user, by a process of some Python, or of the one in use."""
    return new_namespace() if python is None else Namespace(lambda: python)


def python_for_all(package: Path) -> list[str]:
    """Return a Python that any user may start; those that this process starts import a copy of the package.

    The Python and the package in use may be in a directory that only root may enter.
    """
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(candidate, os.X_OK):
            told = subprocess.run([candidate, "-c", _TELL_PATH], capture_output=True, text=True, check=False)
            if told.returncode == 0:
                sys.path[:] = [str(package), *json.loads(told.stdout)]
                return [candidate, "-P"]
    pytest.skip("an ordinary user may start no Python from 3.11 on")


def copy_package(target: Path) -> None:
    """Copy the package to where any user may import it."""
    source = Path(pykka_imagestore.__file__).parent
    shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))


_TELL_PATH = "import json, sys; print(json.dumps(sys.path[1:])); sys.exit(sys.version_info < (3, 11))"
