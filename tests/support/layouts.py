"""OCI image layouts made by hand, as tars and as directories: what no tool would write can be written here."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.images import diff_id, write_members

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
MANIFEST_TYPE, INDEX_TYPE = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json"
CONFIG_TYPE, LAYER_TYPE = f"{OCI}config.v1+json", f"{OCI}layer.v1.tar+gzip"
AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


class Layout:
    """The blobs of a layout, and what its index names."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.named: list[object] = []

    def blob(self, data: object, media_type: str, **fields: object) -> dict[str, Any]:
        """Add a blob, bytes or what becomes JSON; return its descriptor, with other fields if they are given."""
        encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = f"sha256:{hashlib.sha256(encoded).hexdigest()}"
        self.members[path_of(digest)] = encoded
        return {"mediaType": media_type, "digest": digest, "size": len(encoded), **fields}

    def config(self, *layers: bytes, **fields: object) -> dict[str, Any]:
        rootfs = {"type": "layers", "diff_ids": [diff_id(layer) for layer in layers]}
        return self.blob({**AMD64, "rootfs": rootfs, **fields}, CONFIG_TYPE)

    def manifest(
        self, *layers: bytes, config: object = None, fields: Mapping[str, object] | None = None, **named: object
    ) -> dict[str, Any]:
        """Add an image of some layers, gzipped; return its manifest's descriptor."""
        document = {
            "schemaVersion": 2,
            "config": config or self.config(*layers),
            "layers": [self.blob(gzip.compress(layer, mtime=0), LAYER_TYPE) for layer in layers],
            **(fields or {}),
        }
        return self.blob(document, MANIFEST_TYPE, **named)

    def index(
        self, *descriptors: object, fields: Mapping[str, object] | None = None, **named: object
    ) -> dict[str, Any]:
        document = {"schemaVersion": 2, "manifests": descriptors, **(fields or {})}
        return self.blob(document, INDEX_TYPE, **named)

    def name(self, descriptor: Mapping[str, Any], ref_name: str | None = None, **annotations: str) -> None:
        """Let ``index.json`` name something."""
        if ref_name is not None:
            annotations["org.opencontainers.image.ref.name"] = ref_name
        annotations |= descriptor.get("annotations") or {}
        self.named.append({**descriptor, "annotations": annotations} if annotations else descriptor)

    def all_members(self) -> dict[str, bytes]:
        index = json.dumps({"schemaVersion": 2, "manifests": self.named}).encode()
        return {"index.json": index, **self.members}

    def write_tar(self, path: Path) -> Path:
        return write_members(path, self.all_members())

    def write_directory(self, path: Path) -> Path:
        for name, data in self.all_members().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def path_of(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"
