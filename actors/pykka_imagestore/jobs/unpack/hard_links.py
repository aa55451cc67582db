"""Makes hard links: to files of the layer, to files in aufs' bookkeeping, and to files of the layers below.

A link whose target is no file of its layer leads to what the layers below have there, whatever the order of the
entries; so does one whose target the layer deletes. Nothing is made for it on disk. It is a file of the layer all the
same: a later entry of its name replaces it, a whiteout does not, and no directory can be made where it is.
"""

from __future__ import annotations

import stat

from pykka_imagestore.core.tar.format import CHARACTER_DEVICE, HARD_LINK, Entry, TarError, clean_path
from pykka_imagestore.fs.attributes import Attributes, join
from pykka_imagestore.fs.whiteout_format import WHITEOUT_PREFIX, is_whiteout
from pykka_imagestore.jobs.unpack.hidden_files import HiddenFiles
from pykka_imagestore.jobs.unpack.lower_links import UNMADE, LowerLinks
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.tree import Tree, lstat


class HardLinks:
    """Makes the hard links of one layer.

    Args:
        keeps_lower: Whether links to files of lower layers are kept; else they are refused.

    Throughout, ``directory`` is the descriptor of an entry's parent, ``parent`` that parent's path without symlinks.
    """

    def __init__(
        self,
        tree: Tree,
        lower: LowerLinks,
        *,
        hidden: HiddenFiles,
        attributes: Attributes,
        replaced: Replaced,
        keeps_lower: bool,
    ) -> None:
        self._tree = tree
        self._lower = lower
        self._hidden = hidden
        self._attributes = attributes
        self._replaced = replaced
        self._keeps_lower = keeps_lower

    def make(self, entry: Entry, directory: int, parent: bytes, name: bytes) -> None:
        """Make a link.

        Raises:
            TarError: It leads to a directory, or to no file, and may not lead to one of lower layers.
        """
        link = clean_path(entry.link)
        if self._hidden.has(link):
            directory = self._clear(directory, parent, name)
            self._hidden.link(link, name, directory)
            return
        source = self._find(entry, link)
        if source is None:
            self._add_lower(entry, link, directory, parent, name)
        elif source != join(parent, name):
            directory = self._clear(directory, parent, name)
            self._link(entry, link, name, directory)
        self._tree.make_room()  # links in one directory may lead to files in as many others

    def replace_lower(self, entry: Entry, parent: bytes, name: bytes) -> None:
        """Forget a link to a lower file whose name an entry of another type takes."""
        is_whiteout_entry = entry.kind == CHARACTER_DEVICE and entry.major == entry.minor == 0
        if entry.kind != HARD_LINK and not is_whiteout_entry:
            self._forget_lower(parent, name)

    def note_unmade(self, parent: bytes, name: bytes) -> None:
        """Note a device that could not be made: no link leads to it, nor to what lower layers have at its path."""
        self._lower.add(parent, name, UNMADE)

    def _find(self, entry: Entry, link: bytes) -> bytes | None:
        """Return the path of the file that a link leads to; None if this layer has none there."""
        target_parent, _, target = link.rpartition(b"/")
        if not target or _is_whiteout_name(link):
            raise _no_file(entry)
        try:
            directory, real_parent, _ = self._tree.directory(target_parent, make=False)
            source = join(real_parent, target)
            self._tree.settle(source)
            status = lstat(target, directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            raise _no_file(entry)
        return None if is_whiteout(status) else source

    def _link(self, entry: Entry, link: bytes, name: bytes, directory: int) -> None:
        target_parent, _, target = link.rpartition(b"/")
        try:
            target_directory = self._tree.directory(target_parent, make=False).directory
            self._attributes.link(target, target_directory, name, directory)
        except (FileNotFoundError, NotADirectoryError) as error:  # it lay below what its link replaced
            raise _no_file(entry) from error

    def _add_lower(self, entry: Entry, link: bytes, directory: int, parent: bytes, name: bytes) -> None:
        path = join(parent, name)
        target_parent, _, target = link.rpartition(b"/")
        source = join(self._tree.resolve(target_parent), target)
        leads_to = self._lower.find(source)
        is_nothing = leads_to == UNMADE or (source == path and leads_to is None)
        if not self._keeps_lower or _is_whiteout_name(source) or is_nothing:
            raise _no_file(entry)
        if source == path:
            return
        self._clear(directory, parent, name, keeps_whiteout=True)
        self._lower.add(parent, name, leads_to or source)

    def _clear(self, directory: int, parent: bytes, name: bytes, *, keeps_whiteout: bool = False) -> int:
        """Remove what an earlier entry of a name made; return ``directory``, perhaps opened anew."""
        try:
            status = lstat(name, directory)
        except FileNotFoundError:
            pass
        else:
            if not (keeps_whiteout and is_whiteout(status)):
                directory = self._tree.clear(directory, parent, name)
        self._forget_lower(parent, name)
        return directory

    def _forget_lower(self, parent: bytes, name: bytes) -> None:
        if self._lower.drop(parent, name):
            self._replaced.lose()  # a check could not tell it from a link to a file that was replaced


def _is_whiteout_name(path: bytes) -> bool:
    """Tell whether a path is one at which no layer has a file."""
    return b"/" + WHITEOUT_PREFIX in b"/" + path


def _no_file(entry: Entry) -> TarError:
    return TarError(f"is a hard link to {entry.link.decode('utf-8', 'backslashreplace')!r}, no file of this layer")
