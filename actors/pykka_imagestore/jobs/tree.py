"""Removing a folder and all below it, by directory descriptors only, alone or together with others."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_CHOICE = 32


def remove_tree(path: str) -> None:
    """Delete a folder, or whatever is at ``path``; nothing there is fine.

    Follows no symlink, and takes any depth. Several at once share the work, since each goes its own way through the
    tree; each returns when nothing is left.
    """
    above, name = os.path.split(path.rstrip("/"))
    try:
        parent = os.open(above or ".", FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        remove_entry(os.fsencode(name), parent)
    finally:
        os.close(parent)


def empty_folder(path: str) -> None:
    """Delete all that is in a folder, and leave the folder."""
    folder = os.open(path, FOLDER_FLAGS)
    try:
        for name in os.listdir(folder):
            remove_entry(os.fsencode(name), folder)
    finally:
        os.close(folder)


def remove_entry(name: bytes, parent: int) -> None:
    """Delete one entry of the folder ``parent``, with all below it; nothing there is fine."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            remove_folder(name, parent)


def remove_folder(
    top: bytes,
    parent: int,
    on_folder: Callable[[bytes], object] | None = None,
    unlink: Callable[[bytes, bytes, int], object] | None = None,
) -> None:
    """Delete one folder in the folder ``parent``, with all below it.

    Args:
        on_folder: Called with each removed folder's path, relative to ``parent``.
        unlink: Takes out what is no folder, given its path, its name and the descriptor of the folder it is in.
    """
    # One descriptor at a time, and back up through "..": a path of 2,000 folders needs neither as many descriptors
    # nor as many calls on the stack. Nobody moves folders here, so ".." is where we came from; but somebody may remove
    # the same tree, and whatever is gone is as good as removed.
    folder, trail = _enter(top, parent), [top]
    try:
        while trail:
            child = _unlink_files(folder, b"/".join(trail), unlink)
            if child is not None:
                with suppress(FileNotFoundError):
                    folder = _step(folder, child)
                    trail.append(child)
                continue
            folder = _step(folder, b"..")
            if on_folder is not None:
                on_folder(b"/".join(trail))
            with suppress(FileNotFoundError):
                os.rmdir(trail.pop(), dir_fd=folder)
    finally:
        os.close(folder)


def _unlink_files(folder: int, path: bytes, unlink: Callable[[bytes, bytes, int], object] | None) -> bytes | None:
    """Delete files from ``folder``; return one of the folders in it, by chance, or None if it is empty now."""
    empty = False
    while not empty:  # look again: a folder that changes while it is read may leave something out
        empty = True
        folders: list[bytes] = []
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                empty = False
                if entry.is_dir(follow_symlinks=False):
                    folders.append(os.fsencode(entry.name))
                    if len(folders) == _CHOICE:
                        break
                elif unlink is not None:
                    name = os.fsencode(entry.name)
                    unlink(path + b"/" + name, name, folder)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=folder)
        if folders:
            return random.choice(folders)  # noqa: S311 - so that those at work here part ways
    return None


def _step(folder: int, name: bytes) -> int:
    step = _enter(name, folder)
    os.close(folder)
    return step


def _enter(name: bytes, folder: int) -> int:
    if os.geteuid() == 0 or name == b"..":
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    # An ordinary user owns the folders that he unpacked without permissions, and may take them back.
    try:
        descriptor = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=folder)
        descriptor = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor
