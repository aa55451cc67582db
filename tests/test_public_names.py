from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import TIMEOUT

import pykka_imagestore


def test_every_public_name_is_there() -> None:
    found = [getattr(pykka_imagestore, name) for name in pykka_imagestore.__all__]

    assert [each.__name__ for each in found] == pykka_imagestore.__all__
    assert set(pykka_imagestore.__all__) <= set(dir(pykka_imagestore))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'pykka_imagestore' has no attribute 'Nothing'"):
        _ = pykka_imagestore.Nothing


def test_importing_the_store_imports_none_of_what_its_tasks_need() -> None:
    program = "import sys; from pykka_imagestore import LocalStore; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT)

    imported = set(done.stdout.split())
    unwanted = ("pykka_imagestore.jobs.", "pykka_imagestore.rootfs", "pykka_imagestore.provision")
    assert {name for name in imported if name.startswith(unwanted)} == set()
    assert not imported & {"isal", "backports.zstd", "bz2", "lzma", "multiprocessing", "rich", "importlib.metadata"}
