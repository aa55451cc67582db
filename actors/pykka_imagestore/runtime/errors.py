"""What the runtime raises.

RuntimeFailure
    AbandonedError          nothing is left that could complete the future: do the work again
    WorkerError             a worker process failed its task, not the task's own code
        WorkerDiedError     the process ended in mid-task, killed, out of memory, crashed: run the task again
        WorkerStartError    no process could be started, or each ended before it took the task: see its reason
        WorkerTimeoutError  the task ran past its time limit and was killed: raise the limit, or give the task up
        WorkerAnswerError   the process sent what no worker sends, and was killed: distrust its input
    MailboxFullError        so many messages wait for the actor already: send later, or raise the limit
    PoolClosedError         the pool was closed before the task was done: make another pool
    ForkedError             this is a forked child, and the object is served in its parent: make a new one here

DiscardedError              the work was stopped because its future was discarded: nothing, it was requested
"""

from __future__ import annotations

import concurrent.futures


class RuntimeFailure(Exception):  # noqa: N818 - the base is a kind of failure, its leaves are errors
    """Base of every failure that the runtime itself causes."""


class AbandonedError(RuntimeFailure):
    """The future can never complete: its promise was dropped without an answer."""

    def __str__(self) -> str:
        return "abandoned: the promise of this future was dropped without an answer"


class WorkerError(RuntimeFailure):
    """A worker process failed its task.

    Attributes:
        task: Name of the function that was running.
    """

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task


class WorkerDiedError(WorkerError):
    """A worker process ended in the middle of its task.

    Attributes:
        exit_code: Minus the signal's number if a signal ended it. None if it is not known: SIGCHLD is ignored in this
            program, or something else in it waits for all children.
    """

    def __init__(self, task: str, exit_code: int | None) -> None:
        RuntimeFailure.__init__(self, task, exit_code)
        self.task, self.exit_code = task, exit_code

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "ended, and something else in this program has taken its exit code"
        elif self.exit_code < 0:
            how = f"ended with signal {-self.exit_code}"
        else:
            how = f"ended with exit code {self.exit_code}"
        return f"the worker process running {self.task} {how}; the task may be run again"


class WorkerStartError(WorkerError):
    """No worker process could be started, or each ended before it took the task.

    Attributes:
        reason: Why, and what to do about it.
    """

    def __init__(self, task: str, reason: str = "each ended before it took the task") -> None:
        RuntimeFailure.__init__(self, task, reason)
        self.task, self.reason = task, reason

    def __str__(self) -> str:
        return f"no worker process could be started for {self.task}: {self.reason}"


class WorkerAnswerError(WorkerError):
    """A worker process sent what no worker sends: it may have been taken over, and was killed.

    Attributes:
        fault: What was wrong with what it sent.
    """

    def __init__(self, task: str, fault: str) -> None:
        RuntimeFailure.__init__(self, task, fault)
        self.task, self.fault = task, fault

    def __str__(self) -> str:
        return f"the worker process running {self.task} was killed: {self.fault}; distrust its input"


class WorkerTimeoutError(WorkerError):
    """A task ran past its time limit; its worker process was killed.

    Attributes:
        time_limit: The limit, in seconds.
    """

    def __init__(self, task: str, time_limit: float) -> None:
        RuntimeFailure.__init__(self, task, time_limit)
        self.task, self.time_limit = task, time_limit

    def __str__(self) -> str:
        return f"{self.task} ran past its time limit of {self.time_limit:g} s and was killed"


class MailboxFullError(RuntimeFailure):
    """A bounded mailbox has no place for another message, and its actor was started with ``when_full="fail"``.

    Attributes:
        what: The actor.
        limit: How many messages may wait for it.
    """

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"{self.limit} messages wait in the mailbox of {self.what}, which is the limit; send later"


class PoolClosedError(RuntimeFailure):
    """The worker pool was closed before the task was done."""

    def __str__(self) -> str:
        return "the worker pool is closed; what was running in it has been stopped"


class ForkedError(RuntimeFailure):
    """The object needs threads that are in the parent process, and not in this forked child.

    Attributes:
        what: The object that was made before the fork.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} was made before this process was forked, and its threads are in the parent; "
            "make a new one here"
        )


class DiscardedError(concurrent.futures.CancelledError):
    """The future was discarded: its work was stopped on request, and has ended."""

    def __str__(self) -> str:
        return "discarded: the work was stopped on request"
