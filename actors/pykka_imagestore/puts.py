"""Puts: what one was asked for, how a store carries them out, and which are under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pykka_imagestore.core.budget import Budget
from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.image_name import MAX_LENGTH, ImageName
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.parameters import parse_path, require_flag, require_seconds, require_text, require_type
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.errors import InvalidNameError
from pykka_imagestore.layer_store import LayerStore
from pykka_imagestore.leased_image import LeasedImage
from pykka_imagestore.progress import Listener, ProgressFeed
from pykka_imagestore.runtime import Future, Promise, SerialExecutor, SingleFlight, gather

if TYPE_CHECKING:
    from pykka_imagestore.core.layer_blob import LayerBlob, Place
    from pykka_imagestore.jobs.find_archive import FoundArchive

T = TypeVar("T")


def refuse_path_as_name(name: object) -> None:
    """Refuse an archive's path where the name of an image belongs.

    Raises:
        InvalidNameError: It is one.
    """
    if isinstance(name, PurePath) or (isinstance(name, str) and name.startswith(("/", "./", "../"))):
        how = "write put(name, archive), or load(archive) for the names that it has"
        raise InvalidNameError(str(name)[:MAX_LENGTH], f"it is a path; {how}")


@dataclass(frozen=True, slots=True)
class PutArguments:
    """What a caller gives for a put, apart from the name. Paths are absolute.

    Attributes:
        archive: None for that of the name in the store's archive directory.
        sandbox: Directory for what the workers have to say; None for nowhere.
        select: Which image of the archive; None where that is clear.
        platform: For which platform; None for this machine's.
    """

    archive: str | None
    sandbox: str | None
    select: str | None
    platform: str | None

    @classmethod
    def of(
        cls, archive: str | Path | None, sandbox: str | Path | None, select: str | None, platform: str | None
    ) -> Self:
        """Make them of what a caller says.

        Raises:
            InvalidInputError: A path is none, or a text is none.
        """
        require_text("select", select)
        require_text("platform", platform)
        return cls(_absolute("archive", archive), _absolute("sandbox", sandbox), select, platform)


@dataclass(frozen=True, slots=True)
class PutRequest:
    """A put, once it is known which archive it is of.

    Attributes:
        name: None for each image under all its own names.
        archive: Which one, as it was then: a put of an archive that was replaced since is another put.
        sandbox: As the caller gave it; likewise ``select`` and ``platform``.
    """

    name: ImageName | None
    archive: FoundArchive
    sandbox: str | None
    select: str | None
    platform: Platform | None

    @property
    def shown_name(self) -> str | None:
        """The name as the store shows it."""
        return None if self.name is None else self.name.stored

    @property
    def key(self) -> tuple[object, ...]:
        """What two puts have in common that can share the work."""
        name = None if self.name is None else self.name.key
        return (name, self.archive, self.sandbox, self.select, self.platform)


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How a store puts.

    Attributes:
        archive_dir: Where archives are found by name; None for nowhere.
        budget: What all of the store may take on disk.
        layer_time_limit: Seconds that a layer, or an archive's index, may take a worker; None for any number.
        durable: Whether all is synced.
        limits: How much an archive may ask for.
        follow_links: Whether symbolic links in an archive that is a directory are followed.
    """

    archive_dir: str | None
    budget: Budget
    layer_time_limit: float | None
    durable: bool
    limits: Limits
    follow_links: bool = False

    @classmethod
    def of(
        cls,
        archive_dir: str | Path | None,
        budget: Budget,
        layer_time_limit: float | None,
        *,
        durable: bool,
        limits: Limits,
        follow_links: bool = False,
    ) -> Self:
        """Make them of what a caller says.

        Raises:
            InvalidInputError: One is of another type, or a time limit is not above 0.
        """
        require_seconds("layer_time_limit", layer_time_limit, above_zero=True)
        require_flag("durable", durable)
        require_type("limits", limits, Limits, "a Limits")
        require_flag("follow_links", follow_links)
        return cls(_absolute("archive_dir", archive_dir), budget, layer_time_limit, durable, limits, follow_links)


@dataclass(frozen=True, slots=True, eq=False)
class PutUnderWay:
    """A put that has not ended.

    Attributes:
        request: What it was asked for.
        feed: Tells listeners how far it has come.
        lease_requests: Promises of the callers who want a lease of the image.
        begun: When it began, on the monotonic clock.
    """

    request: PutRequest
    feed: ProgressFeed
    lease_requests: list[Promise[LeasedImage]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)


class Puts:
    """The puts under way; equal requests share one. For one thread.

    Args:
        progress_thread: Where listeners are called.
    """

    def __init__(self, progress_thread: SerialExecutor) -> None:
        self._progress_thread = progress_thread
        self._flights: SingleFlight[object, Any] = SingleFlight()
        self._under_way: list[PutUnderWay] = []

    def join(
        self, request: PutRequest, listener: Listener | None, start: Callable[[PutUnderWay], Future[T]]
    ) -> Future[T]:
        """Return a handle on the put of a request, starting it if there is none; ``start`` must see to ``end``."""

        def start_anew() -> Future[T]:
            put = PutUnderWay(request, ProgressFeed(self._progress_thread))
            self._under_way.append(put)
            return start(put)

        handle: Future[T] = self._flights.join(request.key, start_anew)
        put = self._latest(request)
        if put is not None and listener is not None:
            put.feed.listen(listener)
        return handle

    def request_lease(self, request: PutRequest) -> Future[LeasedImage]:
        """Return a lease of the image that the put of a request brings, once the image is there."""
        promise: Promise[LeasedImage] = Promise()
        put = self._latest(request)
        if put is not None:
            put.lease_requests.append(promise)
        return promise.future

    def forget(self, put: PutUnderWay) -> None:
        """Let no request join a put any more; one that comes starts another."""
        if put is self._latest(put.request):
            self._flights.forget(put.request.key)

    def end(self, put: PutUnderWay) -> None:
        """Note that a put has ended, however it did."""
        self._under_way.remove(put)

    def _latest(self, request: PutRequest) -> PutUnderWay | None:
        """Return the put under way of a request. Of several, all but the one that came last cannot be joined."""
        key = request.key
        return next((put for put in reversed(self._under_way) if put.request.key == key), None)


class LegacyDiffIDs:
    """The computed DiffIDs of layers that the archive claims none for, each computed once in a put."""

    def __init__(self, layers: LayerStore) -> None:
        self._layers = layers
        self._known: dict[Place, DiffID] = {}

    async def find(self, layers: Sequence[LayerBlob]) -> tuple[DiffID, ...]:
        """Return the layers' DiffIDs; layers that lie in one place are read once, whatever their names."""
        new = {layer.place: layer for layer in layers if layer.place not in self._known}
        found = await gather([self._layers.hash_layer(layer) for layer in new.values()])
        self._known.update(zip(new, found, strict=True))
        return tuple(self._known[layer.place] for layer in layers)


def _absolute(what: str, path: str | Path | None) -> str | None:
    return None if path is None else str(parse_path(what, path).absolute())
