"""The members of an archive that is a directory, an OCI image layout: each opened component by component.

No symbolic link in the directory is followed, and only regular files are opened: so nothing outside is reached, and
nothing is waited for.
"""

from __future__ import annotations

import errno
import os
import stat

from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import DirectoryMember, LayerBlob
from pykka_imagestore.core.tar.format import TarError, clean_path
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import ArchiveError
from pykka_imagestore.fs.flags import FILE_FLAGS
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.jobs.archive.estimates import Estimator
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.opening import require_same
from pykka_imagestore.jobs.archive.tar_members import JsonReader
from pykka_imagestore.text import shown

_MAX_DEPTH = 256  # what a walk of more takes grows with the square; a layout has two directories in one another
_NOT_FOUND = frozenset({errno.ENOENT, errno.ENAMETOOLONG})
_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR})


class DirectoryMembers:
    """The files in a directory, by name.

    Args:
        archive: Path of the directory; a symbolic link there, or above, is the caller's and is followed.
        directory: The open directory.
        totals: Counts what it asks for.
    """

    def __init__(self, archive: str, directory: int, totals: Totals) -> None:
        self.archive = archive
        self.totals = totals
        self._directory = directory
        self._estimator = Estimator()
        self._json = JsonReader(archive, totals)

    def names(self) -> list[str]:
        """Return nothing: names tell only the form before Docker 1.10, which comes as a tar."""
        return []

    def has(self, name: str) -> bool:
        """Tell whether there is something of that name, whatever it is."""
        try:
            os.close(self._open(name))
        except FileNotFoundError:
            return False
        except ArchiveError:
            return True
        return True

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob.

        Raises:
            ArchiveError: There is no such member, or it is no regular file, or lies behind a symbolic link.
        """
        file = self._open_member(unsafe_name)
        try:
            return self._blob(unsafe_name, FileIdentity.of(os.fstat(file)))
        finally:
            os.close(file)

    def read_json(self, unsafe_name: str) -> bytes:
        """Return the bytes of a member that holds JSON, bounded.

        Raises:
            ArchiveError: As ``blob``; or it is larger than JSON here may be, by itself or with all before.
            ArchiveChangedError: It was written to meanwhile.
        """
        file = self._open_member(unsafe_name)
        try:
            identity = FileIdentity.of(os.fstat(file))
            data = self._json.read(self._blob(unsafe_name, identity), self._source(file, identity))
            require_same(self.archive, file, identity, what=_its_member(unsafe_name))
            return data
        finally:
            os.close(file)

    def estimated(self, layer: LayerBlob) -> LayerBlob:
        """Return a layer with its estimate.

        Raises:
            ArchiveChangedError: Another file lies there than when the blob was found.
        """
        file = self._open_member(layer.name)
        try:
            identity = FileIdentity.of(os.fstat(file))
            if isinstance(layer.location, DirectoryMember):
                require_same(self.archive, file, layer.location.identity, what=_its_member(layer.name))
            return self._estimator.estimate(layer, self._source(file, identity))
        finally:
            os.close(file)

    def _open_member(self, unsafe_name: str) -> int:
        try:
            return self._open(unsafe_name)
        except FileNotFoundError:
            raise ArchiveError(self.archive, f"it has no member {shown(unsafe_name)}") from None

    def _blob(self, unsafe_name: str, identity: FileIdentity) -> LayerBlob:
        return LayerBlob(unsafe_name, identity.size_bytes, DirectoryMember(self.archive, unsafe_name, identity))

    def _source(self, file: int, identity: FileIdentity) -> FileSource:
        return FileSource(file, self.archive, 0, identity.size_bytes)

    def _open(self, unsafe_name: str) -> int:
        return open_below(self._directory, self.archive, unsafe_name)


def _its_member(unsafe_name: str) -> str:
    return f"its member {shown(unsafe_name)}"


def open_below(directory: int, archive: str, unsafe_name: str) -> int:
    """Open a regular file below a directory.

    Raises:
        FileNotFoundError: There is nothing of that name.
        ArchiveError: The name is none, or what it names is no regular file.
    """
    parent, _, base = _clean(archive, unsafe_name).rpartition(b"/")
    walk = Walk(directory, follows=False)
    try:
        if parent.count(b"/") > _MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return _open_file(walk.directory(parent).directory, archive, unsafe_name, base)
    except OSError as error:
        if error.errno in _NOT_FOUND:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), unsafe_name) from error
        if error.errno in _NO_FILE:
            raise _no_file(archive, unsafe_name) from error
        raise
    finally:
        walk.forget()


def _open_file(directory: int, archive: str, unsafe_name: str, base: bytes) -> int:
    # Looked at before: to open a device may be to use it.
    if not stat.S_ISREG(os.stat(base, dir_fd=directory, follow_symlinks=False).st_mode):
        raise _no_file(archive, unsafe_name)
    file = os.open(base, FILE_FLAGS, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _no_file(archive, unsafe_name)
    return file


def _clean(archive: str, unsafe_name: str) -> bytes:
    try:
        name = clean_path(unsafe_name.encode("utf-8", "surrogateescape"))
    except (TarError, UnicodeEncodeError) as error:
        raise ArchiveError(archive, f"it names a member {shown(unsafe_name)} that is no path in it") from error
    if not name or b"\0" in name:
        raise ArchiveError(archive, f"it names a member {shown(unsafe_name)} that is no path in it")
    return name


def _no_file(archive: str, unsafe_name: str) -> ArchiveError:
    reason = f"its member {shown(unsafe_name)} is no regular file; symbolic links in a directory are not followed"
    return ArchiveError(archive, reason)
