"""A lease is one of a kind: it is never copied, and handed on to another process by name."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT, Program

from pykka_imagestore import (
    ImageInfo,
    InvalidInputError,
    LeasedImage,
    LeaseEndedError,
    LocalStore,
    ReferenceStore,
)
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.leases import take_lease

LAYERS = [layer({"etc/os-release": b"ID=test\n"}), layer({"app": b"a" * 10_000})]
COPIES = [copy.copy, copy.deepcopy, pickle.dumps]
PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pykka_imagestore import LeaseEndedError, LocalStore
from pykka_imagestore.runtime import WorkerPool
store = LocalStore.start(sys.argv[1], durable=False, pool=WorkerPool(executor=ThreadPoolExecutor(1)))
for line in sys.stdin:
    verb, *words = line.split()
    if verb == "release":
        leased.release()
        print("released", flush=True)
        continue
    try:
        leased = store.take_over(*words).get() if verb == "take" else store.get(*words, lease=True).get()
        print(leased.token, leased.image.name, *(layer.path for layer in leased.image.layers), flush=True)
    except LeaseEndedError as error:
        print(error, flush=True)
"""


@pytest.fixture
def image(store: LocalStore, tmp_path: Path) -> ImageInfo:
    # A layer twice: what is taken over has the layers in their order, and as often as the image has them.
    archive = docker_save(tmp_path / "app.tar", {"app": [*LAYERS, LAYERS[0]]})
    return store.put("app", archive).get(timeout=TIMEOUT)


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    return StorePaths(tmp_path / "store")


def ask(program: Program, text: str) -> str:
    program.tell(text)
    return program.line()


def prune_all(store: LocalStore) -> int:
    """Prune all that can be; return how many layers are left."""
    store.prune(budget_bytes=0).get(timeout=TIMEOUT)
    return len(store.usage().get(timeout=TIMEOUT).layers)


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("part", ["leased image", "held lease", "lock"])
def test_a_lease_is_not_copied_and_stays_as_it_is(
    store: LocalStore, make_copy: Callable[[object], object], part: str
) -> None:
    leased = store.get("app", lease=True).get(timeout=TIMEOUT)
    lease = leased._lease
    what = {"leased image": leased, "held lease": lease, "lock": lease._lock}[part]

    with pytest.raises(TypeError, match=r"cannot be copied or pickled: it belongs to this process; \w+"):
        make_copy(what)

    assert prune_all(store) == 2
    leased.release()
    assert prune_all(store) == 0


@pytest.mark.parametrize("make_copy", COPIES)
def test_a_handle_says_what_to_do_instead_of_copying_it(
    store: LocalStore, tmp_path: Path, make_copy: Callable[[object], object]
) -> None:
    with ReferenceStore.start(tmp_path / "store") as references:
        for handle in (store, references):
            with pytest.raises(TypeError, match="start one in each process, on the same directory"):
                make_copy(handle)


def test_a_lease_is_taken_over_by_another_process_and_released_by_the_first(
    store: LocalStore, image: ImageInfo, paths: StorePaths
) -> None:
    with Program(PROGRAM, paths.root) as giver, Program(PROGRAM, paths.root) as taker:
        token = ask(giver, "lease app").split()[0]
        store.remove("app").get(timeout=TIMEOUT)
        assert prune_all(store) == 2

        own, name, *layers = ask(taker, f"take {token}").split()
        assert ask(giver, "release") == "released"

        assert prune_all(store) == 2
        assert (name, layers) == ("app:latest", [str(layer.path) for layer in image.layers])
        assert own != token
        assert [lease.process for lease in store.usage().get(timeout=TIMEOUT).leases] == [taker.process.pid]
        assert ask(taker, "release") == "released"
        assert prune_all(store) == 0


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("end", ["release", "kill"])
def test_a_lease_that_has_ended_is_not_taken_over(store: LocalStore, paths: StorePaths, end: str) -> None:
    with Program(PROGRAM, paths.root) as giver:
        token = ask(giver, "lease app").split()[0]
        if end == "kill":
            giver.kill()
        else:
            ask(giver, "release")

        with pytest.raises(LeaseEndedError, match=f"nobody holds the lease {token} in {paths.root}"):
            store.take_over(token).get(timeout=TIMEOUT)

    assert store.usage().get(timeout=TIMEOUT).leases == ()
    assert prune_all(store) == 0


@pytest.mark.usefixtures("image")
def test_a_lease_goes_on_from_one_process_to_the_next_and_back(store: LocalStore, paths: StorePaths) -> None:
    leased = store.get("app", lease=True).get(timeout=TIMEOUT)
    with Program(PROGRAM, paths.root) as other:
        theirs = ask(other, f"take {leased.token}").split()[0]
        leased.release()
        ours = store.take_over(theirs).get(timeout=TIMEOUT)
        other.kill()

        assert prune_all(store) == 2
        assert ours.image == leased.image
        ours.release()
        assert prune_all(store) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("image")
def test_a_forked_child_has_no_lease_and_the_token_of_its_parents(store: LocalStore, paths: StorePaths) -> None:
    leased = store.get("app", lease=True).get(timeout=TIMEOUT)
    used = paths.config(str(leased.image.config_digest))
    os.utime(used, (1000, 1000))
    pid = os.fork()
    if not pid:
        leased.release()
        os._exit(0 if len(leased.token) == 16 else 1)

    assert os.waitpid(pid, 0)[1] == 0
    assert prune_all(store) == 2
    assert used.stat().st_mtime == 1000
    leased.release()


@pytest.mark.parametrize("wrong", ["", ".", "..", "/etc/passwd", "../layers", "0123456789ABCDEF", "0123456789abcde"])
def test_what_is_no_token_is_refused(store: LocalStore, wrong: str) -> None:
    for token in (wrong, *(f"0123456789abcdef{more}" for more in ("0", "\n", "/", "\0", "/..", "x" * 1_000_000))):
        with pytest.raises(InvalidInputError, match="is no token of a lease: those have 16 hexadecimal digits"):
            store.take_over(token).get(timeout=TIMEOUT)


@pytest.mark.usefixtures("image")
def test_what_lies_among_the_leases_and_is_none_of_an_image_is_not_taken_over(
    store: LocalStore, paths: StorePaths, tmp_path: Path
) -> None:
    (paths.leases / "1111111111111111").write_bytes(b"")
    (paths.leases / "2222222222222222").symlink_to(tmp_path / "app.tar")
    (paths.leases / "3333333333333333").mkdir()
    of_a_put = take_lease(paths, [], None, "put of other")

    for name in (*os.listdir(paths.leases), "4444444444444444"):
        with pytest.raises(LeaseEndedError):
            store.take_over(name).get(timeout=TIMEOUT)

    of_a_put.release()
    (paths.leases / "3333333333333333").rmdir()


@pytest.mark.usefixtures("image")
def test_no_layer_goes_while_a_lease_is_handed_on_beside_prunes(store: LocalStore) -> None:
    stop = threading.Event()

    def prune() -> None:
        while not stop.is_set():
            store.prune(budget_bytes=0).get(timeout=TIMEOUT)

    leased: LeasedImage = store.get("app", lease=True).get(timeout=TIMEOUT)
    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        for _ in range(200):
            taken = store.take_over(leased.token).get(timeout=TIMEOUT)
            leased.release()
            assert all(layer.path.is_dir() for layer in taken.image.layers)
            leased = taken
    finally:
        stop.set()
        pruner.join(TIMEOUT)
    leased.release()
    assert prune_all(store) == 0
