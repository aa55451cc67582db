"""What takes room on disk, and how much all of a store may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pykka_imagestore.core.parameters import require_count


@dataclass(frozen=True, slots=True)
class Size:
    """What something takes on disk."""

    bytes: int = 0
    inodes: int = 0

    def __str__(self) -> str:
        return f"{self.bytes} bytes and {self.inodes} inodes"

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.inodes + other.inodes)

    def __sub__(self, other: Size) -> Size:
        return Size(self.bytes - other.bytes, self.inodes - other.inodes)


NOTHING: Final = Size()


@dataclass(frozen=True, slots=True)
class Budget:
    """What all of a store may take on disk; None for as much as there is, 0 for what must stay and no more."""

    bytes: int | None = None
    inodes: int | None = None

    @classmethod
    def of(cls, budget_bytes: int | None, budget_inodes: int | None) -> Budget:
        """Make a budget of what a caller says.

        Raises:
            InvalidInputError: A number is none, or negative.
        """
        require_count("budget_bytes", budget_bytes, 0, "bytes")
        require_count("budget_inodes", budget_inodes, 0, "inodes")
        return cls(budget_bytes, budget_inodes)

    def __bool__(self) -> bool:
        """Tell whether it bounds anything."""
        return not (self.bytes is None and self.inodes is None)

    def __str__(self) -> str:
        numbers = {"bytes": self.bytes, "inodes": self.inodes}
        return " and ".join(f"{number} {what}" for what, number in numbers.items() if number is not None)

    def holds(self, size: Size) -> bool:
        """Tell whether a store of this size is within it."""
        return (self.bytes is None or size.bytes <= self.bytes) and (self.inodes is None or size.inodes <= self.inodes)

    def can_hold(self, least: Size) -> bool:
        """Tell whether a store that cannot be smaller may be within it; as good as, if that is all it is to hold."""
        return 0 in (self.bytes, self.inodes) or self.holds(least)

    def __add__(self, more: Size) -> Budget:
        return Budget(
            None if self.bytes is None else max(1, self.bytes + more.bytes),
            None if self.inodes is None else max(1, self.inodes + more.inodes),
        )


NO_BUDGET: Final = Budget()
