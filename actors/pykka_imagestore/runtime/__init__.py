"""A Pykka plugin: futures with callbacks, actors with async methods, and worker processes.

It can be used by itself; nothing in it knows of images. Each name is imported when it is first used, since a worker
process imports this package too, and needs almost nothing of it.
"""

from __future__ import annotations

from pykka_imagestore.runtime.lazy import lazy_names

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from pykka_imagestore.runtime.actor import Actor, defer, dispatch, terminate
    from pykka_imagestore.runtime.answers import PlainAnswers
    from pykka_imagestore.runtime.blocking import run_blocking
    from pykka_imagestore.runtime.call_limit import limit
    from pykka_imagestore.runtime.combine import after, await_all, collect, discard_all, gather, select, undiscardable
    from pykka_imagestore.runtime.cpus import usable_cpus
    from pykka_imagestore.runtime.errors import (
        AbandonedError,
        DiscardedError,
        ForkedError,
        MailboxFullError,
        PoolClosedError,
        RuntimeFailure,
        WorkerAnswerError,
        WorkerDiedError,
        WorkerError,
        WorkerStartError,
        WorkerTimeoutError,
    )
    from pykka_imagestore.runtime.future import Future, Promise, failed, ready
    from pykka_imagestore.runtime.in_flight import InFlight
    from pykka_imagestore.runtime.memory import usable_memory
    from pykka_imagestore.runtime.pool import WorkerPool
    from pykka_imagestore.runtime.schedule import ScheduledMessage, tell_every, tell_later
    from pykka_imagestore.runtime.semaphore import Semaphore
    from pykka_imagestore.runtime.serial_executor import SerialExecutor
    from pykka_imagestore.runtime.single_flight import SingleFlight
    from pykka_imagestore.runtime.tasks import Messages
    from pykka_imagestore.runtime.worker import raise_if_discarded, receive, report

__all__ = [
    "AbandonedError",
    "Actor",
    "DiscardedError",
    "ForkedError",
    "Future",
    "InFlight",
    "MailboxFullError",
    "Messages",
    "PlainAnswers",
    "PoolClosedError",
    "Promise",
    "RuntimeFailure",
    "ScheduledMessage",
    "Semaphore",
    "SerialExecutor",
    "SingleFlight",
    "WorkerAnswerError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerPool",
    "WorkerStartError",
    "WorkerTimeoutError",
    "after",
    "await_all",
    "collect",
    "defer",
    "discard_all",
    "dispatch",
    "failed",
    "gather",
    "limit",
    "raise_if_discarded",
    "ready",
    "receive",
    "report",
    "run_blocking",
    "select",
    "tell_every",
    "tell_later",
    "terminate",
    "undiscardable",
    "usable_cpus",
    "usable_memory",
]

_HOMES = {
    "AbandonedError": "errors",
    "Actor": "actor",
    "DiscardedError": "errors",
    "ForkedError": "errors",
    "Future": "future",
    "SerialExecutor": "serial_executor",
    "MailboxFullError": "errors",
    "Messages": "tasks",
    "ScheduledMessage": "schedule",
    "Semaphore": "semaphore",
    "InFlight": "in_flight",
    "PlainAnswers": "answers",
    "PoolClosedError": "errors",
    "Promise": "future",
    "RuntimeFailure": "errors",
    "SingleFlight": "single_flight",
    "WorkerAnswerError": "errors",
    "WorkerDiedError": "errors",
    "WorkerError": "errors",
    "WorkerPool": "pool",
    "WorkerStartError": "errors",
    "WorkerTimeoutError": "errors",
    "after": "combine",
    "await_all": "combine",
    "collect": "combine",
    "defer": "actor",
    "discard_all": "combine",
    "dispatch": "actor",
    "failed": "future",
    "gather": "combine",
    "limit": "call_limit",
    "raise_if_discarded": "worker",
    "ready": "future",
    "receive": "worker",
    "report": "worker",
    "run_blocking": "blocking",
    "select": "combine",
    "tell_every": "schedule",
    "tell_later": "schedule",
    "terminate": "actor",
    "undiscardable": "combine",
    "usable_cpus": "cpus",
    "usable_memory": "memory",
}

__getattr__ = lazy_names(__name__, __name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
