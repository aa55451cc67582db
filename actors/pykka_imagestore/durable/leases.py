"""Who needs which layers and config: ``leases/<random>``, a LeaseRecord each, locked for as long as it counts.

A process that takes a lease holds ``locks/leases`` shared meanwhile, and only then looks whether the layers are there.
A process that evicts layers holds it exclusively, from reading the leases until the layers are gone. So what was seen
under a lease stays. A lease whose process ended is no longer locked, and no longer counts.

A lease is handed on by its token, its file's name. The process that gets the token takes a lease of its own on the same
image, and checks under the shared lock that the first lease is still held. So nothing of the image was evicted before,
and nothing can be until the new lease is held; from then on, the first one may end at any moment.

A put has one lease for all its images, and one open file. It grows, under the same shared lock, by a record for each.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pykka_imagestore import _proto
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.store_names import is_random_name
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.locks import FileLock, acquire, is_locked, locked
from pykka_imagestore.durable.messages import parse_message
from pykka_imagestore.durable.reserve import in_reserve
from pykka_imagestore.errors import (
    InvalidInputError,
    InvalidNameError,
    LeaseEndedError,
    LeaseError,
    MisplacedFileError,
    StateError,
)
from pykka_imagestore.text import shown

if TYPE_CHECKING:
    from pykka_imagestore.core.usage import LeaseUsage

_MAX_BYTES = 64 << 20  # of a record; what is larger is somebody's own file


class HeldLease(Uncopyable):
    """A lease of this process, until ``release``, or until nobody has this object any more."""

    instead = "send its token, and take the lease over there"

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock

    def __del__(self) -> None:
        self.release()

    @property
    def token(self) -> str:
        """What ``take_over`` needs to know: which lease this is."""
        return self._path.name

    def write(self, record: bytes) -> None:
        """Say what is needed, beside what was said before; or release it and raise.

        The file is opened once, and locked before it has a byte: its one close is its end, see ``lease_watch.py``.
        """
        try:
            self._lock.write(record)
        except OSError as error:
            error.filename = str(self._path)
            self.release()
            raise

    def is_held(self) -> bool:
        """Tell whether it counts; it does not in a child that this process forked."""
        return self._lock.is_held()

    def release(self) -> None:
        """Need nothing any more; a second time does nothing."""
        if self.is_held():
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        self._lock.release()


def take_lease(paths: StorePaths, layers: Iterable[DiffID], config_digest: Digest | None, purpose: str) -> HeldLease:
    """Need layers and a config from now on; whether they are there is to be looked at afterwards."""
    with locked(paths.leases_lock, shared=True):
        return _hold(paths, _record_of(layers, config_digest), purpose)


class PutLease(Uncopyable):
    """What a put needs, more with each image, until ``release``, or until nobody has this object any more.

    One thread at a time may say what is needed; another may release it meanwhile.
    """

    instead = "let each put have its own"

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._lock = threading.Lock()  # never held while one waits for another process
        self._is_released = False
        self._lease: HeldLease | None = None
        self._layers: set[DiffID] = set()

    def need(self, layers: Iterable[DiffID], config_digest: Digest, purpose: str) -> None:
        """Need an image's layers and config from now on, too, as ``take_lease`` does.

        Raises:
            OSError: It could not be written; nothing is needed any more.
        """
        more = [layer for layer in dict.fromkeys(layers) if layer not in self._layers]
        record = _record_of(more, config_digest)
        with locked(self._paths.leases_lock, shared=True), self._lock:
            if self._is_released:
                return
            if self._lease is None:
                self._lease = _hold(self._paths, record, purpose)
            else:
                record.purpose = purpose
                self._lease.write(record.SerializeToString())
        self._layers.update(more)

    def release(self) -> None:
        """Need nothing any more; a second time does nothing."""
        with self._lock:
            self._is_released = True
            if self._lease is not None:
                self._lease.release()


def lease_image(paths: StorePaths, image: DockerImage) -> HeldLease:
    """Need an image from now on, as ``take_lease`` does; another process may take the lease over."""
    with locked(paths.leases_lock, shared=True):
        return _hold_image(paths, image)


def take_over(paths: StorePaths, unsafe_token: str) -> tuple[DockerImage, HeldLease]:
    """Need an image that another process leased; that one may release it afterwards.

    Returns:
        The image as it was leased, whatever its name shows by now; its layers are there.

    Raises:
        InvalidInputError: ``unsafe_token`` is no token.
        LeaseEndedError: Nobody holds that lease, or it is none of an image.
        LeaseError: It cannot be read.
    """
    if not is_random_name(unsafe_token):
        raise InvalidInputError(f"{shown(unsafe_token)} is no token of a lease: those have 16 hexadecimal digits")
    path = paths.leases / unsafe_token
    with locked(paths.leases_lock, shared=True):
        image = _image_of(path, _read(path)) if is_locked(path) else None
        if image is None:
            raise LeaseEndedError(unsafe_token, str(paths.root))
        return image, _hold_image(paths, image)


def find_needs(paths: StorePaths) -> Needs:
    """Return what live processes need, and remove the leases of dead ones. The exclusive lock is held.

    Files that are no leases are left alone.

    Raises:
        LeaseError: A lease cannot be read, so it is not known what is needed.
    """
    needs = Needs()
    for path in _files(paths):
        if is_locked(path):
            needs |= _needs_of(_read(path))
        elif _is_left(path):
            path.unlink(missing_ok=True)
    return needs


def find_leases(paths: StorePaths) -> tuple[LeaseUsage, ...]:
    """Return who needs what, to be shown; a lease that is being taken may be missing."""
    from pykka_imagestore.core.usage import LeaseUsage  # noqa: PLC0415 - puts and leases need none of it

    found = []
    with suppress(FileNotFoundError, PermissionError):  # another user's
        for path in _files(paths):
            with suppress(LeaseError, MisplacedFileError):
                if is_locked(path):
                    record = _read(path)
                    if not record.HasField("process"):
                        continue
                    found.append(LeaseUsage(record.process, record.purpose, tuple(map(DiffID, record.layer_ids))))
    return tuple(found)


def _files(paths: StorePaths) -> list[Path]:
    return [path for path in sorted(paths.leases.iterdir()) if is_random_name(path.name)]


def _is_left(path: Path) -> bool:
    """Tell whether a file that nobody holds was a lease."""
    try:
        if path.lstat().st_size > _MAX_BYTES:
            return False
        data = read_file(path)
        record = _parse(path, data)
    except (OSError, StateError):
        return False
    # Its process may have died before it wrote anything; and a power cut leaves zeros, since nothing is synced.
    return not any(data) or record.HasField("process") or bool(record.layer_ids)


def _hold_image(paths: StorePaths, image: DockerImage) -> HeldLease:
    record = _proto.LeaseRecord(layer_ids=image.layer_ids, config_digest=image.config_digest, image=image.name)
    # Not for a put's own lease: a put needs more room than this.
    return in_reserve(paths, partial(_hold, paths, record, f"lease of {image.name}"))


def _hold(paths: StorePaths, record: _proto.LeaseRecord, purpose: str) -> HeldLease:
    record.process, record.purpose = os.getpid(), purpose
    path = paths.leases / os.urandom(8).hex()
    lease = HeldLease(path, acquire(path))
    lease.write(record.SerializeToString())
    return lease


def _record_of(layers: Iterable[DiffID], config_digest: Digest | None) -> _proto.LeaseRecord:
    configs = [] if config_digest is None else [config_digest]  # repeated: what is not, only the last record tells
    return _proto.LeaseRecord(layer_ids=layers, config_digest=config_digest, more_config_digests=configs)


def _image_of(path: Path, record: _proto.LeaseRecord) -> DockerImage | None:
    """Return the image that a lease is of; None if it is of none, or was released meanwhile."""
    if not record.HasField("image"):
        return None
    try:
        name = ImageName.parse_stored(record.image).labelled
    except InvalidNameError as error:
        raise LeaseError(str(path)) from error
    digest = Digest(record.config_digest) if record.config_digest else None
    return DockerImage(name, tuple(map(DiffID, record.layer_ids)), digest)


def _needs_of(record: _proto.LeaseRecord) -> Needs:
    return Needs(frozenset(map(DiffID, record.layer_ids)), frozenset(map(Digest, _configs_of(record))))


def _configs_of(record: _proto.LeaseRecord) -> list[str]:
    return [*([record.config_digest] if record.config_digest else []), *record.more_config_digests]


def _read(path: Path) -> _proto.LeaseRecord:
    try:
        return _parse(path, read_file(path))
    except FileNotFoundError:
        return _proto.LeaseRecord()  # it was released meanwhile: that needs no lock


def _parse(path: Path, data: bytes) -> _proto.LeaseRecord:
    if not any(data):
        return _proto.LeaseRecord()
    try:
        record = parse_message(_proto.LeaseRecord, data)
    except ValueError as error:
        raise LeaseError(str(path)) from error
    if not all(map(is_sha256, [*record.layer_ids, *_configs_of(record)])):  # the parser does not even ask for text
        raise LeaseError(str(path))
    return record
