"""The members of an archive that is a directory, an OCI image layout; each is opened component by component.

No symbolic link in the directory is followed, and only regular files are opened. So nothing outside the directory is
reached, and no open or read blocks.

A caller may ask for links to be followed. Then they lead wherever this user may read, but still to regular files alone.
"""

from __future__ import annotations

import errno
import os
import stat

from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import Absent, DirectoryMember, FileRange, LayerBlob
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.fs.flags import FILE_FLAGS
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.jobs.archive.estimates import Estimator
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.json_reader import JsonReader
from pykka_imagestore.jobs.archive.member_names import no_member, parse_member_name
from pykka_imagestore.jobs.archive.opening import open_for_reading, require_same
from pykka_imagestore.text import shown

_MAX_DEPTH = 256  # the cost of a walk grows with the square of its depth; a layout nests two directories
_NOT_FOUND = frozenset({errno.ENOENT, errno.ENAMETOOLONG})
_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR})


class DirectoryMembers:
    """The files in a directory, by name.

    Args:
        archive: Path of the directory. Symbolic links in the path itself are the caller's and are followed.
        directory: The open directory. It is the caller's, and stays open as long as members are read.
        totals: Counts what the archive asks for.
        follow_links: Whether symbolic links in the directory are followed.
    """

    def __init__(self, archive: str, directory: int, totals: Totals, *, follow_links: bool = False) -> None:
        self._archive = archive
        self._follow_links = follow_links
        self._directory = directory
        self._estimator = Estimator()
        self._json = JsonReader(totals)

    def names(self) -> list[str]:
        """Return nothing: only the form before Docker 1.10 is recognised by its names, and that form is a tar."""
        return []

    def has(self, name: str) -> bool:
        """Tell whether something has that name, whatever kind of file it is."""
        try:
            os.close(self._open(name))
        except FileNotFoundError:
            return False
        except FormatError:
            return True
        return True

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob.

        Raises:
            FormatError: There is no such member, it is no regular file, or a symbolic link leads to it.
        """
        file = self._open_member(unsafe_name)
        try:
            return self._blob(unsafe_name, FileIdentity.of(os.fstat(file)))
        finally:
            os.close(file)

    def absent(self, reason: str) -> Absent:
        """Return the location of what the archive names and does not hold."""
        return Absent(self._archive, reason)

    def read_json(self, unsafe_name: str) -> bytes:
        """Return the bytes of a member that holds JSON, bounded.

        Raises:
            FormatError: As ``blob``; or it is larger than JSON here may be, by itself or with all before.
            ArchiveChangedError: It was written to while it was read.
        """
        file = self._open_member(unsafe_name)
        try:
            identity = FileIdentity.of(os.fstat(file))
            source = FileSource(file, self._archive, 0, identity.size_bytes)
            data = self._json.read(self._blob(unsafe_name, identity), source)
            require_same(self._archive, file, identity, what=_its_member(unsafe_name))
            return data
        finally:
            os.close(file)

    def with_estimate(self, layer: LayerBlob) -> LayerBlob:
        """Return a layer with its estimate.

        Raises:
            ArchiveChangedError: The file was replaced or written to since the blob was found.
        """
        file = self._open_member(layer.name)
        try:
            if isinstance(layer.location, DirectoryMember | FileRange):  # every blob of this archive that is not absent
                require_same(self._archive, file, layer.location.identity, what=_its_member(layer.name))
            return self._estimator.estimate(layer, FileSource(file, self._archive, 0, layer.size))
        finally:
            os.close(file)

    def _open_member(self, unsafe_name: str) -> int:
        try:
            return self._open(unsafe_name)
        except FileNotFoundError:
            raise no_member(unsafe_name) from None

    def _blob(self, unsafe_name: str, identity: FileIdentity) -> LayerBlob:
        member: DirectoryMember | FileRange = DirectoryMember(self._archive, unsafe_name, identity)
        if self._follow_links:
            member = FileRange(_path_of(self._archive, unsafe_name), 0, identity)
        return LayerBlob(unsafe_name, identity.size_bytes, member)

    def _open(self, unsafe_name: str) -> int:
        if self._follow_links:
            return _open_following(_path_of(self._archive, unsafe_name), unsafe_name)
        return open_below(self._directory, unsafe_name)


def _its_member(unsafe_name: str) -> str:
    return f"its member {shown(unsafe_name)}"


def open_below(directory: int, unsafe_name: str) -> int:
    """Open a regular file below a directory.

    Raises:
        FileNotFoundError: Nothing has that name.
        FormatError: The name is malformed, or what it names is no regular file.
    """
    parent, _, base = _parse(unsafe_name).rpartition(b"/")
    walk = Walk(directory, follows=False)
    try:
        if parent.count(b"/") > _MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return _open_file(walk.directory(parent).directory, unsafe_name, base)
    except OSError as error:
        raise _refusal(error, unsafe_name) from error
    finally:
        walk.forget()


def _path_of(directory: str, unsafe_name: str) -> str:
    return os.path.join(directory, os.fsdecode(_parse(unsafe_name)))


def _open_following(path: str, unsafe_name: str) -> int:
    def refuse(found: str) -> FormatError:
        return FormatError(f"is no regular file, but {found}", (_its_member(unsafe_name),))

    try:
        return open_for_reading(path, refuse, stat.S_IFREG)
    except OSError as error:
        raise _refusal(error, unsafe_name) from error


def _refusal(error: OSError, unsafe_name: str) -> OSError | FormatError:
    if error.errno in _NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), unsafe_name)
    return _no_file(unsafe_name) if error.errno in _NO_FILE else error


def _open_file(directory: int, unsafe_name: str, base: bytes) -> int:
    # Its kind is checked before the open: opening a device may already use it.
    if not stat.S_ISREG(os.stat(base, dir_fd=directory, follow_symlinks=False).st_mode):
        raise _no_file(unsafe_name)
    file = os.open(base, FILE_FLAGS, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _no_file(unsafe_name)
    return file


def _parse(unsafe_name: str) -> bytes:
    name = parse_member_name(unsafe_name)
    if not name or b"\0" in name:
        msg = f"it names a member {shown(unsafe_name)} that is no path in it"
        raise FormatError(msg)
    return name


def _no_file(unsafe_name: str) -> FormatError:
    msg = (
        "is no regular file; symbolic links in a directory are not followed unless the store was started with "
        "follow_links, or the command with --follow-links"
    )
    return FormatError(msg, (_its_member(unsafe_name),))
