"""Parse the names by which an archive refers to its members, and make the errors about them."""

from __future__ import annotations

from pykka_imagestore.core.format_error import FormatError, LimitExceededError
from pykka_imagestore.core.tar.format import EscapeError, OverLimitError, TarError, clean_path
from pykka_imagestore.text import shown


def parse_member_name(unsafe_name: str) -> bytes:
    """Return a name as a path below the archive's root; the root itself is empty.

    Raises:
        FormatError: It is malformed, or leads out of the archive.
    """
    try:
        return clean_path(unsafe_name.encode("utf-8", "surrogateescape"))
    except TarError as error:
        raise tar_fault(error, f"it names a member {shown(unsafe_name)} that") from error
    except UnicodeEncodeError as error:
        msg = f"it names a member {shown(unsafe_name)} that is no text"
        raise FormatError(msg) from error


def no_member(unsafe_name: str) -> FormatError:
    """Return the error for a name that no member has."""
    return FormatError(f"it has no member {shown(unsafe_name)}")


def tar_fault(error: TarError, *where: str) -> FormatError:
    """Return the error for a fault of the tar, or of a name, that ``where`` names."""
    if isinstance(error, OverLimitError):
        return LimitExceededError(str(error), error.limit, where)
    return FormatError("points outside the archive" if isinstance(error, EscapeError) else str(error), where)
