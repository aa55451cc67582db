"""The backend ``copy``: files of its own, which share blocks with the layers where the file system can do that."""

from __future__ import annotations

import os
from contextlib import suppress

from pykka_imagestore.core.paths import FILL
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest
from pykka_imagestore.fs.attributes import disown
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.merged_tree import require_sight_of_deletions
from pykka_imagestore.fs.pins import PIN_FLAGS
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.place import MODE, IsOurs, default_place, detach, is_attached, refused, shows
from pykka_imagestore.rootfs.quota import bound, count_below
from pykka_imagestore.rootfs.view import show, why_not_shown


class Copy:
    """Copies what the layers mean together into the container's directory.

    Nothing is mounted, unless the copy is to be read only, or attached elsewhere. Only a mount keeps a copy from being
    written to, so where none can be made, a read-only one is refused.
    """

    name = "copy"
    reads = Reads.ANY
    links = False

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why a request cannot be served here; None if it can, as far as can be told beforehand."""
        try:
            require_sight_of_deletions(request.layers)
        except PermissionError as error:
            return f"{error.filename} cannot be read by this user: {error.strerror}"
        reason = why_not_shown() if _needs_mount(request) else None
        if reason is None:
            return None
        wish = "read only" if request.read_only else "attached elsewhere"
        return f"it would have to be mounted to be {wish}, and the kernel refused. {reason}"

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
        """Open a root file system that was filled, and mount it if the request takes that.

        Raises:
            RootfsError: The kernel refused.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: It is not there, or the machine has no room.
        """
        refusal = self.refusal(request)
        if refusal is not None:
            raise refused(self.name, request, refusal)
        remove_tree(_scratch(request))
        place = default_place(request)
        if request.project is not None and request.upper_bytes is not None:
            bound(place, request.project, request.upper_bytes)
        if _needs_mount(request):
            return show(place, request, self.name)
        return Mounted(os.open(place, PIN_FLAGS | os.O_DIRECTORY), place if request.attach else None)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the root file system wherever it is attached."""
        detach(request, _shows(request))

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether it is still mounted where ``mount`` attached it, maybe in another process."""
        return is_attached(request, _shows(request))


def _needs_mount(request: RootfsRequest) -> bool:
    return request.read_only or (request.attach and request.target is not None)


def _scratch(request: RootfsRequest) -> str:
    return f"{request.directory}/{FILL}"


def _shows(request: RootfsRequest) -> IsOurs:
    try:
        return shows(default_place(request))
    except FileNotFoundError:
        return lambda _: False


def _make_bare_directory(path: str) -> None:
    """Make a directory that hands nothing on to what will be made in it; one that is there becomes so."""
    with suppress(FileExistsError):
        make_directory(path, MODE)
    directory = os.open(path, DIRECTORY_FLAGS)
    try:
        disown(directory)
    finally:
        os.close(directory)
