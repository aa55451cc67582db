"""The backend ``copy``: files of its own, which share blocks with the layers where the file system can do that."""

from __future__ import annotations

import os
from contextlib import suppress

from pykka_imagestore.core.paths import FILL
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest
from pykka_imagestore.fs.attributes import disown
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.merged_tree import require_sight_of_deletions
from pykka_imagestore.fs.open_directories import opened_directory
from pykka_imagestore.fs.pins import PIN_FLAGS
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.place import MODE, default_place, detach, is_attached, shows
from pykka_imagestore.rootfs.quota import bound, count_below
from pykka_imagestore.rootfs.refusals import require_served
from pykka_imagestore.rootfs.view import show, why_not_shown


class Copy:
    """Copies what the layers mean together into the container's directory.

    A copy is shown through a mount of itself, as others are, for what the mount keeps from working: set-user-ID
    programs, devices, and writes if it is to be read only. Where this process may not mount, one that is written to in
    its own place is a plain directory, and others are refused.
    """

    name = "copy"
    reads = Reads.ANY
    links = False

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why a request cannot be served here; None if it can, as far as can be told beforehand."""
        reason = self.why_not_filled(request)
        if reason is None and needs_mount(request) and request.layers:
            reason = why_not_shown(request.layers[0].path)
            if reason is not None:
                wish = "read only" if request.read_only else "attached elsewhere"
                reason = f"it would have to be mounted to be {wish}, and the kernel refused. {reason}"
        return reason

    def why_not_filled(self, request: RootfsRequest) -> str | None:
        """Return why a request's files cannot be made here, wherever they are mounted then; None if they can."""
        try:
            require_sight_of_deletions(request.layers)
        except PermissionError as error:
            return f"{error.filename} cannot be read by this user: {error.strerror}"
        return None

    def parts(self, request: RootfsRequest, workers: int) -> tuple[FillPart, ...]:
        """Return a share of the work for each worker; makes the directories that they fill.

        Raises:
            OSError: A directory cannot be made.
        """
        self.unmount(request)
        target, scratch = default_place(request), _scratch(request)
        _make_bare_directory(target)
        remove_tree(scratch)  # of an earlier try, which is begun anew
        make_directory(scratch, MODE)
        if request.project is not None:
            count_below((target, scratch), request.project)
        return tuple(
            FillPart(request.layers, target, scratch, number, workers, self.links) for number in range(workers)
        )

    def mount(self, request: RootfsRequest) -> Mounted:
        """Mount a root file system that was filled, or open it; again, if nothing shows it any more.

        Raises:
            RootfsError: The kernel refused.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: It is not there, or the machine has no room.
        """
        require_served(self, request)
        place, scratch = default_place(request), _scratch(request)
        if os.path.isdir(scratch):  # else it was mounted before, and is bounded
            if request.project is not None and request.upper_bytes is not None:
                bound(place, request.project, request.upper_bytes)
            remove_tree(scratch)
        if needs_mount(request) or (not request.for_runtime and why_not_shown(place) is None):
            return show(place, request, self.name)
        return Mounted(os.open(place, PIN_FLAGS | os.O_DIRECTORY), place if request.attach else None)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the root file system wherever it is attached."""
        detach(request, shows(default_place(request)))

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether it is still mounted where ``mount`` attached it, maybe in another process."""
        return is_attached(request, shows(default_place(request)))


def needs_mount(request: RootfsRequest) -> bool:
    """Tell whether a copy cannot be what is requested unless it is mounted."""
    return request.read_only or (request.attach and request.target is not None)


def _scratch(request: RootfsRequest) -> str:
    return f"{request.directory}/{FILL}"


def _make_bare_directory(path: str) -> None:
    """Make a directory that hands nothing on to what will be made in it; one that is there becomes so."""
    with suppress(FileExistsError):
        make_directory(path, MODE)
    with opened_directory(path) as directory:
        disown(directory)
