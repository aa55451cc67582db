"""A program that uses a store at random, and logs what it asks and what it is answered; it may be killed at any time.

    python agent.py SPEC

SPEC is a file of JSON, see ``agents.Spec``. A line ``N`` on its input has each thread make N calls; then it says
``done``. At the end of its input it ends. Each line of the log is written at once, so what was answered is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from gallery import Gallery
from invariants import TIMEOUT, Violation, image_layers, require_whole
from seam import watched

from pykka_imagestore import ImageIncompleteError, LocalStore, NotFoundError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.leased_image import LeasedImage
from pykka_imagestore.runtime import WorkerDiedError, WorkerPool

NAMES = [f"app:{number}" for number in range(4)]


class Log:
    """Lines of JSON in a file, each there entirely once it is written. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, **line: object) -> None:
        os.write(self._file, f"{json.dumps({'time': time.monotonic(), **line})}\n".encode())


class User:
    """A thread that makes random calls, one after the other."""

    def __init__(self, store: LocalStore, directory: Path, gallery: Gallery, log: Log, key: str) -> None:
        self._store, self._directory, self._gallery, self._log = store, directory, gallery, log
        self._key, self._calls = key, 0
        self._draw = random.Random(key)
        self._leases: list[LeasedImage] = []

    def make_calls(self, number: int) -> None:
        try:
            for _ in range(number):
                self._make_call()
            for lease in self._leases:
                self._release(lease)
            self._leases.clear()
        except BaseException as error:  # noqa: BLE001 - the log tells of it
            self._log.write(violation=f"{error}", trace=traceback.format_exc())

    def _make_call(self) -> None:
        name = self._draw.choice(NAMES)
        match self._draw.randrange(10):
            case 0:
                self._ask("remove", name=name)
            case 1:
                self._ask("prune", keep=self._draw.sample(NAMES, 2), budget_bytes=self._draw.randrange(600_000))
            case 2:
                self._ask("prune")
            case 3:
                self._ask("get", name=name)
            case 4 | 5:
                if len(self._leases) == 2:
                    self._release(self._leases.pop(0))
                self._ask("lease", name=name)
            case _:
                self._ask("put", name=name, image=self._draw.choice(sorted(self._gallery.archives)))

    def _ask(self, what: str, **how: Any) -> None:
        self._calls += 1
        call = f"{self._key}-{self._calls}"
        self._log.write(call=call, what=what, **how)
        try:
            answer = getattr(self, f"_{what}")(**how)
        except ImageIncompleteError as error:
            answer = {"incomplete": str(error)}
        except NotFoundError:
            answer = {"shown": None}
        except WorkerDiedError:
            answer = {"failed": True}
        self._log.write(call=call, answer=answer)

    def _put(self, name: str, image: str) -> dict[str, object]:
        self._store.put(name, self._gallery.archives[image]).get(timeout=TIMEOUT)
        return {"made": True}

    def _remove(self, name: str) -> dict[str, object]:
        self._store.remove(name).get(timeout=TIMEOUT)
        return {"made": True}

    def _prune(self, **options: Any) -> dict[str, object]:
        pruned = self._store.prune(**options).get(timeout=TIMEOUT)
        return {"gone": [image.name for image in pruned.images]}

    def _get(self, name: str) -> dict[str, object]:
        return {"shown": self._gallery.name_of(self._store.get(name).get(timeout=TIMEOUT)) or "unknown"}

    def _lease(self, name: str) -> dict[str, object]:
        lease = self._store.get(name, lease=True).get(timeout=TIMEOUT)
        if self._draw.randrange(2):
            first, lease = lease, self._store.take_over(lease.token).get(timeout=TIMEOUT)
            first.release()
        self._look(lease)
        self._leases.append(lease)
        return {"shown": self._gallery.name_of(lease.image)}

    def _release(self, lease: LeasedImage) -> None:
        self._look(lease)
        lease.release()

    def _look(self, lease: LeasedImage) -> None:
        for diff_id, path in image_layers(self._directory, lease.image):
            try:
                require_whole(path, self._gallery.trees[diff_id])
            except (Violation, OSError) as error:
                raise Violation(f"while {lease.image.name} is leased: {error}") from error


def dawdle(*_: object) -> None:
    """Wait a little, now and then, before a call of the disk: others find more between two of them."""
    if random.random() < 0.3:
        time.sleep(random.uniform(0, 0.015))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    directory, gallery, log = Path(spec["directory"]), Gallery.load(Path(spec["gallery"])), Log(spec["log"])
    pool = WorkerPool(2, name="imagestore")
    for ready in [pool.run(remove_tree, str(directory / "nothing")) for _ in range(pool.workers)]:
        ready.get(timeout=TIMEOUT)  # a kill is to find workers at work, and not starting
    print("ready", flush=True)
    slowed = watched(dawdle, one_by_one=False) if spec["dawdles"] else contextlib.nullcontext()
    with slowed, LocalStore.start(directory, pool=pool) as store:
        users = [User(store, directory, gallery, log, f"{spec['seed']}-{n}") for n in range(spec["threads"])]
        for line in sys.stdin:
            threads = [threading.Thread(target=user.make_calls, args=[int(line)]) for user in users]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print("done", flush=True)


if __name__ == "__main__":
    main()
