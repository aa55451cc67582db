"""Writing the images' files: frames appended to the journal, their sync, and the compaction into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.journal import HEADER_BYTES, Frame, pack_header
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import write_checkpoint
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk, write_whole
from pykka_imagestore.durable.journal_file import JournalFile
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.durable.replica import Replica

logger = logger_of(__name__)

SMALL_JOURNAL_BYTES = 64 << 10  # below it, a checkpoint costs more than reading the journal


class JournalWriter:
    """Writes what a replica shows, and what changes in it. One thread at a time may write."""

    def __init__(self, paths: StorePaths, disk: Disk, replica: Replica) -> None:
        self._paths = paths
        self._disk = disk
        self._replica = replica
        self._is_durable = not isinstance(disk, ForgetfulDisk)
        self._must_rewrite = False  # a sync failed: no later one would write what it left unwritten

    def append(self, payload: bytes) -> None:
        """Append a frame, not synced, and apply it. The writers' lock and the replica's are held.

        Raises:
            OSError: It could not be written, and nothing changed.
        """
        replica = self._replica
        journal = replica.journal
        if journal is None or journal.sequence < replica.sequence:
            # A crash left a checkpoint that holds more than the journal beside it, whose end was not synced.
            journal = self._begin_journal(replica.sequence)
            replica.continue_in(journal, replica.checkpoint_bytes)
        elif journal.has_other_names():
            # A copy of the store made of hard links, or somebody's own link, shares the file and must stay as it is.
            size_bytes = self._write_checkpoint(replica.images.values(), replica.sequence)
            journal = self._begin_journal(replica.sequence)
            replica.continue_in(journal, size_bytes)
        if journal.torn_bytes:
            logger.warning(
                "%s: its last %d bytes were cut off by a crash and are dropped", journal.path, journal.torn_bytes
            )
        journal.append(Frame(replica.sequence + 1, journal.synced, payload))
        replica.read_frames(journal)

    def sync(self) -> None:
        """Make durable all that the replica has read. No lock is held, so that writers hardly wait for each other.

        Raises:
            OSError: It could not be synced.
        """
        if self._must_rewrite:
            self._rewrite()
            return
        journal = self._replica.journal
        if journal is None or journal.synced == journal.end:
            return
        end = journal.end
        try:
            self._disk.sync_data(journal.descriptor)  # commit point: the changes up to `end` outlive a power cut
            if not journal.synced:
                # commit point of the first changes: the process that created the journal may have died before it synced
                # the journal's name.
                self._disk.sync_directory(self._paths.root)
        except OSError as error:
            logger.warning("%s could not be synced, and is written anew: %s", journal.path, error)
            self._must_rewrite = True
            self._rewrite()
            return
        if self._is_durable:
            journal.synced = end

    def compact(self, closing: bool) -> None:
        """Write a checkpoint and begin a new journal, if the journal is large; when closing, if that is cheap.

        Raises:
            CheckpointError: The files cannot be read. They are left as they are.
            OSError: It could not be written. The journal goes on.
        """
        replica = self._replica
        journal = replica.journal
        if journal is None or journal.end == HEADER_BYTES:
            return
        if journal.end > max(SMALL_JOURNAL_BYTES, replica.checkpoint_bytes) or (
            closing and replica.checkpoint_bytes < SMALL_JOURNAL_BYTES
        ):
            self._rewrite()

    def _rewrite(self) -> None:
        replica = self._replica
        with locked(self._paths.references_lock):
            with replica.lock:
                replica.follow()
                images, sequence = tuple(replica.images.values()), replica.sequence
            # Nobody can append now, so the replica goes on showing these, and readers need not wait for the disk.
            size_bytes = self._write_checkpoint(images, sequence)
            journal = self._begin_journal(sequence)
            with replica.lock:
                replica.continue_in(journal, size_bytes)
                self._must_rewrite = False

    def _write_checkpoint(self, images: Iterable[DockerImage], sequence: int) -> int:
        # commit point, its rename: from then on the checkpoint holds the changes, and the journal only repeats them.
        return write_checkpoint(self._paths.stored_images, images, sequence, self._disk)

    def _begin_journal(self, sequence: int) -> JournalFile:
        path = self._paths.journal
        # commit point, its rename: the old journal is gone, of which the checkpoint holds all that was ever synced.
        write_whole(path, pack_header(sequence), self._disk, aside=path.with_name(f"{path.name}.new"))
        journal = JournalFile.open(path)
        if self._is_durable:
            journal.synced = journal.end
        return journal
