"""Which names in a store's directory are the store's own. What has another name is never changed, and never in the way.

A directory without the store's marker is a store only if an earlier release made it: it has the images' files, or
nothing but directories of a store with nothing but names of its own in them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_RANDOM = re.compile("[0-9a-f]{16}")  # secrets.token_hex(8)
_DIGEST = re.compile("sha256-[0-9a-f]{64}")
_LOCKS = re.compile("references|layers|leases|staging|gc|containers")
_NAMES = {
    "layers": _DIGEST,
    "configs": _DIGEST,
    "staging": _RANDOM,
    "gc": _RANDOM,
    "leases": _RANDOM,
    "locks": _LOCKS,
    "containers": re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
    "stacks": _DIGEST,
    "reserve": re.compile("[0-9]{1,2}"),
}
_FILES = re.compile(r"(imagestore|storedImages|storedImages\.journal)(\.new)?")
_WORK = re.compile(
    rf"lock|(stack-)?{_DIGEST.pattern}|(archive\.tar|layer|stack)(\.stop|\.helpers)?|config|container\.[0-9]+"
)
_FILE_SYSTEMS_OWN = "lost+found"  # a store may be the root of a file system

DIRECTORIES = frozenset(_NAMES)
"""Directories of a store."""


def is_random_name(name: str) -> bool:
    """Tell whether a name is of the form that leases and directories of work in progress have."""
    return _RANDOM.fullmatch(name) is not None


def is_own_name(directory: str, name: str) -> bool:
    """Tell whether a store gives such a name to what it makes in its directory ``directory``."""
    pattern = _NAMES.get(directory)
    return pattern is not None and pattern.fullmatch(name) is not None


def is_work(names: Collection[str]) -> bool:
    """Tell whether a directory in staging/ or gc/ that has no lock holds only files that a process makes there."""
    return all(map(_WORK.fullmatch, names))


def find_foreign(names: Collection[str], directories: Mapping[str, Collection[str]]) -> list[str]:
    """Return what no store made in a directory, as paths relative to it.

    Args:
        names: What lies in it.
        directories: What lies in those of its directories that are named as a store's are.
    """
    beside = [name for name in names if name not in DIRECTORIES and not _FILES.fullmatch(name)]
    below = [
        f"{directory}/{name}"
        for directory in directories
        for name in directories[directory]
        if not is_own_name(directory, name)
    ]
    return sorted(path for path in (*beside, *below) if path != _FILE_SYSTEMS_OWN)
