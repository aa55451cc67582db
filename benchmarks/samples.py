"""Made-up layers, the same for the same seed, and image archives of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pykka_imagestore.jobs.unpack.inflate import zstd

FILES_PER_DIRECTORY = 20
MEDIA_TYPES = {"plain": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}
_POOL_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a made-up layer: a number of files, and their bytes on average."""

    name: str
    files: int
    mean_bytes: int


def write_layer(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a plain layer: a directory for every few files, and bodies that compress to about a half."""
    chance = random.Random(seed)
    pool = chance.randbytes(_POOL_BYTES // 2).hex().encode()
    with tarfile.open(path, "w") as tar:
        for number in range(shape.files):
            directory = f"srv/{number // FILES_PER_DIRECTORY // 50}/{number // FILES_PER_DIRECTORY}"
            if number % FILES_PER_DIRECTORY == 0:
                _add(tar, directory, None)
            start = chance.randrange(_POOL_BYTES)
            size = int(chance.uniform(0.1, 1.9) * shape.mean_bytes)
            body = pool[start:] + pool * (size // _POOL_BYTES + 1)
            _add(tar, f"{directory}/file{number}.txt", body[:size])
    return path


def compress(plain: Path, compression: str) -> Path:
    """Write a layer's compressed form beside it, as publishers do: gzip 6, or zstd 3."""
    if compression == "plain":
        return plain
    path = plain.with_suffix(f".{compression}")
    writer = partial(gzip.open, compresslevel=6) if compression == "gzip" else partial(zstd.open, level=3)
    with plain.open("rb") as source, writer(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path


def write_docker_archive(path: Path, layers: Sequence[Path]) -> Path:
    """Write plain layers into an archive, as docker save does."""
    diff_ids = [_digest(layer) for layer in layers]
    names = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in diff_ids]
    config = _config(diff_ids)
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": ["localhost/bench:1"], "Layers": names}]
    documents = {config_name: config, "manifest.json": json.dumps(manifest).encode()}
    return _write_archive(path, dict(zip(names, layers, strict=True)), documents)


def write_oci_archive(path: Path, layers: Sequence[tuple[Path, str, Path]]) -> Path:
    """Write layers into an OCI archive; each is given as it is stored, with its compression and its plain form."""
    config = _config([_digest(plain) for _, _, plain in layers])
    files: dict[str, Path] = {}
    described = []
    for stored, compression, _ in layers:
        digest = _digest(stored)
        files[_blob(digest)] = stored
        media_type = f"application/vnd.oci.image.layer.v1.{MEDIA_TYPES[compression]}"
        described.append({"mediaType": media_type, "digest": digest, "size": stored.stat().st_size})
    kind = "application/vnd.oci.image"
    documents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    config_descriptor = _add_blob(documents, config, f"{kind}.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": config_descriptor}
    named = _add_blob(documents, json.dumps({**manifest, "layers": described}).encode(), f"{kind}.manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "localhost/bench:1"}
    documents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
    return _write_archive(path, files, documents)


def _config(diff_ids: Sequence[str]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()


def _add_blob(documents: dict[str, bytes], data: bytes, media_type: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    documents[_blob(digest)] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _write_archive(path: Path, files: Mapping[str, Path], documents: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, file in files.items():
            tar.add(file, name)
        for name, data in documents.items():
            _add(tar, name, data)
    return path


def _add(tar: tarfile.TarFile, name: str, body: bytes | None) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = 1_600_000_000
    if body is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    else:
        member.size = len(body)
    tar.addfile(member, None if body is None else io.BytesIO(body))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
