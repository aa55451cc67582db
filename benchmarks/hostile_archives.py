"""Archives that repeat one thing very often: each asks for more time, memory or disk than its bytes are worth.

A row of ``ATTACKS`` is a name, a function that writes such an archive with ``n`` of the thing, and the least ``n`` that
is measured. An archive may also be refused: an early refusal is a good answer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile_totals import TOTALS

_Members = Iterator[tuple[dict[str, Any], bytes]]


@dataclass(frozen=True, slots=True)
class Attack:
    """What an archive repeats.

    Attributes:
        write: Writes an archive with a number of these things to a path.
        least: How many of them the smallest archive has; the others have two and four times as many.
        quick: The same for a smoke test; 0 for what is no part of one.
        loads: Whether every image is put, and not one under a name that the archive lacks.
    """

    write: Callable[[Path, int], None]
    least: int
    quick: int = 10
    loads: bool = True


def _write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def _config(layers: Sequence[bytes]) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}}).encode()


def _write_image(path: Path, layers: Sequence[bytes]) -> None:
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": paths}]
    members = {"c.json": _config(layers), "manifest.json": json.dumps(manifest).encode()}
    _write_archive(path, {**dict(zip(paths, layers, strict=True)), **members})


def _write_images(path: Path, names: Sequence[Sequence[str]]) -> None:
    """Write images without layers that share one config, each under several names."""
    manifest = [{"Config": "c.json", "RepoTags": list(some), "Layers": []} for some in names]
    encoded = json.dumps(manifest, separators=(",", ":")).encode()
    _write_archive(path, {"c.json": _config([]), "manifest.json": encoded})


def _images(path: Path, n: int) -> None:
    _write_images(path, [[f"a:{number}"] for number in range(n)])


def _names(path: Path, n: int) -> None:
    _write_images(path, [[f"{number % 100:x}:{number // 100:x}" for number in range(n)]])


def _names_of_images(path: Path, n: int) -> None:
    per_image = 1000
    _write_images(path, [[f"{start:x}:{m:x}" for m in range(min(per_image, n))] for start in range(0, n, per_image)])


def _names_of_many_layers(path: Path, n: int) -> None:
    layers = [bytes(1024 + 512 * number) for number in range(300)]  # all empty, no two alike
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": [f"a:{number}" for number in range(n)], "Layers": paths}]
    members = {"c.json": _config(layers), "manifest.json": json.dumps(manifest).encode()}
    _write_archive(path, {**dict(zip(paths, layers, strict=True)), **members})


def _images_of_links(path: Path, n: int) -> None:
    """Write images, each with one layer two hundred times."""
    layers = [bytes(1024)] * 200
    manifest = [{"Config": "c.json", "RepoTags": [f"a:{m}"], "Layers": ["l.tar"] * len(layers)} for m in range(n)]
    members = {"l.tar": layers[0], "c.json": _config(layers), "manifest.json": json.dumps(manifest).encode()}
    _write_archive(path, members)


def _one_layer(members: Callable[[int], _Members]) -> Callable[[Path, int], None]:
    """Return a writer of an image with one layer, which has ``n`` of the yielded members: fields and a body."""

    def write(path: Path, n: int) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for fields, body in members(n):
                member = tarfile.TarInfo()
                for field, value in fields.items():
                    setattr(member, field, value)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
        _write_image(path, [layer.getvalue()])

    return write


def _files(body: bytes) -> Callable[[int], _Members]:
    return lambda n: (({"name": f"{number % 100}/{number}"}, body) for number in range(n))


def _directories(n: int) -> _Members:
    for number in range(n):
        yield {"name": f"{number % 100}/{number}", "type": tarfile.DIRTYPE, "mode": 0o755}, b""


def _long_names(n: int) -> _Members:
    for number in range(n):
        yield {"name": f"{number:0>250}"}, b""


def _symlinks(n: int) -> _Members:
    for number in range(n):
        yield {"name": f"{number % 100}/{number}", "type": tarfile.SYMTYPE, "linkname": "x/" * 400}, b""


def _hard_links(n: int) -> _Members:
    for number in range(n):
        if number % 10_000 == 0:  # ext4 lets a file have 65,000
            yield {"name": f"files/{number}"}, b"x"
        link = f"files/{number // 10_000 * 10_000}"
        yield {"name": f"{number % 100}/{number}", "type": tarfile.LNKTYPE, "linkname": link}, b""


def _xattrs(n: int) -> _Members:
    for number in range(n):
        value = f"{number:08d}" + "v" * 1000  # no two alike: ext4 would keep these once
        yield {"name": f"{number % 100}/{number}", "pax_headers": {"SCHILY.xattr.user.a": value}}, b""


def _replaced_files(n: int) -> _Members:
    for number in range(n):
        yield {"name": "same"}, b"%d" % number


def _sparse_files(n: int) -> _Members:
    for number in range(n):
        pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        pax |= {"GNU.sparse.name": f"{number % 100}/{number}", "GNU.sparse.realsize": str(8 << 20)}
        segments = [2, 2 << 20, 1, 4 << 20, 1]
        yield (
            {"name": f"sparse{number}", "pax_headers": pax},
            b"".join(b"%d\n" % n for n in segments).ljust(512) + b"xx",
        )


def _random_files(n: int) -> _Members:
    for number in range(n):
        yield {"name": f"{number % 100}/{number}"}, os.urandom(64 << 10)


ATTACKS = {
    "images": Attack(_images, least=1000),
    "names of one image": Attack(_names, least=1000),
    "names of 300 layers": Attack(_names_of_many_layers, least=300, quick=1),
    "images that are one layer 200 times": Attack(_images_of_links, least=300, quick=1),
    "names, put as another": Attack(_names_of_images, least=50_000, quick=2000, loads=False),
    "empty files": Attack(_one_layer(_files(b"")), least=10_000),
    "files of one byte": Attack(_one_layer(_files(b"x")), least=10_000),
    "files of 64 KiB": Attack(_one_layer(_random_files), least=250),
    "empty directories": Attack(_one_layer(_directories), least=10_000),
    "names of 250 bytes": Attack(_one_layer(_long_names), least=5000),
    "long symlinks": Attack(_one_layer(_symlinks), least=5000),
    "hard links": Attack(_one_layer(_hard_links), least=10_000),
    "extended attributes of 1,000 bytes": Attack(_one_layer(_xattrs), least=5000),
    "files that replace one": Attack(_one_layer(_replaced_files), least=10_000),
    "sparse files": Attack(_one_layer(_sparse_files), least=5000),
    **{name: Attack(write, least, quick=0) for name, (write, least) in TOTALS.items()},
}
