"""Who has which container: ``containers/<id>/`` with its record, there entirely or not at all.

A container is made in the staging directory of its process, where it has its record and nothing else, and is renamed
into place while nobody looks for what is needed; see ``durable/leases.py``. Only then its layers are looked for, so
that what is seen then stays. The lock in that staging directory tells, for as long as it is held, that the process is
alive: no other process touches its containers meanwhile.

A container goes as it came: in one rename, into gc/, with its record.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from pykka_imagestore import _proto
from pykka_imagestore.core.checksum import checksum_fault, with_checksum
from pykka_imagestore.core.container import Container, ContainerInfo, is_container_id
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.paths import CONTAINER_RECORD, LOCK, ROOTFS, StorePaths
from pykka_imagestore.core.store_names import is_random_name
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.files import create_file, make_directory, read_file
from pykka_imagestore.durable.layout import remove_staging, require_directory
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.locks import acquire, is_locked, locked
from pykka_imagestore.durable.messages import parse_message
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.reserve import in_reserve
from pykka_imagestore.errors import (
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerRecordError,
    MisplacedFileError,
    StateError,
)

_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})
_NAME = "container.{}"  # what a container's directory is called in staging/ and gc/
_BLOCK = 4096  # bytes of a file, at its beginning, that are written together or not at all
_MAX_RECORD = 1 << 20  # bytes: 500 DiffIDs take 37 KB, and a path 4
_MODE = 0o700  # what a container's upper directory holds is whoever's ran there, with set-user-ID programs


class Holder(Uncopyable):
    """What says that this process is alive, and has containers; they are made in it. Thread-safe."""

    instead = "start a provisioner there"

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk
        self._directory = LockedDirectory.below(paths.staging, paths.guard(paths.staging))
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_made = False

    @property
    def name(self) -> str:
        """What records name it by."""
        return self._directory.path.name

    def begin(self, container: Container) -> None:
        """Have a container, with its record and nothing else; from now on what it needs stays. Durable on return.

        Whether what it needs is there is to be looked at afterwards.

        Raises:
            ContainerExistsError: There is one of that id.
            OSError: The disk failed; nothing is left.
        """
        self._make()
        made = self._directory.path / _NAME.format(next(self._numbers))
        try:
            make_directory(made, _MODE)
            record = create_file(made / CONTAINER_RECORD, 0o644)
            try:
                self._write(record, _to_bytes(container))
                self._publish(made, container.container_id, record)
            finally:
                os.close(record)
        except BaseException:
            _remove(made)
            raise

    def take_over(self, container: Container) -> None:
        """Have a container whose process has ended. Durable on return."""
        in_reserve(self._paths, self._make)
        in_reserve(self._paths, lambda: self.rewrite(replace(container, holder=self.name)))

    def rewrite(self, container: Container) -> None:
        """Record something else of a container that this process has. Durable on return."""
        record = self._paths.container(container.container_id) / CONTAINER_RECORD
        write_whole(record, _to_bytes(container), self._disk, aside=record.with_name(f"{CONTAINER_RECORD}.new"))

    def release(self) -> None:
        """Have no containers any more: they stay, and are anybody's who recovers them. Idempotent."""
        with self._lock:
            self._is_made = True
            if self._directory.opened is not None:
                with suppress(OSError):
                    remove_staging(self._directory.path)
            self._directory.release()

    def _make(self) -> None:
        with self._lock:
            if not self._is_made:
                require_directory(self._paths.containers)
                self._disk.sync_directory(self._paths.root)
                self._directory.make()
                self._is_made = True

    def _write(self, record: int, data: bytes) -> None:
        is_torn_by_power_cuts = len(data) > _BLOCK
        while data:
            data = data[os.write(record, data) :]
        if is_torn_by_power_cuts:
            self._disk.sync_data(record)

    def _publish(self, made: Path, container_id: str, record: int) -> None:
        target = self._paths.container(container_id)
        try:
            with locked(self._paths.leases_lock, shared=True):
                self._disk.rename(made, target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise ContainerExistsError(container_id, str(self._paths.root)) from error
        try:
            # Only now, so that a file system with a journal writes that once, for the record and for its name. A power
            # cut before leaves the name with a record that is whole, or empty, or all zeros, which tells of nothing.
            self._disk.sync_placed(target, record)  # commit point: the container is there
        except BaseException:
            _remove(target)
            raise


class RemovedContainers:
    """Takes containers out into a directory below gc/, one for all that go within a moment. Thread-safe."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: LockedDirectory | None = None

    def take(self, container_id: str) -> None:
        """Rename a container out of the store; nothing of it may be mounted or used any more.

        Not synced: a power cut may bring it back, and it is not believed then, as any of an earlier start.

        Raises:
            ContainerNotFoundError: It is not there, or not any more.
        """
        with self._lock:
            if self._waiting is None:
                waiting = LockedDirectory.below(self._paths.gc, self._paths.guard(self._paths.gc))
                in_reserve(self._paths, waiting.make)
                self._waiting = waiting
            target = self._waiting.path / _NAME.format(next(self._numbers))
            rename = partial(self._disk.rename, self._paths.container(container_id), target)
            try:
                in_reserve(self._paths, rename)  # commit point: the container is gone
            except FileNotFoundError as error:
                raise ContainerNotFoundError(container_id, str(self._paths.root)) from error

    def give(self) -> LockedDirectory | None:
        """Return the directory with all that was taken out so far, to be deleted; what comes goes to another."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
            return waiting


class ContainerTable:
    """The containers of a store by id, as their records are now; a record that has not changed is read once."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._known: dict[str, tuple[tuple[int, ...], Container | None]] = {}

    def read(self, *, all_readable: bool = True) -> dict[str, Container]:
        """Return all containers.

        Args:
            all_readable: Whether a record that cannot be read is an error; else its container is left out.

        Raises:
            ContainerRecordError: A record cannot be read.
        """
        known = {}
        for container_id in find_container_ids(self._paths):
            try:
                found = self._find(container_id)
            except ContainerRecordError:
                if all_readable:
                    raise
                continue
            if found is not None:
                known[container_id] = found
        self._known = known
        return {container_id: container for container_id, (_, container) in known.items() if container is not None}

    def needs(self) -> Needs:
        """Return what all of them need. The exclusive lock on leases is held.

        Raises:
            ContainerRecordError: A record cannot be read, so it is not known what is needed.
        """
        needs = [container.needs for container in self.read().values()]
        return Needs(
            frozenset().union(*(each.layers for each in needs)), frozenset().union(*(each.configs for each in needs))
        )

    def _find(self, container_id: str) -> tuple[tuple[int, ...], Container | None] | None:
        path = self._paths.container(container_id) / CONTAINER_RECORD
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        identity = status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
        known = self._known.get(container_id)
        if known is not None and known[0] == identity:
            return known
        return identity, read_container(self._paths, container_id)


def find_container_ids(paths: StorePaths) -> list[str]:
    """Return the ids of all containers, sorted; those that are half made, or half gone, too."""
    with told_if_foreign(paths.root):
        try:
            names = os.listdir(paths.containers)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
    return sorted(filter(is_container_id, names))


def read_container(paths: StorePaths, container_id: str) -> Container | None:
    """Return what is recorded of a container; None if there is nothing, as of one that a power cut undid.

    Raises:
        ContainerRecordError: The record is damaged, or something else is there.
    """
    path = paths.container(container_id) / CONTAINER_RECORD
    try:
        data = read_file(path, _MAX_RECORD + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except MisplacedFileError as error:
        raise ContainerRecordError(str(path), str(error)) from error
    if len(data) > _MAX_RECORD:
        raise ContainerRecordError(str(path), f"it has more than {_MAX_RECORD} bytes, and no ContainerRecord has")
    if not any(data):
        return None  # the power failed before it lasted: not every container is synced
    return _from_bytes(path, container_id, data)


def find_containers(paths: StorePaths) -> tuple[ContainerInfo, ...]:
    """Return all containers, to be shown; one whose record cannot be read is left out."""
    is_held = functools.cache(partial(is_holder_alive, paths))
    return tuple(_shown(paths, container, is_held(container.holder)) for container in _readable(paths))


def is_holder_alive(paths: StorePaths, holder: str) -> bool:
    """Tell whether the process is alive whose directory in staging/ is called so."""
    return is_random_name(holder) and is_locked(paths.staging / holder / LOCK)


@contextmanager
def containers_locked(paths: StorePaths) -> Iterator[None]:
    """Have nobody else adopt or remove containers of processes that have ended, of all processes; waits for it."""
    lock = in_reserve(paths, partial(acquire, paths.containers_lock))
    try:
        yield
    finally:
        lock.release()


@functools.cache
def boot_id() -> str:
    """Return what tells this start of the machine from all others; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _readable(paths: StorePaths) -> Iterator[Container]:
    for container_id in find_container_ids(paths):
        with suppress(StateError):
            container = read_container(paths, container_id)
            if container is not None:
                yield container


def _shown(paths: StorePaths, container: Container, is_held: bool) -> ContainerInfo:
    path = None
    if container.attached:
        path = container.target or str(paths.container(container.container_id) / ROOTFS)
    return ContainerInfo(
        container_id=container.container_id,
        image=container.image,
        backend=container.backend,
        path=path,
        read_only=container.read_only,
        owner=container.owner,
        created=container.created,
        is_held=is_held,
    )


def _to_bytes(container: Container) -> bytes:
    record = _proto.ContainerRecord(
        container_id=container.container_id,
        image=container.image,
        layer_ids=container.layer_ids,
        config_digest=container.config_digest,
        stack=container.stack,
        backend=container.backend,
        read_only=container.read_only,
        attached=container.attached,
        target=None if container.target is None else os.fsencode(container.target),
        upper_bytes=container.upper_bytes,
        project=container.project,
        owner=container.owner,
        holder=container.holder,
        created=container.created,
        boot=container.boot,
        is_filled=container.is_filled,
        for_runtime=container.for_runtime,
    )
    return with_checksum(record.SerializeToString())


def _from_bytes(path: Path, container_id: str, data: bytes) -> Container:
    try:
        record = parse_message(_proto.ContainerRecord, data)
    except ValueError as error:
        raise ContainerRecordError(str(path), f"it is no ContainerRecord: {error}") from error
    fault = checksum_fault(data, record.checksum)
    if fault is None and record.container_id != container_id:
        fault = f"it is the record of {record.container_id!r}"
    digests = [*record.layer_ids, *([record.config_digest] if record.config_digest else [])]
    if fault is None and not all(map(is_sha256, digests)):
        fault = "it names what is no digest"
    if fault is not None:
        raise ContainerRecordError(str(path), fault)
    return Container(
        container_id=container_id,
        image=record.image,
        layer_ids=tuple(map(DiffID, record.layer_ids)),
        config_digest=Digest(record.config_digest) if record.config_digest else None,
        backend=record.backend,
        owner=record.owner,
        holder=record.holder,
        created=record.created,
        boot=record.boot,
        stack=record.stack or None,
        read_only=record.read_only,
        attached=record.attached,
        target=os.fsdecode(record.target) if record.HasField("target") else None,
        upper_bytes=record.upper_bytes if record.HasField("upper_bytes") else None,
        project=record.project if record.HasField("project") else None,
        is_filled=record.is_filled,
        for_runtime=record.for_runtime,
    )


def _remove(directory: Path) -> None:
    """Remove a container's directory that has its record and nothing else."""
    with suppress(OSError):
        (directory / CONTAINER_RECORD).unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()
