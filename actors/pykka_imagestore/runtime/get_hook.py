"""Get hooks: functions that get the value of a future when it is asked for, as Pykka's own ``map`` has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import pykka

from pykka_imagestore.runtime.callbacks import this_thread, wait_until
from pykka_imagestore.runtime.state import State

if TYPE_CHECKING:
    from pykka_imagestore.runtime.completable import Completable

T = TypeVar("T")


class GetHook(Generic[T]):
    """A function that returns the value of a future, and may block for it. It returns once at most.

    Pykka calls it in the thread that calls ``get``. If something observes the future, a thread of the hook's own calls
    it, since nobody might ever call ``get``.

    Args:
        function: Called with the seconds that it may take, or None; raises pykka.Timeout if they do not suffice.
    """

    def __init__(self, function: Callable[[float | None], T]) -> None:
        self._function = function
        self._lock = threading.RLock()  # reentrant, as Pykka's is
        self._values: list[T] = []
        self._has_thread = False

    def get(self, future: Completable[T], timeout: float | None) -> None:
        """Make ``future`` final for a ``get``; what the function raises is raised, and the next ``get`` tries again."""
        if self._has_thread:
            wait_until(future.done, future._wait_once, timeout)
            return
        # A callback that this thread has deferred may do what the function waits for.
        wait_until(lambda: not this_thread().deferred or future.done(), future._wait_once, None)
        if not future.done():
            value = self._call(timeout)
            future._complete(State.READY, value, bound=True)

    def start(self, future: Completable[T]) -> None:
        """Have a thread make ``future`` final, once; it does not keep the interpreter from ending."""
        if self._has_thread:
            return
        self._has_thread = True
        try:
            threading.Thread(target=self._serve, args=(future,), name="get-hook", daemon=True).start()
        except RuntimeError as error:  # no more threads
            future._complete(State.FAILED, None, error, error.__traceback__, bound=True)

    def _serve(self, future: Completable[T]) -> None:
        try:
            value = self._call(None)
        except BaseException as error:  # noqa: BLE001 - the future fails with it
            future._complete(State.FAILED, None, error, error.__traceback__, bound=True)
        else:
            future._complete(State.READY, value, bound=True)
        finally:
            del future  # which refers to the error, and that to this frame

    def _call(self, timeout: float | None) -> T:
        if not self._lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)):
            msg = f"{timeout} seconds"
            raise pykka.Timeout(msg)
        try:
            if not self._values:
                value = self._function(timeout)
                # A future in a future is flattened, here too.
                self._values.append(value.get(timeout=timeout) if isinstance(value, pykka.Future) else value)
            return self._values[0]
        finally:
            self._lock.release()
