"""A layer as something names it: what it claims to be, where its bytes lie, and how much work it may be. Pure.

Whatever names layers, an archive or a registry, ends in ``LayerBlob``s; everything behind that is shared. Only the code
that opens a blob looks at which location it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.identity import FileIdentity

_HEADER_BYTES = 1024  # of an entry: its header, and half a block or so after its body
_BYTES_PER_ENTRY = 12_000  # measured: 35 µs an entry, 3 ns a byte


@dataclass(frozen=True, slots=True)
class FileRange:
    """A range of a file: of an archive that is a tar, or all of a file that is one layer.

    Attributes:
        path: The file.
        offset: Where in it the bytes begin.
        identity: The file as it was indexed, by which the code that opens it notices a change.
    """

    path: str
    offset: int
    identity: FileIdentity

    @property
    def origin(self) -> str:
        """What errors say the bytes come from."""
        return self.path

    @property
    def texts(self) -> tuple[str, ...]:
        """What grows with names and paths."""
        return (self.path,)


@dataclass(frozen=True, slots=True)
class DirectoryMember:
    """A regular file below a directory, reached without following symbolic links.

    Attributes:
        directory: Path of the directory.
        name: Path of the file in it.
        identity: The file as it was indexed, by which the code that opens it notices a change.
    """

    directory: str
    name: str
    identity: FileIdentity

    @property
    def origin(self) -> str:
        """What errors say the bytes come from."""
        return self.directory

    @property
    def texts(self) -> tuple[str, ...]:
        """What grows with names and paths."""
        return self.directory, self.name


@dataclass(frozen=True, slots=True)
class Absent:
    """Nowhere: an archive names the layer and does not hold it.

    Attributes:
        path: The archive.
        reason: Why it is not there, as the rest of a sentence.
    """

    path: str
    reason: str

    @property
    def origin(self) -> str:
        """What errors say the bytes should come from."""
        return self.path

    @property
    def texts(self) -> tuple[str, ...]:
        """What grows with names and paths."""
        return self.path, self.reason


Location: TypeAlias = FileRange | DirectoryMember | Absent
Place: TypeAlias = tuple[Location, int, Digest | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much work a layer may be, from a sample of its bytes.

    Attributes:
        entries: How many entries it has.
        inflated_bytes: How many bytes it becomes; 0 if it is not compressed, or nobody knows.
    """

    entries: int = 0
    inflated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer, perhaps compressed, as it is named and stored. All that it says of itself is a claim.

    Attributes:
        name: What the archive calls it.
        size: How many bytes it has as stored.
        location: Where these lie.
        digest: What they must be; None if nobody says.
        estimate: How much work it may be.
    """

    name: str
    size: int
    location: Location
    digest: Digest | None = None
    estimate: Estimate = Estimate()

    @property
    def origin(self) -> str:
        """What errors say the bytes come from: the path of the archive."""
        return self.location.origin

    @property
    def absence(self) -> str:
        """Why the bytes lie nowhere, as the rest of a sentence; empty if they lie somewhere."""
        return self.location.reason if isinstance(self.location, Absent) else ""

    @property
    def place(self) -> Place:
        """What tells the bytes from all others of the archive, whatever they are called."""
        return self.location, self.size, self.digest

    @property
    def cost(self) -> int:
        """How long it takes to unpack, in bytes: making a file takes as long as writing that many."""
        return self.size + self.estimate.inflated_bytes + _BYTES_PER_ENTRY * self.estimate.entries

    @property
    def least_bytes(self) -> int:
        """What it takes unpacked, at least: what is plain takes this much or a little more, what is compressed more."""
        if self.estimate.inflated_bytes:
            return self.size
        return max(0, self.size - self.estimate.entries * _HEADER_BYTES)
