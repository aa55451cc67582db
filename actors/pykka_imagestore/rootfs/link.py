"""The backend ``link``: directories of its own, and hard links to the layers' files."""

from __future__ import annotations

from pykka_imagestore.core.rootfs import RootfsRequest
from pykka_imagestore.rootfs.copy import Copy


class Link(Copy):
    """Links what the layers mean together into the container's directory, and mounts that read-only.

    What cannot be linked, since it has too many links already or may not be linked by this user, is copied.
    """

    name = "link"
    links = True

    def why_not_filled(self, request: RootfsRequest) -> str | None:
        """Return why a request's files cannot be made here, wherever they are mounted then; None if they can."""
        if not request.read_only:
            return "its files are the layers', which a write would change: ask for read_only, or for another backend"
        return super().why_not_filled(request)
