"""What an OCI image layout calls its images: the entries of ``index.json``, grouped by their names. Pure.

Spec:
    OCI image-spec v1.1: annotations.md "Pre-Defined Annotation Keys".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.formats.oci_documents import CONTAINERD_NAME, REF_NAME, Descriptor
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import InvalidNameError


@dataclass(frozen=True, slots=True)
class NameGroup:
    """The entries of ``index.json`` that have the same names: one image, perhaps for several platforms."""

    unsafe_names: tuple[str, ...]
    unsafe_tags: tuple[str, ...]
    descriptors: tuple[Descriptor, ...]

    @property
    def is_named(self) -> bool:
        """Whether it has a name or a tag."""
        return bool(self.unsafe_names or self.unsafe_tags)

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The digests of its entries, each once."""
        return tuple(dict.fromkeys(descriptor.digest for descriptor in self.descriptors))


def group_by_names(descriptors: Iterable[Descriptor]) -> list[NameGroup]:
    """Return the groups, in the order of their first entries."""
    groups: dict[tuple[str, str], list[Descriptor]] = {}
    for descriptor in descriptors:
        key = descriptor.annotation(CONTAINERD_NAME), descriptor.annotation(REF_NAME)
        groups.setdefault(key, []).append(descriptor)
    return [NameGroup(*_split_names(*key), tuple(members)) for key, members in groups.items()]


def _split_names(unsafe_full_name: str, unsafe_ref_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names, and the tags that are no name by themselves; either annotation may hold either."""
    if _is_name(unsafe_full_name):
        name = unsafe_full_name
    elif "/" in unsafe_ref_name or ":" in unsafe_ref_name:
        name = unsafe_ref_name
    else:
        name = ""
    tags = (text for text in (unsafe_ref_name, unsafe_full_name) if text and text != name)
    return ((name,) if name else ()), tuple(dict.fromkeys(tags))


def _is_name(unsafe_text: str) -> bool:
    try:
        ImageName.parse(unsafe_text)
    except InvalidNameError:
        return False
    return True
