from __future__ import annotations

from pathlib import Path

import pytest

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.layout import make_store


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    """Return the paths of an empty store."""
    paths = StorePaths(tmp_path / "store")
    make_store(paths, Disk())
    return paths
