"""A call that may block for long, and cannot be interrupted, away from actors, serial executors and workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pykka_imagestore.runtime.future import Future, Promise

T = TypeVar("T")


def run_blocking(function: Callable[[], T], undo: Callable[[T], object]) -> Future[T]:
    """Call ``function`` in a thread of its own, which does not keep the interpreter from ending.

    Args:
        undo: Called with the result if nobody wants it any more when it comes.

    Returns:
        What it returns or raises. A discard gives the call up at once, but cannot end it.
    """
    promise: Promise[T] = Promise()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it travels to whoever gets the future
            promise.fail(error)
            return
        if not promise.set(result):
            undo(result)

    promise.future.on_discard(promise.discard)
    threading.Thread(target=call, name="imagestore-blocking", daemon=True).start()
    return promise.future
