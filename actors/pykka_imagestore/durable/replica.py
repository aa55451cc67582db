"""A process's copy of the images by name: the checkpoint, and the changes that were appended to the journal since.

Compaction writes a new checkpoint, then replaces the journal by an empty one that continues from it. Between the two,
the old journal repeats changes that the checkpoint holds already; their sequence tells, and they are passed over. A
replica opens the journal before it reads the checkpoint, and so never misses a change.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pykka_imagestore import _proto
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName, without_label
from pykka_imagestore.core.journal import Frame, find_attested, parse_frame
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import from_message, read_checkpoint
from pykka_imagestore.durable.journal_file import JournalFile
from pykka_imagestore.durable.messages import parse_message
from pykka_imagestore.durable.owner import told_if_foreign
from pykka_imagestore.errors import CheckpointError, InvalidNameError


class Replica:
    """The images as this process last read them. Each method is called with ``lock`` held.

    Attributes:
        lock: Taken after the writers' lock, never before it. No sync is waited for while it is held, but for that of
            the first journal.
        images: By their names, as they are stored, without labels.
        sequence: Of the last change that they show.
        journal: The open journal; None if there is none.
        checkpoint_bytes: Size of the checkpoint.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._journal_name = os.fspath(paths.journal)  # each lookup needs it
        self.lock = threading.Lock()
        self.images: dict[str, DockerImage] = {}
        self.sequence = 0
        self.journal: JournalFile | None = None
        self.checkpoint_bytes = 0
        self._is_loaded = False

    @property
    def torn_bytes(self) -> int:
        """Bytes at the journal's end that are no whole frame."""
        journal = self.journal
        return 0 if journal is None else journal.torn_bytes

    def follow(self) -> None:
        """Read what was appended since; all of it, if the journal was replaced.

        Raises:
            CheckpointError: The files cannot be read. They are left as they are.
        """
        if not self._is_loaded or self._is_replaced():
            self.load()
        if self.journal is not None:
            self.read_frames(self.journal)

    def load(self) -> None:
        """Read the checkpoint, and open the journal that continues from it.

        Raises:
            CheckpointError: As ``follow``.
        """
        self._is_loaded = False
        with told_if_foreign(self._paths.root):
            journal = self._open_journal()
            checkpoint = read_checkpoint(self._paths.stored_images)
        if journal is not None and journal.sequence > checkpoint.sequence:
            reason = f"it continues from change {journal.sequence}, but {self._paths.stored_images.name} holds only "
            raise CheckpointError(str(self._paths.journal), f"{reason}those up to {checkpoint.sequence}")
        self.journal = journal
        self.images = {without_label(image.name): image for image in checkpoint.images}
        self.sequence = checkpoint.sequence
        self.checkpoint_bytes = checkpoint.size_bytes
        self._is_loaded = True

    def read_frames(self, journal: JournalFile) -> None:
        """Apply the frames of the journal that were not read yet.

        Raises:
            CheckpointError: As ``follow``.
        """
        data, at = journal.read_tail(), 0
        while (frame := parse_frame(data, at)) is not None:
            if frame.sequence != journal.sequence + 1:
                reason = f"change {journal.sequence} is followed by {frame.sequence}"
                raise CheckpointError(str(journal.path), reason)
            if frame.sequence > self.sequence:
                self._apply(journal.path, frame)
            journal.sequence = frame.sequence
            journal.end += frame.size_bytes
            at += frame.size_bytes
        if find_attested(data[at:]) > journal.end:
            reason = f"what follows change {journal.sequence}, at byte {journal.end}, is damaged"
            raise CheckpointError(str(journal.path), reason)
        journal.torn_bytes = len(data) - at

    def continue_in(self, journal: JournalFile, checkpoint_bytes: int) -> None:
        """Go on from a checkpoint of what this replica shows, and the empty journal that continues from it."""
        self.journal, self.checkpoint_bytes = journal, checkpoint_bytes

    def close(self) -> None:
        """Let go of the journal; the next lookup reads all anew."""
        self.journal, self._is_loaded = None, False

    def _is_replaced(self) -> bool:
        try:
            found = os.lstat(self._journal_name)
        except FileNotFoundError:
            return self.journal is not None
        return self.journal is None or not self.journal.is_at(found)

    def _open_journal(self) -> JournalFile | None:
        try:
            return JournalFile.open(self._paths.journal)
        except FileNotFoundError:
            return None

    def _apply(self, path: Path, frame: Frame) -> None:
        try:
            message = parse_message(_proto.JournalFrame, frame.payload)
        except ValueError as error:
            raise CheckpointError(str(path), f"change {frame.sequence} is no JournalFrame: {error}") from error
        for change in message.changes:
            if change.HasField("put"):
                image = from_message(path, change.put)
                self.images[without_label(image.name)] = image
            else:
                self.images.pop(_name_of_removal(path, change), None)
        self.sequence = frame.sequence


def _name_of_removal(path: Path, change: _proto.JournalFrame.Change) -> str:
    try:
        return ImageName.parse_stored(change.remove).stored
    except InvalidNameError as error:  # or a change that only a later version knows
        raise CheckpointError(str(path), f"one of its changes neither puts nor removes an image: {error}") from error
