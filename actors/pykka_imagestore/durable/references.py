"""The images of a store by name, as its files have them: ``storedImages`` and the journal of what changed since.

Each process has a replica. It follows the others by reading what they appended, without a lock; a change is appended
under the writers' lock and then synced, without it, so that writers hardly wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pykka_imagestore import _proto
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName, without_label
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.checkpoint import to_message
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.journal_writer import JournalWriter
from pykka_imagestore.durable.layout import find_missing, note_use
from pykka_imagestore.durable.locks import FileLock, acquire, locked
from pykka_imagestore.durable.replica import Replica
from pykka_imagestore.durable.reserve import in_reserve
from pykka_imagestore.errors import CheckpointError, StateError

_MAX_LOOKS = 100  # while others change images all the time


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
    """The images by name, shared with other processes. Thread-safe; but one thread at a time may make changes."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._replica = Replica(paths)
        self._writer = JournalWriter(paths, disk, self._replica)

    def find(self, name: ImageName) -> DockerImage | None:
        """Return the image of a name as of now, with the layers that are missing; None if there is none.

        Raises:
            CheckpointError: The files cannot be read. They are left as they are.
        """
        found = self._look(lambda images: [images[name.stored]] if name.stored in images else [])
        return found[0] if found else None

    def recall(self, name: ImageName) -> DockerImage | None:
        """Return the image of a name as of now, used now; whether its layers are there is to be looked at afterwards.

        Raises:
            CheckpointError: As ``find``.
        """
        self.refresh()
        with self._replica.lock:
            image = self._replica.images.get(name.stored)
        if image is not None:
            note_use(self._paths, image)
        return image

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
        """Return all images as ``list`` does; what they are is durable, whichever process put them.

        Raises:
            CheckpointError: As ``find``.
            OSError: It could not be synced.
        """
        images = self.list()
        self._writer.sync()
        return images

    def refresh(self) -> None:
        """Read what was appended since.

        Raises:
            CheckpointError: As ``find``.
        """
        replica = self._replica
        try:
            with replica.lock:
                replica.follow()
        except CheckpointError:
            # A reader without the writers' lock may have seen bytes that were just being replaced.
            lock = self._lock_if_possible()
            if lock is None:
                raise
            try:
                with replica.lock:
                    replica.load()
                    replica.follow()
            finally:
                lock.release()

    def commit(self, changes: Sequence[Change]) -> tuple[DockerImage | None, ...]:
        """Make changes, all of them durable on return.

        Returns:
            For each change the image that was put or removed; None if there was none to be removed.

        Raises:
            CheckpointError: As ``find``.
            OSError: They could not be written, and are not made; or not synced, and may be made or not.
        """
        makes_room = any(isinstance(change, Remove) for change in changes)
        run: Callable[[Callable[[], None]], None] = partial(in_reserve, self._paths) if makes_room else _call
        with locked(self._paths.references_lock), self._replica.lock:
            self._replica.follow()
            answers, frame = _plan(changes, self._replica.images)
            if frame.changes:
                run(partial(self._writer.append, frame.SerializeToString()))
        run(self._writer.sync)
        return answers

    def compact(self, closing: bool) -> None:
        """Write a checkpoint and begin a new journal, if the journal is large; when closing, if that is cheap.

        Raises:
            CheckpointError: As ``find``.
            OSError: It could not be written. The journal goes on.
        """
        self._writer.compact(closing)

    def torn_bytes(self) -> int:
        """Return how many bytes at the journal's end are no whole change, while nobody writes one.

        Raises:
            CheckpointError: As ``find``.
        """
        self.refresh()
        lock = self._lock_if_possible() if self._replica.torn_bytes else None
        if lock is not None:
            try:
                self.refresh()
            finally:
                lock.release()
        return self._replica.torn_bytes

    def close(self) -> None:
        """Let go of the files."""
        with self._replica.lock:
            self._replica.close()

    def _lock_if_possible(self) -> FileLock | None:
        try:
            if not self._paths.references_lock.exists():
                return None
            return acquire(self._paths.references_lock)
        except (OSError, StateError):
            return None  # this process, or every process on this file system, may only read

    def _look(self, choose: Callable[[Mapping[str, DockerImage]], Sequence[DockerImage]]) -> tuple[DockerImage, ...]:
        """Return chosen images, with those of their layers that are missing while the images are these."""
        replica = self._replica
        for _ in range(_MAX_LOOKS):
            self.refresh()
            with replica.lock:
                images, sequence = choose(replica.images), replica.sequence
            found = self._with_missing(images)
            if not any(image.missing for image in found):
                break
            self.refresh()
            # If images changed meanwhile, one may have been removed, with its layers, and been put again since.
            if replica.sequence == sequence:
                break
        return found

    def _with_missing(self, images: Sequence[DockerImage]) -> tuple[DockerImage, ...]:
        missing = find_missing(self._paths, [layer for image in images for layer in image.layer_ids])
        return tuple(image.without(missing) for image in images) if missing else tuple(images)


def _plan(
    changes: Iterable[Change], images: Mapping[str, DockerImage]
) -> tuple[tuple[DockerImage | None, ...], _proto.JournalFrame]:
    """Return what each change answers, and a frame of those that change something."""
    answers: list[DockerImage | None] = []
    frame = _proto.JournalFrame()
    planned: dict[str, DockerImage | None] = {}
    for change in changes:
        key = without_label(change.image.name) if isinstance(change, Put) else change.name.stored
        before = planned[key] if key in planned else images.get(key)
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


def _call(act: Callable[[], None]) -> None:
    act()
