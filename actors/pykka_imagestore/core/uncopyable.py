"""A base for objects that must not be copied: a copy would release what the original still holds."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Uncopyable:
    """A base for what belongs to one process: a lock, an open file, a handle on threads.

    Its copy, here or by way of pickle in another process, would end at its own time: it would unlink a lease that is
    held, or close an open file whose number has been given to somebody else since.

    Attributes:
        instead: What to do instead of copying it, as the end of a sentence.
    """

    __slots__ = ()

    instead: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # copy.copy, copy.deepcopy, pickle and what is built on it all call this.
        msg = f"a {type(self).__name__} cannot be copied or pickled: it belongs to this process; {self.instead}"
        raise TypeError(msg)
