"""Image archives made by hand, as ``docker save`` writes them; and what to do to a store's workers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support import tars
from support.tars import END, file

from pykka_imagestore.core.digest import DiffID


def layer(files: Mapping[str, bytes]) -> bytes:
    """Return a layer of some files."""
    return b"".join(file(name.encode(), body) for name, body in files.items()) + END


def long_layer(entries: int = 40_000, seed: str = "f") -> bytes:
    """Return a layer that takes a worker a second or more."""
    return b"".join(tars.files((f"{seed}/{n // 500}/{n}".encode() for n in range(entries)), b"x" * 100)) + END


def diff_id(data: bytes) -> DiffID:
    return DiffID(f"sha256:{hashlib.sha256(data).hexdigest()}")


def docker_save(path: Path, images: Mapping[str, Sequence[bytes]], **config: object) -> Path:
    """Write an archive of images, each under its names, separated by commas, or none."""
    members: dict[str, bytes] = {}
    manifest = []
    for number, (names, layers) in enumerate(images.items()):
        body = {"os": "linux", "number": number, **config}
        body["rootfs"] = {"type": "layers", "diff_ids": [diff_id(data) for data in layers]}
        encoded = json.dumps(body).encode()
        config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
        members[config_name] = encoded
        paths = [f"{diff_id(data)[7:]}/layer.tar" for data in layers]
        members.update(zip(paths, layers, strict=True))
        manifest.append({"Config": config_name, "RepoTags": names.split(",") if names else None, "Layers": paths})
    members["manifest.json"] = json.dumps(manifest).encode()
    return write_members(path, members)


def write_members(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def worker_pids(name: str = "imagestore") -> set[int]:
    """Return this process' worker processes."""
    return {pid for pid, parent, comm in _processes() if comm == name and parent == os.getpid()}


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_text()
            except OSError:
                continue
            comm, _, rest = stat.partition("(")[2].rpartition(")")
            found.append((int(directory.name), int(rest.split()[1]), comm))
    return found
