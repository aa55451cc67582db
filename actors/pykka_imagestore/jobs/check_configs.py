"""Check that stored image configs are what their names say and list what images have. Runs in a worker process."""

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
        directory: Where they lie.
        stacks: The configs, and of each the layers of the images that have it, each stack once.
    """

    directory: str
    stacks: dict[Digest, tuple[Stack, ...]]


@dataclass(frozen=True, slots=True)
class ConfigsCheck:
    """What was found.

    Attributes:
        faults: What is wrong with those that are damaged, as the rest of a sentence.
        others: Of those whose images have other layers than they list, which stacks these are, by their positions.
        unchecked: Why it cannot be told what layers they list, likewise a part of a sentence.
    """

    faults: dict[Digest, str] = field(default_factory=dict)
    others: dict[Digest, tuple[int, ...]] = field(default_factory=dict)
    unchecked: dict[Digest, str] = field(default_factory=dict)


def check_configs(request: CheckConfigs) -> ConfigsCheck:
    """Read each config, and tell what is wrong. One that is removed meanwhile is not."""
    check = ConfigsCheck()
    for digest, stacks in request.stacks.items():
        raise_if_discarded()
        try:
            config = read_file(Path(request.directory) / directory_name(digest))
        except FileNotFoundError:
            continue
        except MisplacedFileError as error:
            check.faults[digest] = f"is {error.found}"
            continue
        except ForeignStoreError as error:
            check.faults[digest] = f"belongs to user {error.owner}"
            continue
        except OSError as error:
            check.faults[digest] = f"cannot be read: {error.strerror}"
            continue
        found = sha256(config)
        if found != digest:
            check.faults[digest] = f"has digest {found}"
        elif stacks:
            _compare(digest, config, stacks, check)
    return check


def _compare(digest: Digest, config: bytes, stacks: tuple[Stack, ...], check: ConfigsCheck) -> None:
    try:
        listed = parse_diff_ids(config)
    except FormatError as error:
        check.unchecked[digest] = f"does not tell which layers its images have: {error.inside('it')}"
        return
    others = tuple(number for number, stack in enumerate(stacks) if stack != listed)
    if others:
        check.others[digest] = others
