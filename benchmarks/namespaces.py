"""Go on in namespaces of our own for mounts and processes: however a run ends, it leaves no mount and no daemon."""

from __future__ import annotations

import os
import subprocess
import sys

_MARK = "IMAGESTORE_BENCHMARK_IS_ALONE"
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")


def go_alone() -> None:
    """Start this program anew, alone with what it mounts and starts; returns only there.

    Raises:
        SystemExit: This user may not: only root may mount file systems on loop devices.
    """
    if _MARK in os.environ:
        return
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or tried.returncode != 0:
        sys.exit(f"{sys.argv[0]}: it needs root, with namespaces of its own for mounts and processes. {tried.stderr}")
    sys.stdout.flush()
    os.execvpe(_UNSHARE[0], [*_UNSHARE, sys.executable, *sys.argv], {**os.environ, _MARK: "1"})
