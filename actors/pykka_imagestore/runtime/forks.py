"""What a forked child has of its parent's: every object, and none of the threads that serve them.

Waiting for such a thread would never end, and a lock that it held is held for ever. So whatever is served by a thread
keeps the number of forks that led to its process, and looks whether it is in another one by now.
"""

from __future__ import annotations

import os

from pykka_imagestore.runtime.errors import ForkedError


class Origin:
    """The process in which something was made."""

    __slots__ = ("_forks",)

    def __init__(self) -> None:
        self._forks = _forks

    def is_here(self) -> bool:
        """Tell whether this is the process; not in a child that was forked since."""
        return self._forks == _forks

    def require(self, what: str) -> None:
        """Return in the process itself.

        Args:
            what: Names the thing, as the subject of a sentence.

        Raises:
            ForkedError: This is a child that was forked since.
        """
        if self._forks != _forks:
            raise ForkedError(what)


_forks = 0
here = Origin()  # the same object for all that is made in this process, where there is much of it


def _count_fork() -> None:
    global _forks, here  # noqa: PLW0603 - a process has one line of descent
    _forks += 1
    here = Origin()


os.register_at_fork(after_in_child=_count_fork)
