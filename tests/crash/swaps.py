"""A program that works as root in directories that another user changes all the time; ``test_swaps.py`` runs it.

    swaps.py DIRECTORY OPERATION SECONDS SEED

First of all, in a mount namespace of its own, DIRECTORY becomes a file system in memory, and all else that is mounted
read-only: what fails here deletes as root whatever it meets.

    DIRECTORY/1/2/3/4/5/6/loot    the other user's, to move things to; each directory above holds what must stay as it
    is DIRECTORY/1/2/3/work          where the operation works; directories below one called ``rootfs`` are open to
    everybody
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from support import tars
from support.images import docker_save
from support.layers import blob_of
from support.privileges import ORDINARY_USER
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore
from pykka_imagestore.errors import StoreError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer
from pykka_imagestore.rootfs.place import mount_entries
from pykka_imagestore.runtime import WorkerPool

CANNOT = 77  # what this program exits with where it cannot close everything else
MAX_LOOKS = 20
ATTACKERS = 3
EVIL = b"a program of the other user's"
ANOTHER = 4242
NODES = ("/fifo", "/null")
# File systems without files that anybody would miss, some of which cannot be made read-only.
_PSEUDO = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "nsfs"}


# -- what is at stake


def confine(directory: str) -> None:
    """Leave nothing that can be written to, save a new file system in ``directory``."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755,size=1g,nr_inodes=400k", "none", directory)
    for _ in range(MAX_LOOKS):  # what another test has mounted may be moved, or come off, at any time
        points = [mount.point for mount in mount_entries().values() if mount.kind not in _PSEUDO]
        if all(is_closed(point) for point in points if point != directory):
            return
    print("other tests mount and unmount all the time")
    sys.exit(CANNOT)


def is_closed(point: str) -> bool:
    """Make a mount read-only; tell whether it was there."""
    with contextlib.suppress(subprocess.CalledProcessError):
        run("mount", "-o", "remount,bind,ro", point)
    try:
        flags = os.statvfs(point).f_flag
    except FileNotFoundError:
        return False
    if not flags & os.ST_RDONLY:
        print(f"{point} stays writable")
        sys.exit(CANNOT)
    return True


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)


class Witnesses:
    """Files and directories of root's and another user's that nobody here has any business with."""

    def __init__(self, directory: Path) -> None:
        way = [directory, *(directory / "/".join("123456"[:depth]) for depth in range(1, 7))]
        self.loot, self.work = way[-1] / "loot", way[3] / "work"
        for above in way:
            above.mkdir(exist_ok=True)
            for owner in (0, ANOTHER):
                self._make(above / f"of-{owner}", owner)
        self._directories = way
        self.work.mkdir()
        self.loot.mkdir()
        os.chown(self.loot, ORDINARY_USER, ORDINARY_USER)
        self._before = self._look()

    def targets(self) -> list[str]:
        """Return what symlinks could lead to."""
        return [str(path) for path in self._before] + ["..", "../..", "../../../..", ".", "/"]

    def differences(self) -> list[str]:
        """Return what is not as it was."""
        now = self._look()
        return sorted(str(path) for path in self._before.keys() | now.keys() if self._before.get(path) != now.get(path))

    def gifts(self) -> list[str]:
        """Return the programs of the other user that got a privilege."""
        found = []
        for directory, _, names in os.walk(self._directories[0]):
            found += [path for name in names if is_gift(path := os.path.join(directory, name))]
        return found

    def _make(self, directory: Path, owner: int) -> None:
        directory.mkdir(mode=0o755)
        (directory / "private").write_bytes(b"private")
        (directory / "private").chmod(0o600)
        (directory / "directory").mkdir()
        (directory / "directory" / "file").write_bytes(b"x")
        (directory / "link").symlink_to("private")
        for path in (directory, *directory.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)

    def _look(self) -> dict[Path, object]:
        seen: dict[Path, object] = {}
        for above in self._directories:
            seen[above] = (
                sorted(set(os.listdir(above)) - {"work", "loot"}),
                (above.lstat().st_mode, above.lstat().st_uid),
            )
            for path in sorted(above.glob("of-*/**/*")):
                status = path.lstat()
                body = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                seen[path] = status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, body
        return seen


def is_gift(path: str) -> bool:
    """Tell whether something is a program of the other user's that would run as somebody else."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or os.read(file, len(EVIL)) != EVIL:
            return False
        may = status.st_mode & stat.S_ISUID and status.st_uid != ORDINARY_USER
        return bool(may or "security.capability" in os.listxattr(file))
    finally:
        os.close(file)


# -- the other user


class Attacker:
    """Exchanges, moves, fills and puts back whatever he can, all the time."""

    def __init__(self, work: Path, loot: Path, targets: list[str], seed: int) -> None:
        self._draw = random.Random(seed)
        self._work, self._loot, self._targets = str(work), str(loot), targets
        self._nodes: list[str] = []  # where fifos and devices were seen
        self._count = 0

    def move(self) -> None:
        """Do one thing."""
        self._count += 1
        victim = self._pick()
        away = f"{self._loot}/{os.getpid()}-{self._count}"
        kind = self._draw.random()
        if kind < 0.1:
            self._fill(victim)
        elif kind < 0.3 and self._nodes:
            self._ambush(self._draw.choice(self._nodes), away)
        elif kind < 0.4:
            os.rename(victim, self._pick())
        elif kind < 0.5:
            taken = self._draw.choice(os.listdir(self._loot))
            os.rename(f"{self._loot}/{taken}", victim)
        else:
            os.rename(victim, away)
            self._put(victim)
            if self._draw.random() < 0.5:
                with contextlib.suppress(OSError):
                    os.unlink(victim)
                os.rename(away, victim)

    def _pick(self) -> str:
        path = self._work
        for _ in range(self._draw.choice([3, 4, 5, 6, 8, 12, 30])):
            try:
                names = os.listdir(path)
            except OSError:
                break
            if not names:
                break
            path += "/" + self._draw.choice(names)
        if path.endswith(NODES) and len(self._nodes) < 100:
            self._nodes.append(path)
        return path

    def _ambush(self, path: str, away: str) -> None:
        """Wait for a node to be made, and put a symlink there before it gets its mode."""
        for _ in range(3000):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, away)
                os.symlink(self._targets[self._draw.randrange(10)], path)
                return

    def _put(self, path: str) -> None:
        kind = self._draw.randrange(6)
        if kind < 2:
            os.symlink(self._draw.choice(self._targets), path)
        elif kind == 2:
            os.mkfifo(path)
        elif kind == 3:
            os.makedirs(path + "/a/b")
        else:
            with open(path, "xb") as program:
                program.write(EVIL)
            os.chmod(path, 0o4755)

    def _fill(self, directory: str) -> None:
        for number in range(20):
            os.mkdir(f"{directory}/{number}") if number % 2 else os.symlink(self._targets[0], f"{directory}/{number}")


def start_attacker(attacker: Attacker, counts: mmap.mmap, number: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setresgid(*[ORDINARY_USER] * 3)
        os.setresuid(*[ORDINARY_USER] * 3)
        moves = 0
        while os.getppid() == parent:
            with contextlib.suppress(OSError, IndexError):
                attacker.move()
                moves += 1
                counts[8 * number : 8 * number + 8] = moves.to_bytes(8, "little")
    finally:
        os._exit(0)


def open_to_all(directory: int, *, is_rootfs: bool = False) -> None:
    """Let everybody into a directory, and into all below one called ``rootfs``; those are there to be attacked."""
    os.fchmod(directory, 0o777 if is_rootfs else 0o755)
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                open_to_all(below, is_rootfs=is_rootfs or name == "rootfs")
            finally:
                os.close(below)


def keep_open(work: Path, ended: threading.Event) -> None:
    directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    while not ended.is_set():
        with contextlib.suppress(OSError, RecursionError):
            open_to_all(directory)
        time.sleep(0.001)
    os.close(directory)


# -- what is attacked


def attacked_layer() -> bytes:
    """Return a layer with something of each kind, most of it given to the other user."""
    his: dict[str, Any] = {"uid": ORDINARY_USER, "gid": ORDINARY_USER}
    parts = []
    for top in (b"a", b"b", b"c"):
        deep = b"/".join([top, *[b"d"] * 24])
        parts += [tars.directory(top, mode=0o777, **his), tars.directory(deep, mode=0o777, **his)]
        parts += [tars.file(deep + b"/%d" % number, b"x" * 40, **his) for number in range(10)]
        for number in range(12):
            directory = b"%s/f%d" % (top, number)
            parts.append(tars.directory(directory, mode=0o1777, **his))
            parts += [tars.file(b"%s/%d" % (directory, name), b"x" * 100, mode=0o4755) for name in range(8)]
            parts.append(tars.pax({b"SCHILY.xattr.security.capability": b"\1\0\0\2\0\4\0\0" + bytes(12)}))
            parts += [
                tars.file(directory + b"/able", b"x", mode=0o755),
                tars.header(directory + b"/fifo", tars.FIFO, mode=0o4666),
            ]
            parts.append(tars.header(directory + b"/null", tars.CHARACTER_DEVICE, mode=0o4666, major=1, minor=3, **his))
            parts += [tars.symlink(directory + b"/s", b"../f0", **his), tars.file(directory + b"/s/through%d" % number)]
            parts += [tars.hard_link(directory + b"/hard", directory + b"/0"), tars.whiteout(directory + b"/gone")]
        parts += [tars.file(top + b"/f1", b"in place of a directory"), tars.directory(top + b"/f2/0", mode=0o777)]
    return tars.tar(*parts)


class Operations:
    """One round of each thing that root does here. Errors of ours and of the disk are fine."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._layer = attacked_layer()
        self._target = str(work / "target")
        self._store: LocalStore | None = None
        (work / "given").mkdir()
        self._blob = blob_of(self._layer, work / "given")
        self._archive = docker_save(work / "given" / "image.tar", {"it:1": [self._layer]})
        self.ends: Counter[str] = Counter()

    def round_of(self, operation: str) -> None:
        getattr(self, f"_{operation}")()

    def _try(self, what: str, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except (StoreError, OSError) as error:
            self.ends[f"{what}: {type(error).__name__}"] += 1
        else:
            self.ends[f"{what}: done"] += 1

    def _unpack(self) -> None:
        self._try("unpack", untar_layer, UntarLayer(self._blob, self._target))
        self._try("removal", remove_tree, self._target)

    def _removal(self) -> None:
        rootfs, made = self._work / "rootfs", self._work / "given" / "made"  # where only root writes
        for number in range(30):
            deep = made / str(number) / "/".join(["d"] * (number * 2))
            deep.mkdir(parents=True)
            for name in range(60):
                (deep / str(name)).touch()
        with contextlib.suppress(OSError):  # what could not be removed is there yet
            made.rename(rootfs)
        with ThreadPoolExecutor(2) as threads:
            for _ in range(2):
                threads.submit(self._try, "removal", remove_tree, str(rootfs))

    def _put(self) -> None:
        with ThreadPoolExecutor(2) as threads:
            pool = WorkerPool(executor=threads)
            with LocalStore.start(self._work / "store", durable=False, pool=pool) as store:
                self._try("put", partial(store.put("it:1", self._archive).get, timeout=TIMEOUT))
                self._try("repair", partial(store.repair(deep=True).get, timeout=TIMEOUT))
                self._try("remove", partial(store.remove("it:1").get, timeout=TIMEOUT))
                self._try("prune", partial(store.prune().get, timeout=TIMEOUT))


def main(directory: str, operation: str, seconds: float, seed: int) -> None:
    confine(directory)
    os.mkdir(f"{directory}/tmp")
    tempfile.tempdir = os.environ["TMPDIR"] = f"{directory}/tmp"
    witnesses = Witnesses(Path(directory))
    operations = Operations(witnesses.work)
    counts, ended, draw = mmap.mmap(-1, 8 * ATTACKERS), threading.Event(), random.Random(seed)
    pids = [
        start_attacker(
            Attacker(witnesses.work, witnesses.loot, witnesses.targets(), draw.getrandbits(32)), counts, number
        )
        for number in range(ATTACKERS)
    ]
    opener = threading.Thread(target=keep_open, args=(witnesses.work, ended))
    opener.start()
    rounds, end, wrong = 0, time.monotonic() + seconds, list[str]()
    try:
        while time.monotonic() < end and not wrong:
            signal.alarm(int(TIMEOUT))  # which ends a round that hangs, and this program
            operations.round_of(operation)
            wrong = witnesses.differences()
            rounds += 1
            if rounds % 10 == 0:
                wrong += witnesses.gifts()
                clear(witnesses.loot)
        wrong += witnesses.gifts()
    finally:
        signal.alarm(0)
        ended.set()
        opener.join()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    moves = sum(int.from_bytes(counts[8 * number : 8 * number + 8], "little") for number in range(ATTACKERS))
    print(json.dumps({"rounds": rounds, "moves": moves, "wrong": wrong, "ends": operations.ends}))


def clear(loot: Path) -> None:
    """Make room, as far as the other user lets us."""
    for name in os.listdir(loot):
        with contextlib.suppress(StoreError, OSError):
            remove_tree(str(loot / name))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
