"""Check that stored image configs are what their names say. Runs in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.core.digest import Digest, directory_name, sha256
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.errors import ForeignStoreError, MisplacedFileError
from pykka_imagestore.runtime.worker import raise_if_discarded


@dataclass(frozen=True, slots=True)
class CheckConfigs:
    """Which configs to check, and the folder that they lie in."""

    folder: str
    digests: tuple[Digest, ...]


def check_configs(request: CheckConfigs) -> dict[Digest, str]:
    """Read each config; return what is wrong with those that are damaged. One that is removed meanwhile is not."""
    faults = {}
    for digest in request.digests:
        raise_if_discarded()
        try:
            found = sha256(read_file(Path(request.folder) / directory_name(digest)))
        except FileNotFoundError:
            continue
        except MisplacedFileError as error:
            faults[digest] = f"is {error.found}"
            continue
        except ForeignStoreError as error:
            faults[digest] = f"belongs to user {error.owner}"
            continue
        except OSError as error:
            faults[digest] = f"cannot be read: {error.strerror}"
            continue
        if found != digest:
            faults[digest] = f"has digest {found}"
    return faults
