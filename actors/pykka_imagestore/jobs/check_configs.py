"""Check that image configs have the digests in their names and list their images' layers. Runs in a worker process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, Digest, directory_name, sha256
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.formats.image_config import parse_diff_ids
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.errors import ForeignStoreError, MisplacedFileError
from pykka_imagestore.runtime.worker import raise_if_discarded

Stack = tuple[DiffID, ...]


@dataclass(frozen=True, slots=True)
class CheckConfigs:
    """Which configs to check.

    Attributes:
        directory: The store's directory of configs.
        stacks: The configs, each with the distinct stacks of layers of the images that have it.
    """

    directory: str
    stacks: dict[Digest, tuple[Stack, ...]]


@dataclass(frozen=True, slots=True)
class ConfigsCheck:
    """What was found, by config.

    Attributes:
        faults: What is wrong with a damaged one, as the rest of a sentence.
        others: Of one that lists other layers than some of its images have, the positions of those images' stacks.
        unchecked: Why it cannot be told which layers one lists, as the rest of a sentence.
    """

    faults: dict[Digest, str] = field(default_factory=dict)
    others: dict[Digest, tuple[int, ...]] = field(default_factory=dict)
    unchecked: dict[Digest, str] = field(default_factory=dict)


def check_configs(request: CheckConfigs) -> ConfigsCheck:
    """Read each config; return what is wrong. A config that was removed meanwhile is no fault."""
    check = ConfigsCheck()
    for digest, stacks in request.stacks.items():
        raise_if_discarded()
        try:
            config = read_file(Path(request.directory) / directory_name(digest))
        except FileNotFoundError:
            continue
        except (MisplacedFileError, ForeignStoreError, OSError) as error:
            check.faults[digest] = _fault(error)
            continue
        found = sha256(config)
        if found != digest:
            check.faults[digest] = f"has digest {found}"
        elif stacks:
            _compare(digest, config, stacks, check)
    return check


def _fault(error: MisplacedFileError | ForeignStoreError | OSError) -> str:
    if isinstance(error, MisplacedFileError):
        return f"is {error.found}"
    if isinstance(error, ForeignStoreError):
        return f"belongs to user {error.owner}"
    return f"cannot be read: {error.strerror}"


def _compare(digest: Digest, config: bytes, stacks: tuple[Stack, ...], check: ConfigsCheck) -> None:
    try:
        listed = parse_diff_ids(config)
    except FormatError as error:
        check.unchecked[digest] = f"does not tell which layers its images have: {error.inside('it')}"
        return
    others = tuple(number for number, stack in enumerate(stacks) if stack != listed)
    if others:
        check.others[digest] = others
