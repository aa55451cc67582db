"""The digest and the checksums of what a layer was put with, compared with those of what is stored."""

from __future__ import annotations

from pykka_imagestore.core.paths import REPLACED, REPLACED_PATHS, TAR_SPLIT
from pykka_imagestore.jobs.check.expectations import OpenedLayer
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.rebuilt_tar import RebuiltTar
from pykka_imagestore.jobs.unpack.tar_split import checksum_of


def check_digest(tar: RebuiltTar, layer: OpenedLayer, findings: Findings) -> None:
    """Compare the digest and size of a tar that was read to its end, unless bodies are missing."""
    if not tar.is_whole:
        return
    found, size = tar.source.diff_id(), tar.source.size_bytes
    if found != layer.record.diff_id:
        findings.add_fault(
            f"has other bytes than it was put with, in a file or in {TAR_SPLIT}: together they are {found}"
        )
    elif size != layer.record.size_bytes:
        findings.add_fault(f"has {size} bytes, not {layer.record.size_bytes} as its record says")


def check_checksums(layer: OpenedLayer, findings: Findings) -> None:
    """Find what was written anew and still means the same.

    Where there is a fault already, or an older version put the layer, this would say nothing more.
    """
    if not layer.expected.is_complete or findings.has_faults:
        return
    if checksum_of(layer.split) != layer.record.split_checksum:
        findings.add_fault(f"has another {TAR_SPLIT} than it was put with")
    if layer.undone.checksum != layer.record.replaced_checksum:
        findings.add_fault(f"has another {REPLACED}/{REPLACED_PATHS} than it was put with")
