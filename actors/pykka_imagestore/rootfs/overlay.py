"""The backend ``overlay``: the kernel merges the layers, and keeps what is written in a directory of the container."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pykka_imagestore.core.paths import UPPER, WORK
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest
from pykka_imagestore.fs.attributes import sees_trusted_xattrs
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.fs.directory_attributes import copy_directory_attributes
from pykka_imagestore.fs.open_directories import opened_directory, pinned_directory
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.overlay_ways import (
    MAX_LAYERS,
    NO_UUID,
    PINNED,
    USER,
    VOLATILE,
    WAYS,
    OverlayWays,
    Stack,
    Way,
    source_of,
)
from pykka_imagestore.rootfs.place import MODE, IsOurs, attached, default_place, detach, is_attached
from pykka_imagestore.rootfs.quota import bound, count_below
from pykka_imagestore.rootfs.refusals import failed, require_served
from pykka_imagestore.rootfs.view import mount_attributes

_EMPTY = "empty"


def overlay_reads() -> Reads:
    """Return which attributes the overlays of this process honour: ``trusted.overlay.*`` or ``user.overlay.*``."""
    return Reads.TRUSTED if sees_trusted_xattrs() else Reads.USER


class Overlay:
    """Mounts overlays in this process' own namespaces.

    Args:
        ways: Which ways to try of telling the kernel the layers, the best first.
    """

    name = "overlay"

    def __init__(self, ways: Sequence[Way] = WAYS) -> None:
        self._ways = OverlayWays(ways)

    @cached_property
    def reads(self) -> Reads:
        """What its overlays honour, found out once: it takes as long as a tenth of a mount."""
        return overlay_reads()

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why no overlay can be mounted for a request; None if it can, as far as can be told beforehand."""
        count = len(_lower(request))
        return f"the kernel merges {MAX_LAYERS} layers at most, and these are {count}" if count > MAX_LAYERS else None

    def parts(self, _request: RootfsRequest, _workers: int) -> tuple[FillPart, ...]:
        """Return no work: nothing is copied."""
        return ()

    def mount(self, request: RootfsRequest) -> Mounted:
        """Mount an overlay of a request's layers.

        Raises:
            RootfsError: The kernel refused.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: The directories that it needs cannot be made, a layer is not there, or the machine
                has no room.
        """
        require_served(self, request)
        self._make_room(request)
        stack = _stack_of(request, self.reads)
        try:
            descriptor = self._ways.mount(stack)
        except OSError as error:
            raise failed(self.name, request, error) from error
        return attached(descriptor, request)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the overlay of a request wherever it is attached."""
        detach(request, _overlay_of(request))

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether the overlay of a request is still where ``mount`` attached it, maybe in another process."""
        return is_attached(request, _overlay_of(request))

    # -- inside

    def _make_room(self, request: RootfsRequest) -> None:
        """Make the directories of a container, anew if an earlier try was cut off."""
        try:
            make_directory(default_place(request), MODE)
        except FileExistsError:
            self.unmount(request)
            for name in (UPPER, WORK, _EMPTY):  # a work directory that was volatile cannot be mounted again
                remove_tree(f"{request.directory}/{name}")
        for name in _needed(request):
            make_directory(f"{request.directory}/{name}", MODE)
        if not request.read_only:
            _copy_root(request.layers[-1].path, f"{request.directory}/{UPPER}")
        if request.project is not None and request.upper_bytes is not None:
            written = [f"{request.directory}/{name}" for name in (UPPER, WORK)]
            count_below(written, request.project)
            bound(written[0], request.project, request.upper_bytes)


def _overlay_of(request: RootfsRequest) -> IsOurs:
    """Return what tells the overlay of a request."""
    source = source_of(request.directory)
    return lambda entry: (entry.kind, entry.source) == ("overlay", source)


def _needed(request: RootfsRequest) -> tuple[str, ...]:
    if not request.read_only:
        return (UPPER, WORK)
    # An overlay has an upper directory, or two others: without, its unmount syncs nothing.
    return (_EMPTY,) if len(_lower(request)) == 1 else ()


def _lower(request: RootfsRequest) -> tuple[str, ...]:
    """Return the layers' directories, the topmost first.

    The kernel takes none twice. Where a layer comes again, what it has at the top covers what it has further down.
    """
    return tuple(dict.fromkeys(layer.path for layer in request.layers[::-1]))


def _stack_of(request: RootfsRequest, reads: Reads) -> Stack:
    needed = tuple(f"{request.directory}/{name}" for name in _needed(request))
    layers = _lower(request)
    user = (USER,) if reads is Reads.USER else ()
    attributes = mount_attributes(request)
    if request.read_only:
        return Stack((*layers, *needed), None, request.directory, (*PINNED, NO_UUID, *user), attributes)
    upper, work = needed
    options = (*PINNED, NO_UUID, VOLATILE, *user)
    return Stack(layers, (upper, work), request.directory, options, attributes)


def _copy_root(layer: str, upper: str) -> None:
    """Give the upper directory what the topmost layer's root has: a merged root has the attributes of the upper."""
    with pinned_directory(layer) as source, opened_directory(upper) as target:
        copy_directory_attributes(source, target)
