"""Find the images of an OCI image layout. Pure: blobs come from a ``MemberReader``, and no layer is read.

Spec:
    OCI image-spec v1.1: image-layout.md, image-index.md.
"""

from __future__ import annotations

from dataclasses import replace

from pykka_imagestore.core.archive_index import ArchivedImage, RefusedImage, count_image, count_names
from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError, inside
from pykka_imagestore.core.formats.json_fields import expect_object, get_text, parse_json
from pykka_imagestore.core.formats.oci_blobs import LayoutBlobs
from pykka_imagestore.core.formats.oci_choice import Candidate, NoImageError, choose_manifests
from pykka_imagestore.core.formats.oci_documents import Descriptor, parse_index
from pykka_imagestore.core.formats.oci_names import NameGroup, group_by_names
from pykka_imagestore.core.member_reader import MemberReader
from pykka_imagestore.core.platform import WantedPlatform
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.text import shown

INDEX = "index.json"
LAYOUT = "oci-layout"


def read_layout(
    members: MemberReader, totals: Totals, wanted: WantedPlatform
) -> tuple[tuple[ArchivedImage, ...], tuple[RefusedImage, ...]]:
    """Return the images of a layout, and what in it cannot be put, in its order.

    Entries of the same names are one image for several platforms, of which one is chosen; a manifest under several
    names is one image.

    Args:
        totals: Counts what the layout asks for.
        wanted: Which platform to choose.

    Raises:
        UnsupportedFormatError: The layout is of a later version, or names nothing.
        FormatError: Its ``oci-layout`` or ``index.json`` is malformed.
    """
    _check_version(members)
    top = _read_top(members)
    blobs = LayoutBlobs(members, totals)
    blobs.count(top)
    images: dict[Digest, _Image] = {}
    refused = []
    groups = group_by_names(top)
    for group in groups:
        count_names(totals, group.unsafe_names + group.unsafe_tags)
    for group in groups:
        try:
            for candidate in choose_manifests(blobs, wanted, group):
                manifest = candidate.descriptor.digest
                if manifest not in images:
                    images[manifest] = _Image(_read_image(blobs, candidate))
                images[manifest].add_names(group, candidate)
        except NoImageError as error:
            refused.append(_refused(group, UnsupportedFormatError(str(error)), is_artifact=True))
        except FormatError as error:
            refused.append(_refused(group, error, is_artifact=False))
    found = tuple(image.complete() for image in images.values())
    for each in found:
        count_image(totals, each)
    return found, tuple(refused)


def _check_version(members: MemberReader) -> None:
    if not members.has(LAYOUT):
        return
    data = members.read_json(LAYOUT)
    with inside(shown(LAYOUT)):
        version = get_text(expect_object(parse_json(data)), "imageLayoutVersion")
    if version.partition(".")[0] != "1":
        msg = f"is an OCI image layout of version {shown(version)}; 1 is supported"
        raise UnsupportedFormatError(msg)


def _read_top(members: MemberReader) -> tuple[Descriptor, ...]:
    data = members.read_json(INDEX)
    with inside(shown(INDEX)):
        top = parse_index(data)
    if not top:
        msg = "holds no image: its index.json names none"
        raise UnsupportedFormatError(msg)
    return top


def _refused(group: NameGroup, error: FormatError, *, is_artifact: bool) -> RefusedImage:
    return RefusedImage(group.unsafe_names, group.unsafe_tags, group.digests, _bare(error), is_artifact)


def _bare(error: FormatError) -> FormatError:
    """Return an error without its traceback and causes: they would keep whole manifests in memory."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


class _Image:
    """Collects all names of an image, in the layout's order."""

    def __init__(self, image: ArchivedImage) -> None:
        self._image = image
        self._unsafe_names: dict[str, None] = {}
        self._unsafe_tags: dict[str, None] = {}
        self._digests: dict[Digest, None] = {}

    def add_names(self, group: NameGroup, candidate: Candidate) -> None:
        self._unsafe_names.update(dict.fromkeys(group.unsafe_names))
        self._unsafe_tags.update(dict.fromkeys(group.unsafe_tags))
        self._digests.update(dict.fromkeys((candidate.named_by, candidate.descriptor.digest)))

    def complete(self) -> ArchivedImage:
        names = tuple(self._unsafe_names), tuple(self._unsafe_tags), tuple(self._digests)
        return replace(self._image, unsafe_names=names[0], unsafe_tags=names[1], digests=names[2])


def _read_image(blobs: LayoutBlobs, candidate: Candidate) -> ArchivedImage:
    descriptor = candidate.descriptor
    manifest = blobs.manifest(descriptor)
    fault = manifest.fault()
    if fault is not None:
        raise NoImageError(f"its manifest {descriptor.digest} {fault}")
    diff_ids = blobs.diff_ids(manifest.config)
    if len(diff_ids) != len(manifest.layers):
        msg = f"has {len(manifest.layers)} layers, but its config {manifest.config.digest} lists {len(diff_ids)}"
        raise FormatError(msg, (f"its manifest {descriptor.digest}",))
    return ArchivedImage((), blobs.read(manifest.config), tuple(map(blobs.layer, manifest.layers)), diff_ids)
