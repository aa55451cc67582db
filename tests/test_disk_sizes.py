"""What a store counts of itself is what it takes on disk, or more: nothing that a layer repeats is free."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device import new_device, why_not
from support import tars
from support.images import docker_save
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore
from pykka_imagestore.core.budget import Size

COUNT = 1000
MANY: dict[str, Callable[[int], bytes]] = {
    "empty files": lambda n: tars.file(b"%d/%d" % (n % 7, n)),
    "files of one byte": lambda n: tars.file(b"%d/%d" % (n % 7, n), b"x"),
    "empty directories": lambda n: tars.directory(b"%d/%d" % (n % 7, n)),
    "directories that no entry names": lambda n: tars.file(b"%d/%d/f" % (n % 7, n)),
    "names of 250 bytes in one directory": lambda n: tars.file(b"%0250d" % n),
    "symlinks with short targets": lambda n: tars.symlink(b"%d" % n, b"t" * 59),
    "symlinks with long targets": lambda n: tars.symlink(b"%d" % n, b"t" * 100),
    "fifos": lambda n: tars.header(b"%d" % n, tars.FIFO),
    "hard links": lambda n: tars.file(b"file", b"x") if n == 0 else tars.hard_link(b"%d/%d" % (n % 7, n), b"file"),
    "short extended attributes": lambda n: tars.pax({b"SCHILY.xattr.user.a": b"%d" % n}) + tars.file(b"%d" % n),
    "long extended attributes": lambda n: tars.pax({b"SCHILY.xattr.user.a": b"%d" % n * 200}) + tars.file(b"%d" % n),
    "files that replace one": lambda n: tars.file(b"same", b"%d" % n),
    "files that are replaced by directories": lambda n: (tars.directory if n % 2 else tars.file)(b"%d" % (n // 2)),
    "whiteouts": lambda n: tars.whiteout(b"%d/%d" % (n % 7, n)),
    "opaque directories": lambda n: tars.directory(b"%d" % n) + tars.opaque(b"%d" % n),
    "sparse files": lambda n: tars.gnu_sparse(b"%d" % n, 1 << 22, [(0, 1), (1 << 20, 1), (3 << 20, 1)], b"xyz"),
}
OTHERS: dict[str, bytes] = {
    "one sparse file of many segments": tars.gnu_sparse(
        b"f", 1 << 32, [(number * 20_000, 1) for number in range(5_000)], b"x" * 5_000
    ),
    "headers that nobody needs": b"".join(
        tars.pax({b"comment": os.urandom(20_000).hex().encode()}) + tars.file(b"%d" % n) for n in range(100)
    ),
}
LAYERS = {**{name: b"".join(map(entry, range(COUNT))) for name, entry in MANY.items()}, **OTHERS}


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("ext4")
    reason = why_not(directory)
    if reason is not None:
        pytest.skip(reason)
    with new_device(directory, "1G") as device:
        yield device.directory


@pytest.mark.parametrize("shape", LAYERS)
def test_what_a_layer_takes_is_counted(tmp_path: Path, shape: str) -> None:
    counted, measured = put_and_measure(tmp_path / "store", tmp_path, shape)

    assert counted.bytes >= measured.bytes
    assert counted.inodes >= measured.inodes


@pytest.mark.root
@pytest.mark.parametrize("shape", LAYERS)
def test_what_a_layer_takes_on_ext4_is_counted(ext4: Path, tmp_path: Path, shape: str) -> None:
    counted, measured = put_and_measure(ext4 / shape.replace(" ", "-"), tmp_path, shape)

    assert counted.bytes >= measured.bytes
    assert counted.inodes >= measured.inodes


def put_and_measure(directory: Path, work: Path, shape: str) -> tuple[Size, Size]:
    archive = docker_save(work / "image.tar", {"image": [LAYERS[shape] + tars.END]})
    with LocalStore.start(directory, durable=False, workers=1) as store:
        store.put("image", archive).get(timeout=TIMEOUT)
        usage = store.usage().get(timeout=TIMEOUT)
    subprocess.run(["sync", "--file-system", directory], check=True)  # before, ext4 reserves more than it takes
    kept = [path for name in ("layers", "configs") for path in (directory / name).iterdir()]
    kept += [path for path in (directory / "storedImages", directory / "storedImages.journal") if path.exists()]
    return Size(usage.bytes, usage.inodes), Size(du(kept), du(kept, "--inodes") - 2)


def du(paths: list[Path], *options: str) -> int:
    done = subprocess.run(
        ["du", "-s", "-c", *options, "--block-size=1", *paths], check=True, capture_output=True, text=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])
