"""What a parser of an archive's form asks for: the members of the archive, by name."""

from __future__ import annotations

from typing import Protocol

from pykka_imagestore.core.layer_blob import Absent, LayerBlob


class MemberReader(Protocol):
    """The members of one archive: of a tar, or of a directory.

    It is opened before the parser begins, and closed after it has ended. Names that the parser asks for come out of
    the archive itself: none leads anywhere but to a member.
    """

    def has(self, name: str) -> bool:
        """Tell whether there is a member of that name."""

    def names(self) -> list[str]:
        """Return the names of all members."""

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob; FormatError if there is none."""

    def absent(self, reason: str) -> Absent:
        """Return the location of what the archive names and does not hold; ``reason`` is the rest of a sentence."""

    def read_json(self, unsafe_name: str) -> bytes:
        """Return a member's bytes, of bounded size; FormatError if there is none."""
