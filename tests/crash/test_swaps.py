"""Another user swaps directories, symlinks and fifos in what root unpacks, removes, puts and repairs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import swaps
from support.processes import TIMEOUT

SECONDS = float(os.environ.get("IMAGESTORE_SWAP_SECONDS", "3"))  # for each operation
PROGRAM = Path(swaps.__file__)


@pytest.mark.root
@pytest.mark.parametrize("operation", ["unpack", "removal", "put"])
def test_whoever_swaps_what_root_works_on_reaches_nothing_else(
    users_directory: Path, draw: random.Random, count: Callable[..., None], operation: str
) -> None:
    arguments = [str(users_directory), operation, str(SECONDS), str(draw.getrandbits(32))]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, str(PROGRAM), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS + 2 * TIMEOUT,
        check=False,
    )

    if done.returncode == swaps.CANNOT or "unshare failed" in done.stderr:
        pytest.skip(f"this machine does not let a program close all that is not its own: {done.stdout}{done.stderr}")
    assert done.returncode == 0, done.stderr  # -14, SIGALRM: a round did not end
    told = json.loads(done.stdout)
    print(told)
    assert told["wrong"] == []
    assert told["rounds"] > 0
    assert told["moves"] > 0
    count("swaps", told["moves"])
