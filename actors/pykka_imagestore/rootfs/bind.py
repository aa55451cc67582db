"""The backend ``bind``: one layer as it lies in the store, read-only."""

from __future__ import annotations

from pathlib import Path

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest
from pykka_imagestore.fs.create import make_directory
from pykka_imagestore.rootfs.backend import Mounted
from pykka_imagestore.rootfs.place import MODE, IsOurs, default_place, detach, is_attached, shows
from pykka_imagestore.rootfs.refusals import require_served
from pykka_imagestore.rootfs.view import show


class Bind:
    """Mounts one layer where it is wanted."""

    name = "bind"
    reads = Reads.ANY  # no whiteout at all

    def refusal(self, request: RootfsRequest) -> str | None:
        """Return why a request cannot be served by one layer; None if it can, as far as can be told beforehand."""
        if not request.read_only:
            return "it shows a layer itself, and can only be read: ask for read_only, or for another backend"
        if len(request.layers) != 1:
            return f"it shows one layer, and these are {len(request.layers)}"
        if request.layers[0].whiteouts != WhiteoutFormat.NONE:
            return "the layer has whiteouts, which would be seen"
        return None

    def parts(self, _request: RootfsRequest, _workers: int) -> tuple[FillPart, ...]:
        """Return no work: nothing is copied."""
        return ()

    def mount(self, request: RootfsRequest) -> Mounted:
        """Mount a request's layer.

        Raises:
            RootfsError: The kernel refused.
            InvalidInputError: The target is no empty directory of this user's.
            OSError: The layer is not there.
        """
        require_served(self, request)
        try:
            make_directory(default_place(request), MODE)
        except FileExistsError:  # an earlier try was cut off
            self.unmount(request)
        return show(request.layers[0].path, request, self.name)

    def unmount(self, request: RootfsRequest) -> None:
        """Detach the layer wherever it is attached."""
        detach(request, _layers_of(request), is_unlike_others=False)  # others may show the same layer

    def is_attached(self, request: RootfsRequest) -> bool:
        """Tell whether the layer is still where ``mount`` attached it, maybe in another process."""
        return is_attached(request, _layers_of(request))


def _layers_of(request: RootfsRequest) -> IsOurs:
    """Return what tells the mounts that show the request's layer, or any of its store's if the request names none."""
    if request.layers:
        return shows(request.layers[0].path)
    return shows(str(StorePaths(Path(request.directory).parents[1]).layers))
