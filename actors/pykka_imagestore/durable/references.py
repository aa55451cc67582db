"""The images of a store, as its files have them: ``storedImages`` and the journal of what changed since.

Each process has a replica. It follows the others by reading what they appended, without a lock; a change is appended
under the writers' lock and then synced, without it, so that writers hardly wait for each other.

Compaction writes a new checkpoint, then replaces the journal by an empty one that continues from it. Between the two,
the old journal tells what the checkpoint holds already, and is passed over by its sequence. Who opens the journal
before the checkpoint therefore never misses a change.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from google.protobuf.message import DecodeError

from pykka_imagestore._proto.journal_pb2 import JournalFrame
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.journal import (
    HEADER_BYTES,
    Frame,
    find_attested,
    pack_frame,
    pack_header,
    parse_frame,
    parse_header,
)
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.durable.checkpoint import from_message, read_checkpoint, to_message, write_checkpoint
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk, write_whole
from pykka_imagestore.durable.files import open_file
from pykka_imagestore.durable.inventory import note_use
from pykka_imagestore.durable.layout import find_missing
from pykka_imagestore.durable.locks import FileLock, acquire, locked
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.durable.reserve import in_reserve
from pykka_imagestore.errors import CheckpointError, InvalidNameError, StateError

logger = logger_of(__name__)

_MAX_LOOKS = 100  # while others change images all the time
SMALL_JOURNAL_BYTES = 64 << 10  # below it, a checkpoint costs more than reading the journal


@dataclass(frozen=True, slots=True)
class Put:
    """From now on, the image of this name is this one."""

    image: DockerImage


@dataclass(frozen=True, slots=True)
class Remove:
    """From now on, there is no image of this name.

    Attributes:
        name: The image's.
        only: Remove it only if it is this one; None for whichever it is.
    """

    name: ImageName
    only: DockerImage | None = None


Change = Put | Remove


class References:
    """A replica of the images by name. Thread-safe; but changes are to be made by one thread at a time."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk
        self._journal_name = os.fspath(paths.journal)  # each look asks for it
        # Of the replica: taken after the writers' lock, never before. Nobody waits for a sync with it, but for that of
        # the first journal.
        self._lock = threading.Lock()
        self._images: dict[str, DockerImage] = {}  # by their names, as they are stored
        self._sequence = 0
        self._journal: _Journal | None = None
        self._checkpoint_bytes = 0
        self._is_loaded = False
        self._lasts = not isinstance(disk, ForgetfulDisk)
        self._must_rewrite = False  # a sync failed: what it left unwritten, no later one would write

    def find(self, name: ImageName) -> DockerImage | None:
        """Return the image of a name as of now, with the layers that are missing; None if there is none.

        Raises:
            CheckpointError: The files cannot be read. They are left as they are.
        """
        found = self._look(lambda images: [images[name.stored]] if name.stored in images else [])
        return found[0] if found else None

    def use(self, name: ImageName) -> DockerImage | None:
        """Return the image of a name as ``find`` does, and remember that it was used now."""
        image = self.find(name)
        if image is not None and not image.missing:
            note_use(self._paths, image)
        return image

    def list(self) -> tuple[DockerImage, ...]:
        """Return all images as of now, by name, with the layers that are missing.

        Raises:
            CheckpointError: As ``find``.
        """
        return self._look(lambda images: sorted(images.values(), key=lambda image: image.name))

    def settle(self) -> tuple[DockerImage, ...]:
        """Return all images as ``list`` does; what they are is durable, whoever put them.

        Raises:
            CheckpointError: As ``find``.
            OSError: It could not be synced.
        """
        images = self.list()
        self._sync()
        return images

    def refresh(self) -> None:
        """Read what was appended since.

        Raises:
            CheckpointError: As ``find``.
        """
        try:
            with self._lock:
                self._follow()
        except CheckpointError:
            # A reader without a lock may see bytes that are just being replaced.
            lock = self._lock_if_possible()
            if lock is None:
                raise
            try:
                with self._lock:
                    self._load()
                    self._follow()
            finally:
                lock.release()

    def commit(self, changes: Sequence[Change]) -> tuple[DockerImage | None, ...]:
        """Make changes, all of them durable on return.

        Returns:
            For each the image that was put or removed; None if there was none to be removed.

        Raises:
            CheckpointError: As ``find``.
            OSError: They could not be written, and are not made; or not synced, and may be made or not.
        """
        makes_room = any(isinstance(change, Remove) for change in changes)
        run: Callable[[Callable[[], None]], None] = partial(in_reserve, self._paths) if makes_room else _call
        with locked(self._paths.references_lock), self._lock:
            self._follow()
            answers, frame = self._plan(changes)
            if frame.changes:
                run(partial(self._append, frame.SerializeToString()))
        run(self._sync)
        return answers

    def compact(self, closing: bool) -> None:
        """Write a checkpoint and begin a new journal, if the journal is large; when closing, if that is cheap.

        Raises:
            CheckpointError: As ``find``.
            OSError: It could not be written. The journal goes on.
        """
        journal = self._journal
        if journal is None or journal.end == HEADER_BYTES:
            return
        if journal.end > max(SMALL_JOURNAL_BYTES, self._checkpoint_bytes) or (
            closing and self._checkpoint_bytes < SMALL_JOURNAL_BYTES
        ):
            self._rewrite()

    def torn_bytes(self) -> int:
        """Return how many bytes at the journal's end are no whole change, while nobody writes one.

        Raises:
            CheckpointError: As ``find``.
        """
        self.refresh()
        lock = self._lock_if_possible() if self._torn_bytes else None
        if lock is not None:
            try:
                self.refresh()
            finally:
                lock.release()
        return self._torn_bytes

    @property
    def _torn_bytes(self) -> int:
        journal = self._journal
        return 0 if journal is None else journal.torn_bytes

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._journal, self._is_loaded = None, False

    # -- reading

    def _lock_if_possible(self) -> FileLock | None:
        try:
            if not self._paths.references_lock.exists():
                return None
            return acquire(self._paths.references_lock)
        except (OSError, StateError):
            return None  # this process, or all of the file system, may only read

    def _look(self, choose: Callable[[dict[str, DockerImage]], Sequence[DockerImage]]) -> tuple[DockerImage, ...]:
        """Return chosen images, and which of their layers are missing while the images are these."""
        for _ in range(_MAX_LOOKS):
            self.refresh()
            with self._lock:
                images, sequence = choose(self._images), self._sequence
            found = self._looked_at(images)
            if not any(image.missing for image in found):
                break
            self.refresh()
            # Else one may have been removed, and its layers with it, and even have been put again since.
            if self._sequence == sequence:
                break
        return found

    def _looked_at(self, images: Sequence[DockerImage]) -> tuple[DockerImage, ...]:
        missing = find_missing(self._paths, [layer for image in images for layer in image.layer_ids])
        return tuple(image.without(missing) for image in images)

    def _follow(self) -> None:
        if not self._is_loaded or self._is_replaced():
            self._load()
        if self._journal is not None:
            self._read_frames(self._journal)

    def _is_replaced(self) -> bool:
        try:
            found = os.lstat(self._journal_name)
        except FileNotFoundError:
            return self._journal is not None
        journal = self._journal
        # An open file keeps its inode number from being given to another.
        return journal is None or (found.st_dev, found.st_ino) != journal.identity or found.st_size < journal.end

    def _load(self) -> None:
        self._is_loaded = False
        with told_if_foreign(self._paths.root):
            journal = self._open_journal()
            checkpoint = read_checkpoint(self._paths.stored_images)
        if journal is not None and journal.sequence > checkpoint.sequence:
            reason = f"it continues from change {journal.sequence}, but {self._paths.stored_images.name} holds only "
            raise CheckpointError(str(self._paths.journal), f"{reason}those up to {checkpoint.sequence}")
        self._journal = journal
        self._images = {image.name: image for image in checkpoint.images}
        self._sequence = checkpoint.sequence
        self._checkpoint_bytes = checkpoint.size_bytes
        self._is_loaded = True

    def _open_journal(self) -> _Journal | None:
        try:
            return _Journal.open(self._paths.journal)
        except FileNotFoundError:
            return None

    def _read_frames(self, journal: _Journal) -> None:
        data, at = journal.read_tail(), 0
        while (frame := parse_frame(data, at)) is not None:
            if frame.sequence != journal.sequence + 1:
                reason = f"change {journal.sequence} is followed by {frame.sequence}"
                raise CheckpointError(str(journal.path), reason)
            if frame.sequence > self._sequence:
                self._apply(journal.path, frame)
            journal.sequence = frame.sequence
            journal.end += frame.size_bytes
            at += frame.size_bytes
        if find_attested(data[at:]) > journal.end:
            reason = f"what follows change {journal.sequence}, at byte {journal.end}, is damaged"
            raise CheckpointError(str(journal.path), reason)
        journal.torn_bytes = len(data) - at

    def _apply(self, path: Path, frame: Frame) -> None:
        try:
            message = JournalFrame.FromString(frame.payload)
        except (DecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(str(path), f"change {frame.sequence} is no JournalFrame: {error}") from error
        for change in message.changes:
            if change.HasField("put"):
                image = from_message(path, change.put)
                self._images[image.name] = image
            else:
                self._images.pop(_name_of_removal(path, change), None)
        self._sequence = frame.sequence

    # -- writing

    def _plan(self, changes: Iterable[Change]) -> tuple[tuple[DockerImage | None, ...], JournalFrame]:
        """Return what each change answers, and a frame of those that change something."""
        answers: list[DockerImage | None] = []
        frame = JournalFrame()
        planned: dict[str, DockerImage | None] = {}
        for change in changes:
            key = change.image.name if isinstance(change, Put) else change.name.stored
            before = planned[key] if key in planned else self._images.get(key)
            if isinstance(change, Put):
                answers.append(change.image)
                if before != change.image:
                    planned[key] = change.image
                    frame.changes.add(put=to_message(change.image))
            elif before is not None and change.only in (None, before):
                answers.append(before)
                planned[key] = None
                frame.changes.add(remove=before.name)
            else:
                answers.append(None)
        return tuple(answers), frame

    def _append(self, payload: bytes) -> None:
        journal = self._journal
        if journal is None or journal.sequence < self._sequence:
            # A crash left a checkpoint that holds more than the journal beside it, whose end was not synced.
            self._journal = journal = self._begin_journal(self._sequence)
        elif journal.has_other_names():
            # What copies of the store by hard links, or somebody's own file, have in common with it stays as it is.
            images = self._images.values()
            self._checkpoint_bytes = write_checkpoint(self._paths.stored_images, images, self._sequence, self._disk)
            self._journal = journal = self._begin_journal(self._sequence)
        if journal.torn_bytes:
            logger.warning(
                "%s: its last %d bytes were cut off by a crash and are dropped", journal.path, journal.torn_bytes
            )
        journal.append(Frame(self._sequence + 1, journal.synced, payload))
        self._read_frames(journal)

    def _begin_journal(self, sequence: int) -> _Journal:
        path = self._paths.journal
        write_whole(path, pack_header(sequence), self._disk, aside=path.with_name(f"{path.name}.new"))
        journal = _Journal.open(path)
        if self._lasts:
            journal.synced = journal.end
        return journal

    def _sync(self) -> None:
        if self._must_rewrite:
            return self._rewrite()
        journal = self._journal
        if journal is None or journal.synced == journal.end:
            return None
        end = journal.end
        try:
            self._disk.sync_data(journal.descriptor)
            if not journal.synced:
                self._disk.sync_directory(self._paths.root)  # whoever began the journal may have died before
        except OSError as error:
            logger.warning("%s could not be synced, and is written anew: %s", journal.path, error)
            self._must_rewrite = True
            return self._rewrite()
        if self._lasts:
            journal.synced = end
        return None

    def _rewrite(self) -> None:
        with locked(self._paths.references_lock):
            with self._lock:
                self._follow()
                images, sequence = tuple(self._images.values()), self._sequence
            # Nobody appends meanwhile, so the replica stays as it is.
            size_bytes = write_checkpoint(self._paths.stored_images, images, sequence, self._disk)
            journal = self._begin_journal(sequence)
            with self._lock:
                self._checkpoint_bytes, self._journal, self._must_rewrite = size_bytes, journal, False


class _Journal(Uncopyable):
    """The open file, closed when nobody has this object any more: one thread may sync it while another replaces it.

    Attributes:
        sequence: Of the last frame that was read.
        end: Bytes that were read.
        synced: Bytes that are durable for certain, and then so is the file's name.
        torn_bytes: Bytes after ``end`` that are no whole frame.
    """

    instead = "open it again"

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        status = os.fstat(self.descriptor)
        self.identity = (status.st_dev, status.st_ino)
        sequence = parse_header(os.pread(self.descriptor, HEADER_BYTES, 0))
        if sequence is None:
            raise CheckpointError(str(path), "it does not begin as a journal of images")
        self.sequence = sequence
        self.end = HEADER_BYTES
        self.synced = self.torn_bytes = 0

    def __del__(self) -> None:
        os.close(self.descriptor)

    @classmethod
    def open(cls, path: Path) -> _Journal:
        """Open the file.

        Raises:
            CheckpointError: It does not begin as a journal.
            MisplacedFileError, ForeignStoreError: As ``open_file``.
        """
        try:
            return cls(path, open_file(path, os.O_RDWR))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            return cls(path, open_file(path))  # whoever only reads need not write

    def read_tail(self) -> bytes:
        """Return what was not read yet."""
        size = os.fstat(self.descriptor).st_size - self.end
        return os.pread(self.descriptor, size, self.end) if size > 0 else b""

    def has_other_names(self) -> bool:
        """Tell whether the file can be reached by another name, too."""
        return os.fstat(self.descriptor).st_nlink > 1

    def append(self, frame: Frame) -> None:
        """Write a frame, not synced, in the place of what is torn.

        Raises:
            OSError: It could not be written; nothing of it is left, unless the disk refuses that too.
        """
        if self.torn_bytes:
            os.ftruncate(self.descriptor, self.end)
        try:
            _write_at(self.descriptor, pack_frame(frame), self.end)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.descriptor, self.end)
            error.filename = str(self.path)
            raise


def _call(act: Callable[[], None]) -> None:
    act()


def _name_of_removal(path: Path, change: JournalFrame.Change) -> str:
    try:
        return ImageName.parse(change.remove).stored
    except InvalidNameError as error:  # or a change that only a later version knows
        raise CheckpointError(str(path), f"one of its changes neither puts nor removes an image: {error}") from error


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
