from __future__ import annotations
from rootfs_peers import Contestant

OURS: tuple[type[Contestant], ...] = ()


def measure_sandboxes():
    pass
