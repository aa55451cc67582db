"""How much is tried, and from which seed."""

from __future__ import annotations

import os
import random

ROUNDS = int(os.environ.get("IMAGESTORE_CRASH_ROUNDS", "5"))


def new_chance() -> random.Random:
    """Return a source of chance; a test that fails prints its seed."""
    seed = int(os.environ.get("IMAGESTORE_CRASH_SEED") or random.randrange(1 << 32))
    print(f"IMAGESTORE_CRASH_SEED={seed}")
    return random.Random(seed)
