"""Everything this package raises on purpose; the runtime's own failures are in ``pykka_imagestore.runtime``.

StoreError
    InvalidInputError           the caller's text or value is wrong: fix the call
        InvalidNameError        a text is no image name: write it as repository:tag
        AmbiguousImageError     the archive holds several images, or none of that name: choose one
    ArchiveError                the archive is broken or not to be trusted: get another archive
        UnsupportedArchiveError  it is of no form that is taken: have it written by docker save or skopeo
        ArchiveChangedError     it was replaced or written to while it was read: put it again
        DigestMismatchError     its bytes are damaged: get it anew
        LayerError              an entry of a layer is broken or hostile: rebuild the image, or tell its publisher
            EscapingEntryError  it points outside of the root file system: distrust the image
            LimitError          it asks for more than a limit of the store allows: raise that one, if you trust it
    NotFoundError               nothing of that name is here: put it first
        ImageIncompleteError    some of its layers are missing: put it again
        NoArchiveError          no archive of that name is in the archive directory: save it there, or say which archive
    StackError                  an image's layers do not fit together: rebuild it, or tell its publisher
    ImageUserError              an image's tree has no such user: name another one, or rebuild it
    ContainerNotFoundError      no container of that id is here: list shows those that are
    StateError                  the store cannot do this now
        ContainerExistsError    a container of that id is here: destroy it first, or choose another id
        ContainerHeldError      another provisioner has it, whose process is alive: have that one destroy it
        ContainerRecordError    what the store wrote of a container cannot be read: destroy it
        RootfsError             no root file system can be made that way here: take another way
        CheckpointError         what the store wrote cannot be read: restore it
        RecordError             what it wrote of one layer cannot be read: repair it, then put the layer's images again
        LeaseError              a lease that is held cannot be read: restart the process that holds it
        LeaseEndedError         a lease ended before it was taken over: get the image by name
        StoreClosedError        it was closed: start another on the same directory
        ForeignStoreError       it is another user's: work as that user, or with a store of your own
        UnsafeStoreError        anybody may write into it: remove that permission
        NotAStoreError          the directory holds other files: name another one
        StoreFormatError        a later release made it: use that
        MisplacedFileError      something else is where the store has a file: move it away
        LocksUnsupportedError   its file system has no locks: move the store
        NotRemovedError         something is in the way: see to that, and remove it again
        OverBudgetError         an image is larger than the store may be: raise its budget
        NoSpaceError            the disk is full, and this is an OSError, too: free some of it
        FileTooLargeError       no file here may be as large, and this is an OSError, too: raise the limit
        ProcUnavailableError    /proc cannot be used, and this is an OSError, too: mount it
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Self

from pykka_imagestore.text import escaped, listed, plain, shown

_MAX_SENTENCE = 10_000


def _printable(tell: Callable[[Any], str]) -> Callable[[Any], str]:
    @functools.wraps(tell)
    def __str__(self: Any) -> str:  # noqa: N807 - so that it is called in a traceback
        return escaped(tell(self), _MAX_SENTENCE)

    return __str__


class StoreError(Exception):
    """Base of every error this package raises on purpose.

    Its text is one printable line: characters in names, paths and reasons that could harm a terminal or a log are
    escaped here, for all classes. The attributes keep them as they were found.
    """

    def __init_subclass__(cls) -> None:
        if "__str__" in vars(cls):
            cls.__str__ = _printable(cls.__str__)  # type: ignore[method-assign]

    def __str__(self) -> str:
        return escaped(super().__str__(), _MAX_SENTENCE)


class InvalidInputError(StoreError):
    """The caller's text or bytes are malformed."""


class InvalidNameError(InvalidInputError):
    """A text is not an image name.

    Attributes:
        name: The text; what is longer than any name is cut.
        reason: What is wrong with it, as the end of a sentence.
    """

    def __init__(self, name: str, reason: str) -> None:
        # All arguments go up, so the error survives pickling on its way back from a worker.
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name!r} is not an image name: {self.reason}"


class AmbiguousImageError(InvalidInputError):
    """An archive does not say which of its images is meant, or under which name to put it.

    Attributes:
        archive: Path of the archive.
        reason: What is unclear.
        choices: What the archive holds: names, or the config digest of an image without one.
    """

    def __init__(self, archive: str, reason: str, choices: Sequence[str]) -> None:
        super().__init__(archive, reason, choices)
        self.archive, self.reason, self.choices = archive, reason, choices

    def __str__(self) -> str:
        return f"{self.archive}: {self.reason}; it holds {listed(self.choices)}. Nothing was stored"


class ArchiveError(StoreError):
    """An archive cannot be taken.

    Attributes:
        archive: Path of the archive.
        reason: What was found, as the rest of a sentence.
    """

    def __init__(self, archive: str, reason: str) -> None:
        super().__init__(archive, reason)
        self.archive, self.reason = archive, reason

    def __str__(self) -> str:
        return f"{self.archive}: {self.reason}. Nothing of it was stored; get the archive anew"


class UnsupportedArchiveError(ArchiveError):
    """A file is no image archive, or one of a form that is not supported."""

    def __str__(self) -> str:
        return f"{self.archive}: {self.reason}. Nothing of it was stored"


class ArchiveChangedError(ArchiveError):
    """A file was replaced or written to after the work with it began.

    Attributes:
        what: Which file: the archive, or a member of it that is a directory.
        expected: What it was.
        found: What is there.
    """

    def __init__(self, archive: str, what: str, expected: str, found: str) -> None:
        StoreError.__init__(self, archive, what, expected, found)
        self.archive, self.what, self.expected, self.found = archive, what, expected, found
        self.reason = f"{what} changed while it was read: it was {expected}, and is {found}"

    def __str__(self) -> str:
        return (
            f"{self.archive}: {self.reason}. Nothing of it was stored; try again, and leave the archive unchanged "
            "until that has ended"
        )


class DigestMismatchError(ArchiveError):
    """Bytes do not have the digest that they should have.

    Attributes:
        what: Which bytes: a config, a layer.
        expected: The digest they should have.
        found: The digest they have.
    """

    def __init__(self, archive: str, what: str, expected: str, found: str) -> None:
        StoreError.__init__(self, archive, what, expected, found)
        self.archive, self.what, self.expected, self.found = archive, what, expected, found
        self.reason = f"{what} should have digest {expected} but has {found}"


class LayerError(ArchiveError):
    """An entry of a layer is broken, hostile or not supported.

    Attributes:
        archive: Path of the archive.
        layer: Where in it the layer is.
        index: The entry's position in the layer, from 0; None if the error is about the layer as a whole.
        name: The entry's name, exactly as the layer has it.
        reason: What is wrong with the entry, as the rest of a sentence.
    """

    def __init__(self, archive: str, layer: str, index: int | None, name: bytes, reason: str) -> None:
        StoreError.__init__(self, archive, layer, index, name, reason)
        self.archive, self.layer, self.index, self.name, self.reason = archive, layer, index, name, reason

    def __str__(self) -> str:
        name = f"{shown(self.name)} " if self.name else ""
        entry = "" if self.index is None else f"entry {self.index} {name}"
        return (
            f"{self.archive}: layer {plain(self.layer)}: {entry}{self.reason}. Nothing of this layer was kept; "
            "rebuild the image, or report it to its publisher"
        )


class EscapingEntryError(LayerError):
    """An entry of a layer would lie outside its root file system."""


class LimitError(LayerError):
    """An archive asks for more than a limit allows.

    Attributes:
        layer: Empty if the error is about the archive as a whole.
        limit: The limit's name in ``Limits``.
    """

    def __init__(self, archive: str, layer: str, index: int | None, name: bytes, reason: str, limit: str) -> None:
        super().__init__(archive, layer, index, name, reason)
        self.args, self.limit = (*self.args, limit), limit

    @classmethod
    def of_archive(cls, archive: str, reason: str, limit: str) -> Self:
        """Return the error of an archive as a whole."""
        return cls(archive, "", None, b"", reason, limit)

    def __str__(self) -> str:
        layer = f"layer {plain(self.layer)}: " if self.layer else ""
        name = f"{shown(self.name)} " if self.name else ""
        entry = "" if self.index is None else f"entry {self.index} {name}"
        return (
            f"{self.archive}: {layer}{entry}{self.reason}. Nothing of it was kept; if you trust the image, start the "
            f"store with a larger Limits.{self.limit}"
        )


class NotFoundError(StoreError):
    """No image of that name is in the store.

    Attributes:
        name: The name, in the form the store shows.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no image {self.name} is in the store"


class ImageIncompleteError(NotFoundError):
    """An image is known, but some of its layers are not there.

    Attributes:
        missing: DiffIDs of the layers that are missing.
    """

    def __init__(self, name: str, missing: Sequence[str]) -> None:
        StoreError.__init__(self, name, missing)
        self.name, self.missing = name, missing

    def __str__(self) -> str:
        return f"image {self.name} is incomplete: the store lacks {listed(self.missing)}; put it again"


class NoArchiveError(NotFoundError):
    """A put was given no archive, and the archive directory has none of that name.

    Attributes:
        path: Where it was looked for.
    """

    def __init__(self, name: str, path: str) -> None:
        StoreError.__init__(self, name, path)
        self.name, self.path = name, path

    def __str__(self) -> str:
        return (
            f"no archive was given for {self.name}, and there is no {self.path}. Nothing was stored; save the archive "
            "there, or say where it is"
        )


class StackError(StoreError):
    """The layers of an image do not fit together.

    Attributes:
        layer: DiffID of the layer that asks for what those below it do not have.
        reason: What it asks for.
    """

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(layer, reason)
        self.layer, self.reason = layer, reason

    def __str__(self) -> str:
        return (
            f"layer {plain(self.layer)} {self.reason}. The layers stay in the store; rebuild the image, or tell its "
            "publisher"
        )


class ImageUserError(StoreError):
    """The tree of an image has no user of the name or the id that is wanted.

    Attributes:
        user: What is wanted.
        reason: Why it has none.
    """

    def __init__(self, user: str, reason: str) -> None:
        super().__init__(user, reason)
        self.user, self.reason = user, reason

    def __str__(self) -> str:
        return (
            f"nothing can be run as user {shown(self.user)} of the image: {plain(self.reason)}. Its tree was only "
            "read; name another user, or rebuild the image"
        )


class ContainerNotFoundError(StoreError):
    """No container of that id is in the store.

    Attributes:
        container_id: The id.
        path: The store.
    """

    def __init__(self, container_id: str, path: str) -> None:
        super().__init__(container_id, path)
        self.container_id, self.path = container_id, path

    def __str__(self) -> str:
        return f"no container {plain(self.container_id)} is in {self.path}"


class StateError(StoreError):
    """The store cannot do this now."""


class ContainerExistsError(StateError):
    """A container of that id is in the store.

    Attributes:
        container_id: The id.
        path: The store.
    """

    def __init__(self, container_id: str, path: str) -> None:
        super().__init__(container_id, path)
        self.container_id, self.path = container_id, path

    def __str__(self) -> str:
        return (
            f"a container {plain(self.container_id)} is in {self.path} already, and was left as it is; destroy it "
            "first, or choose another id"
        )


class ContainerHeldError(StateError):
    """A container belongs to another provisioner, of this process or of another one that is alive.

    Attributes:
        container_id: The id.
        path: The store.
    """

    def __init__(self, container_id: str, path: str) -> None:
        super().__init__(container_id, path)
        self.container_id, self.path = container_id, path

    def __str__(self) -> str:
        return (
            f"container {plain(self.container_id)} in {self.path} belongs to another provisioner, whose process is "
            "alive, and was left as it is; have that one destroy it, or end its process first"
        )


class ContainerRecordError(StateError):
    """A container's record cannot be read, so nobody knows what the container needs; it was left as it is.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. Nothing is removed from the store until that container is destroyed"


class RootfsError(StateError):
    """No root file system can be made in the way that was asked for, or in no way at all, here.

    Attributes:
        container_id: The container it was for.
        reasons: What stands in the way of each backend that was tried: its name, and a sentence.
    """

    def __init__(self, container_id: str, reasons: Sequence[tuple[str, str]]) -> None:
        super().__init__(container_id, reasons)
        self.container_id, self.reasons = container_id, tuple(reasons)

    def __str__(self) -> str:
        told = "; ".join(f"{backend}: {reason}" for backend, reason in self.reasons)
        return f"no root file system was made for {plain(self.container_id)}, and nothing of it is left. {told}"


class CheckpointError(StateError):
    """The file that says which images there are cannot be read; it was left as it is.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason}. It was left as it is, and the store cannot be used; restore storedImages and "
            "storedImages.journal from one backup, or move both away to begin with no images (layers are kept)"
        )


class LeaseError(StateError):
    """A lease that a process holds cannot be read, so nobody knows which layers it needs.

    Attributes:
        path: The lease.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be read, and the process that holds it is alive. Nothing is removed from the store "
            "until that process ends; restart it"
        )


class LeaseEndedError(StateError):
    """A lease ended before it was taken over, so its layers may be gone.

    Attributes:
        token: The lease's.
        path: The store.
    """

    def __init__(self, token: str, path: str) -> None:
        super().__init__(token, path)
        self.token, self.path = token, path

    def __str__(self) -> str:
        return (
            f"nobody holds the lease {self.token} in {self.path}: it was released, or its process has ended, and its "
            "layers may be gone. Nothing was leased; get the image by its name, and hold a lease that is handed on "
            "until the other process has taken it over"
        )


class RecordError(StateError):
    """A layer's record cannot be read; it was left as it is.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason}. It was left as it is; repair the store, then put the images that have this "
            "layer again"
        )


class StoreClosedError(StateError):
    """The store was closed, or the provisioner that was asked."""

    def __str__(self) -> str:
        return "the store is closed, or the provisioner that was asked; start another one"


class ForeignStoreError(StateError):
    """A store, or a part of it, belongs to another user, and may not be used by this one.

    Attributes:
        path: The store.
        file: What may not be used.
        owner: Number of the user it belongs to.
        user: Number of this process' user.
        whole: Whether the store itself belongs to that user, not only some of what is in it.
    """

    def __init__(self, path: str, file: str, owner: int, user: int, whole: bool = True) -> None:
        super().__init__(path, file, owner, user, whole)
        self.path, self.file, self.owner, self.user, self.whole = path, file, owner, user, whole

    def __str__(self) -> str:
        found, remedy = "has files of", "have them given to the owner of the store"
        if self.whole:
            found, remedy = "belongs to", f"work as user {self.owner}, or with a store of your own"
        return (
            f"the store at {self.path} {found} user {self.owner}, and this is user {self.user}, who may not use "
            f"{self.file}. Nothing was changed; {remedy}"
        )


class UnsafeStoreError(StateError):
    """Anybody may write into a store's directory, and so could replace the store's files.

    Attributes:
        path: The directory, or one of its directories.
        mode: Its permissions.
    """

    def __init__(self, path: str, mode: int) -> None:
        super().__init__(path, mode)
        self.path, self.mode = path, mode

    def __str__(self) -> str:
        return (
            f"anybody may write into {self.path}, whose mode is {self.mode:03o}, and so replace what is stored. "
            "Nothing was changed; remove that permission (chmod o-w), or name another directory"
        )


class NotAStoreError(StateError):
    """A directory that is no store holds other files.

    Attributes:
        path: The directory.
        found: Those files, as paths relative to it.
    """

    def __init__(self, path: str, found: Sequence[str]) -> None:
        super().__init__(path, found)
        self.path, self.found = path, found

    def __str__(self) -> str:
        return (
            f"{self.path} is no image store, and not empty: it has {listed(self.found)}. Nothing was changed; name an "
            "empty directory, or one that does not exist yet"
        )


class StoreFormatError(StateError):
    """A store has a format that this release does not know, since a later one made it.

    Attributes:
        path: The store.
        found: The version of its format.
        known: The latest version that this release knows.
    """

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(path, found, known)
        self.path, self.found, self.known = path, found, known

    def __str__(self) -> str:
        return (
            f"the store at {self.path} has format {self.found}, and this release knows up to {self.known}. Nothing was "
            "changed; use the release that made it, or a later one"
        )


class MisplacedFileError(StateError):
    """Something else lies where a store has a file or a directory of its own; it was neither followed nor read.

    Attributes:
        path: Where.
        found: What is there, with its article.
        expected: What the store has there.
    """

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(path, found, expected)
        self.path, self.found, self.expected = path, found, expected

    def __str__(self) -> str:
        return (
            f"{self.path} is {self.found}, and a store has {self.expected} there. It was left as it is, and nothing "
            "was changed; move it away"
        )


class LocksUnsupportedError(StateError):
    """The file system has no locks that hold between processes, as is so with some network file systems.

    Attributes:
        path: The file that should be locked.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be locked: its file system has no locks that hold between processes. Nothing was "
            "changed; move the store to a local disk"
        )


class NotRemovedError(StateError):
    """Something could not be removed; all else that was to be removed is gone.

    Attributes:
        path: The first thing that is left.
        reason: What is in the way.
        count: How many things are left.
    """

    def __init__(self, path: str, reason: str, count: int = 1) -> None:
        super().__init__(path, reason, count)
        self.path, self.reason, self.count = path, reason, count

    def below(self, directory: str) -> NotRemovedError:
        """Return the same error, with the path taken to be relative to ``directory``."""
        return NotRemovedError(os.path.join(directory, self.path), self.reason, self.count)  # noqa: PTH118

    def __str__(self) -> str:
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.path} could not be removed: {self.reason}{more}. All else there was removed"


class OverBudgetError(StateError):
    """An image takes more room than the whole store may take.

    Attributes:
        path: The store.
        needed_bytes: What its layers take on disk, at least.
        budget_bytes: What the store may take; None for any number.
        needed_inodes: How many files, directories and the like its layers have, at least.
        budget_inodes: How many the store may have; None for any number.
    """

    def __init__(
        self,
        path: str,
        needed_bytes: int,
        budget_bytes: int | None,
        needed_inodes: int = 0,
        budget_inodes: int | None = None,
    ) -> None:
        super().__init__(path, needed_bytes, budget_bytes, needed_inodes, budget_inodes)
        self.path = path
        self.needed_bytes, self.budget_bytes = needed_bytes, budget_bytes
        self.needed_inodes, self.budget_inodes = needed_inodes, budget_inodes

    def __str__(self) -> str:
        if self.budget_bytes is not None and self.needed_bytes > self.budget_bytes:
            needed, budget = f"{self.needed_bytes}", f"{self.budget_bytes} bytes"
            option = "budget_bytes"
        else:
            needed, budget = f"{self.needed_inodes}", f"{self.budget_inodes} inodes"
            option = "budget_inodes"
        return (
            f"{self.path} may take {budget}, and the image alone takes at least {needed}. "
            f"Nothing of it was stored, and nothing was removed for it; start the store with a larger {option}"
        )


class NoSpaceError(StateError, OSError):
    """The store's disk is full, or would be.

    Attributes:
        path: What was to be written.
        needed_bytes: How much room that takes, at least.
        free_bytes: How much there is.
        free_inodes: How many more files the file system can hold; None if that was not asked.
    """

    def __init__(self, path: str, needed_bytes: int, free_bytes: int, free_inodes: int | None = None) -> None:
        OSError.__init__(self, errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.path, self.needed_bytes, self.free_bytes, self.free_inodes = path, needed_bytes, free_bytes, free_inodes

    def __reduce__(self) -> tuple[type[NoSpaceError], tuple[str, int, int, int | None]]:
        # An OSError would pass on its errno and its text.
        return type(self), (self.path, self.needed_bytes, self.free_bytes, self.free_inodes)

    def __str__(self) -> str:
        found = f"{self.free_bytes} bytes are left, and at least {self.needed_bytes} are needed"
        if self.free_inodes == 0:
            found = f"{self.free_bytes} bytes are left, but no inodes: the file system holds no more files"
        return f"{self.strerror}: {self.path}: {found}. Nothing of it was stored; make room, or move the store"


class FileTooLargeError(StateError, OSError):
    """A file would be larger than this process, or its file system, lets any file be.

    Attributes:
        archive: Path of the archive.
        what: Which file it would be.
        size_bytes: How large it would be, at least.
        limit_bytes: How large this process may make a file; None if only the file system has a limit.
    """

    def __init__(self, archive: str, what: str, size_bytes: int, limit_bytes: int | None) -> None:
        OSError.__init__(self, errno.EFBIG, os.strerror(errno.EFBIG), archive)
        self.archive, self.what, self.size_bytes, self.limit_bytes = archive, what, size_bytes, limit_bytes

    def __reduce__(self) -> tuple[type[FileTooLargeError], tuple[str, str, int, int | None]]:
        # An OSError would pass on its errno and its text.
        return type(self), (self.archive, self.what, self.size_bytes, self.limit_bytes)

    def __str__(self) -> str:
        limit = "the file system of the store takes no file as large"
        remedy = "move the store to another file system"
        if self.limit_bytes is not None:
            limit = f"no file of this process may have more than {self.limit_bytes}"
            remedy = "raise that limit (ulimit -f)"
        return (
            f"{self.archive}: {self.what} has {self.size_bytes} bytes or more, and {limit}. Nothing of it was stored; "
            f"{remedy}"
        )


class ProcUnavailableError(StateError, OSError):
    """The file system /proc, which unpacking needs, is not there or may not be read.

    Attributes:
        path: What could not be read.
        reason: Why.
    """

    def __init__(self, path: str, number: int) -> None:
        OSError.__init__(self, number, os.strerror(number), path)
        self.path, self.reason = path, os.strerror(number)

    def __reduce__(self) -> tuple[type[ProcUnavailableError], tuple[str, int]]:
        return type(self), (self.path, self.errno or 0)

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason}, and unpacking a layer needs /proc. Nothing of it was stored; have it mounted "
            "where this process runs: mount -t proc proc /proc"
        )
