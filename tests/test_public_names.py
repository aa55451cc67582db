from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


# Of the standard library, what a program pays for that only imports the store, in milliseconds each.
SLOW = {"asyncio", "ctypes", "hashlib", "importlib.metadata", "json", "multiprocessing", "secrets", "socket"}


def test_importing_the_store_imports_none_of_what_it_needs_later() -> None:
    program = "import sys; from pykka_imagestore import LocalStore; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT)

    imported = set(done.stdout.split())
    unwanted = ("pykka_imagestore.jobs.", "pykka_imagestore.rootfs", "pykka_imagestore.provision")
    assert {name for name in imported if name.startswith(unwanted)} == set()
    assert not imported & {"isal", "backports.zstd", "bz2", "lzma", "google.protobuf", "rich", "subprocess", *SLOW}
    assert not imported & {f"pykka_imagestore.core.{name}" for name in ("events", "usage")}


def test_starting_a_store_imports_no_task(tmp_path: Path) -> None:
    start = f"LocalStore.start({str(tmp_path)!r}).close()"
    program = f"import sys; from pykka_imagestore import LocalStore; {start}; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT)

    ours = {name.removeprefix("pykka_imagestore.jobs") for name in done.stdout.split() if ".jobs." in name}
    assert ours == {".answers", ".answers.allowlist"}


def test_starting_a_provisioner_imports_no_backend_that_is_not_used(tmp_path: Path) -> None:
    start = f"with LocalStore.start({str(tmp_path)!r}) as store: Provisioner.start(store).close()"
    program = f"import sys; from pykka_imagestore import LocalStore, Provisioner\n{start}\nprint(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT)

    ours = {name.removeprefix("pykka_imagestore.rootfs.") for name in done.stdout.split() if ".rootfs." in name}
    assert not ours & {"bind", "copy", "link", "overlay"}
