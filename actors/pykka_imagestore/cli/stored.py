"""The store that a verb is about: whether there is one, and a view of it for the verbs that only read.

No actor is started for these, which is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.errors import StoreError

if TYPE_CHECKING:
    from pykka_imagestore.durable.stored_view import StoredView


class NoStoreError(StoreError):
    """There is no store where one was looked for.

    Attributes:
        directory: Where that was.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.directory = directory

    def __str__(self) -> str:
        return f"there is no image store at {self.directory}; name another with --store, or put an image first"


def view_store(store: Path) -> StoredView:
    """Open a store for reading.

    Raises:
        NoStoreError: ``store`` is no store.
        StoreError: It may not be read, or not safely.
    """
    from pykka_imagestore.durable.stored_view import StoredView  # noqa: PLC0415 - not every verb looks at images

    require_store(store)
    return StoredView.open(store)


def require_store(store: Path) -> None:
    """Refuse a directory where there is no store. Opening one that is there tells whether it can be used.

    Raises:
        NoStoreError: There is none.
        ForeignStoreError: It is another user's, who does not share it.
    """
    paths = StorePaths(store)
    with told_if_foreign(store):
        if not any(map(_is_there, (paths.marker, paths.layers, paths.stored_images, paths.journal))):
            raise NoStoreError(str(store))


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
