"""What a parser finds wrong with bytes from outside: bare facts. Pure.

A parser knows neither which archive the bytes come from nor what to do about the fault. The code that knows the archive
adds both, once, with ``about_archive``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from pykka_imagestore.errors import ArchiveError, DigestMismatchError, LimitError, UnsupportedArchiveError


class FormatError(Exception):
    """Something does not have the form that it should have.

    Args:
        fault: What is wrong, as the rest of a sentence about ``where``; as a whole sentence if that is empty.
        where: What the fault is in, from the outside in: a member, a field. Text from outside is quoted.
    """

    def __init__(self, fault: str, where: tuple[str, ...] = ()) -> None:
        self._set(fault, where)

    def _set(self, *facts: Any) -> None:
        # All facts go up, so that the error survives pickling; none is kept twice, so that it stays small.
        super().__init__(*facts)

    @property
    def fault(self) -> str:
        """What is wrong."""
        return str(self.args[0])

    @property
    def where(self) -> tuple[str, ...]:
        """What the fault is in, from the outside in."""
        where: tuple[str, ...] = self.args[-1]
        return where

    def inside(self, *outer: str) -> Self:
        """Return the same fault in something that is a part of ``outer``."""
        kind: Any = type(self)
        error: Self = kind(*self.args[:-1], (*outer, *self.where))
        return error

    def about(self, archive: str) -> ArchiveError:
        """Return the error to raise for an archive."""
        return ArchiveError(archive, str(self))

    def __str__(self) -> str:
        return f"{', '.join(self.where)} {self.fault}" if self.where else self.fault


class UnsupportedFormatError(FormatError):
    """Something has a form that is not supported."""

    def about(self, archive: str) -> UnsupportedArchiveError:
        """Return the error to raise for an archive."""
        return UnsupportedArchiveError(archive, str(self))


class LimitExceededError(FormatError):
    """Something asks for more than a limit allows.

    Attributes:
        limit: The limit's name in ``Limits``.
    """

    def __init__(self, fault: str, limit: str, where: tuple[str, ...] = ()) -> None:
        self._set(fault, limit, where)

    @property
    def limit(self) -> str:
        """The limit's name in ``Limits``."""
        return str(self.args[1])

    def about(self, archive: str) -> LimitError:
        """Return the error to raise for an archive."""
        return LimitError.of_archive(archive, str(self), self.limit)


class WrongDigestError(FormatError):
    """Bytes are not the ones that their digest says.

    Args:
        expected: The digest that they should have.
        found: The digest that they have.
        where: Which bytes.
    """

    def __init__(self, expected: str, found: str, where: tuple[str, ...]) -> None:
        self._set(expected, found, where)

    @property
    def expected(self) -> str:
        """The digest that they should have."""
        return str(self.args[0])

    @property
    def found(self) -> str:
        """The digest that they have."""
        return str(self.args[1])

    @property
    def fault(self) -> str:
        """What is wrong."""
        return f"should have digest {self.expected} but has {self.found}"

    def about(self, archive: str) -> DigestMismatchError:
        """Return the error to raise for an archive."""
        return DigestMismatchError(archive, ", ".join(self.where), self.expected, self.found)


@contextmanager
def inside(*outer: str) -> Iterator[None]:
    """Add what a block parses to each fault that it finds."""
    try:
        yield
    except FormatError as error:
        raise error.inside(*outer) from error


@contextmanager
def about_archive(archive: str) -> Iterator[None]:
    """Make each fault that a block finds an error that names the archive and says what to do.

    Raises:
        ArchiveError: There was a fault.
    """
    try:
        yield
    except FormatError as error:
        raise error.about(archive) from error
