"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from pykka_imagestore.runtime.cgroup import cgroup_directories, read


def usable_memory(root: Path = Path("/")) -> int:
    """Return the size of the machine's memory in bytes, or of a cgroup's limit if that is less.

    Args:
        root: The directory with ``proc`` and ``sys``.

    Source: Linux, cgroup-v2.rst, ``memory.max``; cgroup-v1/memory.rst, ``memory.limit_in_bytes``.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    files = [
        *(directory / "memory.max" for directory in cgroup_directories(root, "sys/fs/cgroup", "")),
        *(
            directory / "memory.limit_in_bytes"
            for directory in cgroup_directories(root, "sys/fs/cgroup/memory", "memory")
        ),
    ]
    limits = [read(file).strip() for file in files]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])
