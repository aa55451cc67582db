"""Parameters are checked where they are given; a handle names its threads, and closes without blocking a loop."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT
from support.stores import opened

import pykka_imagestore
from pykka_imagestore import InvalidInputError, LocalStore, Provisioner, ReferenceStore

WRONG_AT_START: list[tuple[dict[str, Any], str]] = [
    ({"workers": 0}, "workers is 0; it takes a whole number of processes, at least 1, or None"),
    ({"workers": "2"}, "workers is '2'"),
    ({"budget_bytes": "3G"}, "budget_bytes is '3G'; it takes a whole number of bytes, at least 0, or None"),
    ({"budget_bytes": -1}, "budget_bytes is -1"),
    ({"budget_inodes": 1.5}, "budget_inodes is 1.5; it takes a whole number of inodes"),
    ({"worker_memory_bytes": 0}, "worker_memory_bytes is 0; it takes a whole number of bytes, at least 1"),
    ({"layer_time_limit": 0}, "layer_time_limit is 0; it takes a number of seconds, more than 0, or None"),
    ({"archive_dir": 7}, "archive_dir is 7; it takes a path"),
    ({"archive_dir": ""}, "archive_dir is ''; it takes a path"),
    ({"durable": "no"}, "durable is 'no'; it takes True or False"),
    ({"limits": {"layers": 9}}, "limits is {'layers': 9}; it takes a Limits"),
    ({"pool": 4}, "pool is 4; it takes a WorkerPool, or None"),
]
WRONG_IN_A_CALL: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("put", [3], {}, "'3' is not an image name: it is no text"),
    ("put", [Path("dir/app.tar")], {}, "'dir/app.tar' is not an image name: it is a path; write put(name, archive)"),
    ("put", ["/dir/app.tar", "app:1"], {}, "'/dir/app.tar' is not an image name: it is a path"),
    ("put", ["./app.tar"], {}, "or load(archive)"),
    ("put", ["app", 3], {}, "archive is 3; it takes a path"),
    ("put", ["app"], {"sandbox": ""}, "sandbox is ''; it takes a path"),
    ("put", ["app"], {"select": 3}, "select is 3; it takes a str, or None"),
    ("put", ["app"], {"platform": b"linux/amd64"}, "platform is b'linux/amd64'; it takes a str, or None"),
    ("put", ["app"], {"progress": "bar"}, "progress is 'bar'; it takes a function of one argument, or None"),
    ("put", ["app"], {"lease": 1}, "lease is 1; it takes True or False"),
    ("load", [None], {}, "archive is None; it takes a path"),
    ("load", ["a.tar"], {"progress": 1}, "progress is 1"),
    ("get", ["app"], {"lease": "yes"}, "lease is 'yes'; it takes True or False"),
    ("take_over", [3], {}, "token is 3; it takes the token of a LeasedImage, a str"),
    ("prune", [], {"unused_for": -1}, "unused_for is -1; it takes a number of seconds, at least 0, or None"),
    ("prune", [], {"unused_for": "7d"}, "unused_for is '7d'; it takes a number of seconds"),
    ("prune", [], {"budget_bytes": "3G"}, "budget_bytes is '3G'; it takes a whole number of bytes"),
    ("prune", [], {"keep": "app"}, "keep is 'app'; it takes a list of image names"),
    ("prune", [], {"keep": 3}, "keep is '3'; it takes a list of image names"),
    ("prune", [], {"dry_run": 1}, "dry_run is 1; it takes True or False"),
    ("check", [], {"deep": "deep"}, "deep is 'deep'; it takes True or False"),
    ("repair", [], {"progress": 0}, "progress is 0"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG_AT_START, ids=lambda value: str(value)[:40])
def test_what_start_cannot_take_is_refused_at_once_and_starts_nothing(
    wrong: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    before = set(threading.enumerate())

    with pytest.raises(InvalidInputError, match=re.escape(sentence)):
        LocalStore.start(tmp_path / "store", **wrong)

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("start", [LocalStore.start, ReferenceStore.start])
@pytest.mark.parametrize("directory", ["", 3, None, b"store"])
def test_a_directory_that_is_no_path_is_refused(start: Any, directory: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"directory is .*; it takes a path"):
        start(directory)


def test_what_a_call_cannot_take_fails_its_future(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        for method, arguments, keywords, sentence in WRONG_IN_A_CALL:
            future = getattr(store, method)(*arguments, **keywords)

            assert sentence in str(future.recover(lambda failed: failed.error()).get(timeout=TIMEOUT)), method


def test_threads_bear_the_name_of_the_package(tmp_path: Path) -> None:
    before, names = set(threading.enumerate()), set()
    archive = docker_save(tmp_path / "a.tar", {"app:1": [layer({"a": b""})]})

    with LocalStore.start(tmp_path / "store", workers=1, budget_bytes=1 << 30) as store:
        progress = lambda _: names.add(threading.current_thread().name)  # noqa: E731
        store.put("app:1", archive, progress=progress).get(timeout=TIMEOUT)
        store.prune(budget_bytes=0).get(timeout=TIMEOUT)
        names |= {thread.name for thread in set(threading.enumerate()) - before}

    assert "imagestore-local-store" in names
    assert [name for name in names if not name.startswith("imagestore-")] == []


def test_an_async_with_closes_the_store_while_the_loop_goes_on(tmp_path: Path) -> None:
    may_close, threads = threading.Event(), []

    class SlowToClose(LocalStore):
        def close(self) -> None:
            threads.append(threading.current_thread())
            assert may_close.wait(TIMEOUT)  # the loop sets it: it is not blocked
            super().close()

    async def serve() -> None:
        async with SlowToClose.start(tmp_path / "store", workers=1) as store:
            assert await store.list() == ()
            asyncio.get_running_loop().call_later(0.05, may_close.set)

    asyncio.run(serve())

    assert threads != [threading.main_thread()]


def test_the_version_is_that_of_the_metadata_which_is_read_when_it_is_asked_for() -> None:
    assert pykka_imagestore.__version__ == version("pykka-imagestore")
    assert "__version__" in dir(pykka_imagestore)

    unasked = "import sys; from pykka_imagestore import LocalStore; print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", unasked], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("handle", [LocalStore, ReferenceStore])
@pytest.mark.parametrize("arguments", [(), ("dir",), (Path("dir"), None, None)], ids=len)
def test_handle_is_not_made_by_calling_its_class(handle: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=rf"{handle.__name__}\.start\(directory\) starts one"):
        handle(*arguments)
    with pytest.raises(TypeError, match=rf"{handle.__name__}\.start\(directory\) starts one"):
        handle(directory="dir")


def test_provisioner_is_started_on_a_store() -> None:
    anything: Any = Provisioner
    with pytest.raises(TypeError, match=r"Provisioner\.start\(store\) starts one"):
        anything("dir")


def test_handle_says_what_it_has_in_place_of_what_pykkas_actors_have(tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store") as store:
        anything: Any = store

        with pytest.raises(AttributeError, match=r"^'LocalStore' object has no attribute 'stop': close\(\) ends it$"):
            anything.stop()
        with pytest.raises(AttributeError, match="'proxy': its own methods return futures"):
            anything.proxy()
        with pytest.raises(AttributeError, match=r"^'LocalStore' object has no attribute 'push'$"):
            anything.push("app")
        assert not hasattr(store, "stop")


def test_handle_says_what_it_has_in_place_of_what_other_tools_have(tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store") as store, Provisioner.start(store) as provisioner:
        anything: Any = store
        something: Any = provisioner

        with pytest.raises(AttributeError, match=r"'images': list\(\) returns all"):
            anything.images()
        with pytest.raises(AttributeError, match=r"'inspect': config\(name\) returns an image's config"):
            anything.inspect("app")
        with pytest.raises(AttributeError, match=r"'provision': Provisioner\.start\(store\) has it"):
            anything.provision("box", "app")
        with pytest.raises(
            AttributeError, match=r"'Provisioner' object has no attribute 'remove': destroy\(container_id\)"
        ):
            something.remove("box")
        with pytest.raises(AttributeError, match=r"no attribute 'create': provision\(container_id, name\)"):
            something.create("box")
        with pytest.raises(AttributeError, match="no attribute 'get': provision returns a root file system"):
            something.get("box")
        with pytest.raises(AttributeError, match=r"^'Provisioner' object has no attribute 'inspect'$"):
            something.inspect("box")


def test_repr_of_a_store_tells_where_it_lies(tmp_path: Path) -> None:
    with LocalStore.start(tmp_path / "store") as store:
        assert repr(store) == f"<LocalStore at '{tmp_path}/store'>"
