"""Who needs which layers and config: ``leases/<random>``, a LeaseRecord each, locked for as long as it counts.

Who takes a lease holds ``locks/leases`` shared meanwhile, and looks only then whether the layers are there. Who takes
layers out holds it exclusively, from reading the leases until the layers are gone. So what was seen under a lease
stays. A lease whose process ended is not locked any more, and counts no more.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from pykka_imagestore._proto.lease_pb2 import LeaseRecord
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.prune import LeaseUsage, Needs
from pykka_imagestore.durable.locks import FileLock, acquire, is_locked, locked
from pykka_imagestore.errors import LeaseError


class HeldLease:
    """A lease of this process, until ``release``, or until nobody has this object any more."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Need nothing any more; a second time does nothing."""
        if self._lock.is_held():  # not in a child that this process forked
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        self._lock.release()


def take_lease(paths: StorePaths, layers: Iterable[DiffID], config_digest: Digest | None, purpose: str) -> HeldLease:
    """Need layers and a config from now on; whether they are there is to be looked at afterwards."""
    record = LeaseRecord(
        layer_ids=sorted(set(layers)), config_digest=config_digest, process=os.getpid(), purpose=purpose
    )
    path = paths.leases / secrets.token_hex(8)
    with locked(paths.leases_lock, shared=True):
        path.write_bytes(record.SerializeToString())
        return HeldLease(path, acquire(path))


def find_needs(paths: StorePaths) -> Needs:
    """Return what those who live need, and remove what the dead left; to be called under the exclusive lock.

    Raises:
        LeaseError: A lease cannot be read, so it is not known what is needed.
    """
    needs = Needs()
    for path in sorted(paths.leases.iterdir()):
        if is_locked(path):
            needs |= _needs_of(_read(path))
        else:
            path.unlink(missing_ok=True)
    return needs


def find_leases(paths: StorePaths) -> tuple[LeaseUsage, ...]:
    """Return who needs what, for people; those that are being taken may be left out."""
    found = []
    with suppress(FileNotFoundError, PermissionError):  # another user's
        for path in sorted(paths.leases.iterdir()):
            with suppress(LeaseError):
                if is_locked(path):
                    record = _read(path)
                    found.append(LeaseUsage(record.process, record.purpose, tuple(map(DiffID, record.layer_ids))))
    return tuple(found)


def _needs_of(record: LeaseRecord) -> Needs:
    configs = [Digest(record.config_digest)] if record.config_digest else []
    return Needs(frozenset(map(DiffID, record.layer_ids)), frozenset(configs))


def _read(path: Path) -> LeaseRecord:
    try:
        record = LeaseRecord.FromString(path.read_bytes())
    except FileNotFoundError:
        return LeaseRecord()  # it was released meanwhile: that needs no lock
    except (DecodeError, UnicodeDecodeError) as error:
        raise LeaseError(str(path)) from error
    digests = [*record.layer_ids, *([record.config_digest] if record.config_digest else [])]
    if not all(map(is_sha256, digests)):  # the parser does not even ask for text
        raise LeaseError(str(path))
    return record
