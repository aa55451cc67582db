"""Work on each of several things that a user named: if one fails, the others are done all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pykka_imagestore.cli.output import OutputError, complain, counted
from pykka_imagestore.cli.sentences import sentence_of
from pykka_imagestore.cli.stop_signals import StoppedError
from pykka_imagestore.errors import StoreError


class SomeFailedError(StoreError):
    """Some of several things failed; a sentence was printed for each.

    Attributes:
        failed: How many.
        count: How many there were.
        noun: What one of them is.
        done: What was to be done with them, as a participle.
    """

    def __init__(self, failed: int, count: int, noun: str, done: str) -> None:
        super().__init__(failed, count, noun, done)
        self.failed, self.count, self.noun, self.done = failed, count, noun, done

    def __str__(self) -> str:
        return f"{self.failed} of {counted(self.count, self.noun)} could not be {self.done}"


def do_each(names: Sequence[str], act: Callable[[str], None]) -> int:
    """Call ``act`` with each name; return how many failed, after a sentence on stderr for each.

    Raises:
        Exception: What ``act`` raised, where there is only one name.
        StoppedError, OutputError: The rest is not done.
    """
    if len(names) == 1:
        act(names[0])
        return 0
    return sum(not _succeeds(act, name) for name in names)


def _succeeds(act: Callable[[str], None], name: str) -> bool:
    try:
        act(name)
    except (StoppedError, OutputError):
        raise
    except Exception as error:  # noqa: BLE001 - as for a single one, a user gets a sentence for every error
        complain(sentence_of(error))
        return False
    return True
