"""A Pykka plugin: futures that tell when they are done, actors with async methods, and worker processes.

Usable by itself; nothing here knows of images.
"""

from pykka_imagestore.runtime.actor import Actor, defer, dispatch, terminate
from pykka_imagestore.runtime.blocking import run_blocking
from pykka_imagestore.runtime.combine import after, await_all, collect, gather, select, undiscardable
from pykka_imagestore.runtime.cpus import usable_cpus
from pykka_imagestore.runtime.errors import (
    AbandonedError,
    DiscardedError,
    ForkedError,
    PoolClosedError,
    RuntimeFailure,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
    WorkerTimeoutError,
)
from pykka_imagestore.runtime.future import Future, Promise, failed, ready
from pykka_imagestore.runtime.lane import Lane
from pykka_imagestore.runtime.memory import usable_memory
from pykka_imagestore.runtime.mutex import Mutex
from pykka_imagestore.runtime.pending import Pending
from pykka_imagestore.runtime.pool import WorkerPool
from pykka_imagestore.runtime.single_flight import SingleFlight
from pykka_imagestore.runtime.worker import raise_if_discarded, report

__all__ = [
    "AbandonedError",
    "Actor",
    "DiscardedError",
    "ForkedError",
    "Future",
    "Lane",
    "Mutex",
    "Pending",
    "PoolClosedError",
    "Promise",
    "RuntimeFailure",
    "SingleFlight",
    "WorkerDiedError",
    "WorkerError",
    "WorkerPool",
    "WorkerStartError",
    "WorkerTimeoutError",
    "after",
    "await_all",
    "collect",
    "defer",
    "dispatch",
    "failed",
    "gather",
    "raise_if_discarded",
    "ready",
    "report",
    "run_blocking",
    "select",
    "terminate",
    "undiscardable",
    "usable_cpus",
    "usable_memory",
]
