"""Put an image into a store, open the store again, get the image. Usage: quickstart.py [ARCHIVE of docker save]."""

import hashlib
import json
import sys
import sysconfig
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore, StoreError


def build_archive(directory: Path, *patterns: str) -> Path:
    """Write an archive as docker save does, with a layer for each pattern of files of the running Python."""
    stdlib, image, layers = Path(sysconfig.get_path("stdlib")), directory / "image", []
    image.mkdir()
    for pattern in patterns:
        layers.append(image / f"{len(layers)}.tar")
        with tarfile.open(layers[-1], "w") as tar:
            for file in sorted(stdlib.glob(pattern)):
                tar.add(file, f"usr/lib/python/{file.relative_to(stdlib)}")
    diff_ids = [f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}" for layer in layers]
    (image / "config.json").write_text(json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}}))
    manifest = {"Config": "config.json", "RepoTags": ["python:demo"], "Layers": [layer.name for layer in layers]}
    (image / "manifest.json").write_text(json.dumps([manifest]))
    with tarfile.open(directory / "python.tar", "w") as tar:
        tar.add(image, "")
    return directory / "python.tar"


def demonstrate(archive: Path, directory: Path) -> None:
    print(f"Putting {archive}, {archive.stat().st_size / 1e6:.0f} MB, into a new store. Workers unpack its layers.")
    with LocalStore.start(directory) as store:
        for what in ("It is there, every digest verified, all on disk:", "Put again, its layers are not even read:"):
            start = time.perf_counter()
            images = store.load(archive).get(timeout=600)
            print(f"{what} {time.perf_counter() - start:.3f} s.")

    with LocalStore.start(directory) as store:
        start = time.perf_counter()
        image = store.get(images[0].name).get(timeout=60)
        print(f"Opened the store again and found {image.name}: {time.perf_counter() - start:.3f} s. Its layers are")
        for layer in image.layers:
            files = [path.relative_to(layer.path) for path in layer.path.rglob("*") if path.is_file()]
            print(f"  {layer.path.relative_to(directory)}", *sorted(files)[:2], f"... {len(files)} files", sep="\n    ")
        print(
            "and beside them", *sorted(path.name for path in directory.iterdir() if path.name != "layers"), sep="\n  "
        )


if __name__ == "__main__":
    with TemporaryDirectory(prefix="imagestore-demo-") as directory:
        try:
            given = Path(sys.argv[1]) if sys.argv[1:] else build_archive(Path(directory), "*.py", "[a-e]*/*.py")
            demonstrate(given, Path(directory, "store"))
        except (StoreError, OSError) as error:
            sys.exit(f"quickstart: {error}")
