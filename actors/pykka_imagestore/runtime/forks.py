"""Telling a forked child from the process that made an object.

A child has every object of its parent, and none of the threads that serve them: waiting for such a thread would never
end, and a lock that it held stays locked. So an object that is served by a thread remembers in which process it was
made, as the number of forks that led there, and checks that before it waits.
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
        """Raise ForkedError if this is a child that was forked since.

        Args:
            what: The object, as the subject of the error's sentence.
        """
        if self._forks != _forks:
            raise ForkedError(what)


_forks = 0
here = Origin()  # one object for all futures and inboxes of this process, to compare with ``is``


def _count_fork() -> None:
    global _forks, here  # noqa: PLW0603 - a process has one line of descent
    _forks += 1
    here = Origin()


os.register_at_fork(after_in_child=_count_fork)
