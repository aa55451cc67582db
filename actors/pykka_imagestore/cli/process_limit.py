"""What to say where the kernel starts no more processes or threads."""

from __future__ import annotations

import errno
import os
import resource


def explain_if_at_limit(error: Exception) -> str | None:
    """Return a sentence about an error that means that no process or thread could be started; else None."""
    reason = str(error)
    if "can't start new thread" not in reason and not reason.endswith(os.strerror(errno.EAGAIN)):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found = "no more processes and threads can be started here"
    if limit != resource.RLIM_INFINITY:
        found += f": user {os.getuid()} may have {limit} at a time"
    return f"{found}; raise that limit (ulimit -u, or pids.max of the cgroup), or end other programs"
