"""What happens in a store, as values, and the counts that they add up to. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.text import escaped, listed


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store has done since it was started: the sum of its events. Other stores on the directory do not count.

    Attributes:
        puts: Images that were put, each once, whatever its names.
        puts_joined: Calls that shared the work of a put under way.
        puts_failed: Puts that failed; several calls that share one count once.
        puts_discarded: Puts that were stopped, since nobody waited for them any more.
        layers_found: Layers of images that were put that were in the store before.
        layers_unpacked: Layers that were unpacked, of puts that failed later too.
        bytes_read: Bytes read of these layers, as they are stored in the archive.
        bytes_unpacked: Bytes of their uncompressed tars.
        index_seconds: Spent on finding out what archives hold. Several of these, and of each other stage, may run at
            once, and a wait for a worker counts.
        unpack_seconds: Spent on unpacking layers.
        publish_seconds: Spent on making layers durable and visible.
        record_seconds: Spent on writing configs and names.
        images_removed: Names that ``remove`` forgot.
        images_evicted: Names that prunes forgot, for a budget too.
        layers_removed: Layers that removals, prunes and repairs moved out of the store.
        bytes_removed: Bytes on disk of what they moved out.
        containers_provisioned: Root file systems that were made.
        containers_destroyed: Those that were destroyed.
        provision_seconds: Spent on making them.
        destroy_seconds: Spent on destroying them, until they were gone for their caller.
        sweeps: Directories of what was removed, or left by dead processes, that were deleted.
        sweep_seconds: Spent on deleting them.
        events_dropped: Events that a listener was not told of, since it is too slow.
    """

    puts: int = 0
    puts_joined: int = 0
    puts_failed: int = 0
    puts_discarded: int = 0
    layers_found: int = 0
    layers_unpacked: int = 0
    bytes_read: int = 0
    bytes_unpacked: int = 0
    index_seconds: float = 0.0
    unpack_seconds: float = 0.0
    publish_seconds: float = 0.0
    record_seconds: float = 0.0
    images_removed: int = 0
    images_evicted: int = 0
    layers_removed: int = 0
    bytes_removed: int = 0
    containers_provisioned: int = 0
    containers_destroyed: int = 0
    provision_seconds: float = 0.0
    destroy_seconds: float = 0.0
    sweeps: int = 0
    sweep_seconds: float = 0.0
    events_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Event(ABC):
    """Something that happened in a store; as text, a line that harms no terminal.

    Attributes:
        is_frequent: Whether one image may bring a thousand such events, which a log shows only at DEBUG.
    """

    is_frequent: ClassVar[bool] = False

    @abstractmethod
    def counts(self) -> dict[str, float]:
        """Return what this adds to which counts of ``StoreStats``."""


@dataclass(frozen=True, slots=True)
class ArchiveIndexed(Event):
    """It was found out what an archive holds.

    Attributes:
        archive: Its path.
        seconds: How long that took.
    """

    is_frequent = True
    archive: str
    seconds: float

    def __str__(self) -> str:
        return escaped(f"indexed {self.archive} in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        return {"index_seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class LayerUnpacked(Event):
    """A layer was unpacked, verified and published.

    Attributes:
        diff_id: Which layer.
        bytes_read: Bytes read of the layer, as it is stored in the archive.
        bytes_unpacked: Bytes of its uncompressed tar.
        unpack_seconds: How long it took to unpack it, with the wait for a worker.
        publish_seconds: How long it took to make it durable and visible.
    """

    is_frequent = True
    diff_id: DiffID
    bytes_read: int
    bytes_unpacked: int
    unpack_seconds: float
    publish_seconds: float

    def __str__(self) -> str:
        seconds = self.unpack_seconds + self.publish_seconds
        return f"unpacked layer {self.diff_id}, {format_size(self.bytes_unpacked)}, in {seconds:.3f} s"

    def counts(self) -> dict[str, float]:
        return {
            "layers_unpacked": 1,
            "bytes_read": self.bytes_read,
            "bytes_unpacked": self.bytes_unpacked,
            "unpack_seconds": self.unpack_seconds,
            "publish_seconds": self.publish_seconds,
        }


@dataclass(frozen=True, slots=True)
class ImagePut(Event):
    """An image is in the store, verified and durable.

    Attributes:
        names: Its names.
        layers: How many distinct layers it has.
        layers_found: How many of them were in the store before.
        bytes: Bytes of the other layers, as they are stored in the archive.
        seconds: How long the put took up to here; with ``load``, the images of an archive are put one after the other.
        record_seconds: How long it took to write its config and its names.
    """

    names: tuple[str, ...]
    layers: int
    layers_found: int
    bytes: int
    seconds: float
    record_seconds: float

    def __str__(self) -> str:
        layers = f"{format_size(self.bytes)} in {self.layers - self.layers_found} of {self.layers} layers"
        return escaped(f"put {listed(self.names)}: {layers}, in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        return {"puts": 1, "layers_found": self.layers_found, "record_seconds": self.record_seconds}


@dataclass(frozen=True, slots=True)
class PutJoined(Event):
    """A call shares the work of a put under way.

    Attributes:
        name: The name that it was called with; None for ``load``.
    """

    is_frequent = True
    name: str | None

    def __str__(self) -> str:
        return escaped(f"put of {self.name or 'an archive'} joined another")

    def counts(self) -> dict[str, float]:
        return {"puts_joined": 1}


@dataclass(frozen=True, slots=True)
class PutFailed(Event):
    """A put failed or was stopped.

    Attributes:
        name: The name that it was called with; None for ``load``.
        reason: The error, as text.
        is_discarded: Whether it was stopped, since nobody waited for it any more.
        seconds: How long it took up to here.
    """

    name: str | None
    reason: str
    is_discarded: bool
    seconds: float

    def __str__(self) -> str:
        how = "was stopped" if self.is_discarded else f"failed: {self.reason}"
        return escaped(f"put of {self.name or 'an archive'} after {self.seconds:.3f} s {how}")

    def counts(self) -> dict[str, float]:
        return {"puts_discarded" if self.is_discarded else "puts_failed": 1}


@dataclass(frozen=True, slots=True)
class ImagesRemoved(Event):
    """Images were forgotten, or layers moved out that nobody needs; the files are deleted afterwards.

    Attributes:
        cause: ``remove``, ``prune``, ``budget`` or ``repair``.
        names: The images that were forgotten.
        layers: How many layers were moved out.
        bytes: Bytes on disk of what was moved out.
        seconds: How long it took.
    """

    cause: str
    names: tuple[str, ...]
    layers: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        images = listed(self.names) if self.names else "no image"
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        moved = f"{layers} moved out, {format_size(self.bytes)} in all"
        return escaped(f"{self.cause}: {images} forgotten, {moved}, in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        forgotten = "images_removed" if self.cause == "remove" else "images_evicted"
        return {forgotten: len(self.names), "layers_removed": self.layers, "bytes_removed": self.bytes}


@dataclass(frozen=True, slots=True)
class ContainerProvisioned(Event):
    """A root file system was made.

    Attributes:
        container_id: Its container.
        image: The image, as it was asked for.
        backend: What made it.
        seconds: How long it took.
    """

    container_id: str
    image: str
    backend: str
    seconds: float

    def __str__(self) -> str:
        return escaped(f"provisioned {self.container_id} of {self.image}: {self.backend}, in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        return {"containers_provisioned": 1, "provision_seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class ContainerDestroyed(Event):
    """A container was destroyed; its files are deleted afterwards.

    Attributes:
        container_id: Which one.
        seconds: How long it took.
    """

    container_id: str
    seconds: float

    def __str__(self) -> str:
        return escaped(f"destroyed {self.container_id} in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        return {"containers_destroyed": 1, "destroy_seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Swept(Event):
    """What was moved out together, or what a dead process left, is deleted.

    Attributes:
        directory: Its name in the store.
        bytes: Bytes on disk that it took; None if a dead process left it, or it held containers.
        seconds: How long the deletion took, with the wait for a worker.
    """

    directory: str
    bytes: int | None
    seconds: float

    def __str__(self) -> str:
        size = "" if self.bytes is None else f", {format_size(self.bytes)},"
        return escaped(f"swept {self.directory}{size} in {self.seconds:.3f} s")

    def counts(self) -> dict[str, float]:
        return {"sweeps": 1, "sweep_seconds": self.seconds}
