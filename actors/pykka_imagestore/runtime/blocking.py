"""Threads for calls that may block for long and cannot be interrupted, so that actors and executors go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pykka_imagestore.runtime.future import Future, Promise

T = TypeVar("T")


def run_blocking(function: Callable[[], T], undo: Callable[[T], object]) -> Future[T]:
    """Call ``function`` in a thread of its own, which does not keep the interpreter from ending.

    Args:
        undo: Called with the result if the future was discarded before the call returned.

    Returns:
        What it returns or raises. A discard makes the future discarded at once; the call goes on.
    """
    promise: Promise[T] = Promise()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            promise.fail(error)
            return
        if not promise.set(result):
            undo(result)

    promise.future.on_discard(promise.discard)
    threading.Thread(target=call, name="imagestore-blocking", daemon=True).start()
    return promise.future
