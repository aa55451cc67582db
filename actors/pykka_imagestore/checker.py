"""Checks that what is stored is what was put, and takes out what is damaged.

Handle: Checker. Actor: CheckerActor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pykka

from pykka_imagestore import tasks
from pykka_imagestore.collector import Collector
from pykka_imagestore.core.check_report import (
    CheckProgress,
    CheckReport,
    Finding,
    find_image_faults,
    find_torn_journal,
    stacks_by_config,
)
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.identity import Identity
from pykka_imagestore.durable.layout import find_configs, find_layers
from pykka_imagestore.durable.marker import find_strangers
from pykka_imagestore.handle import StoreActor
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import (
    Future,
    SerialExecutor,
    WorkerPool,
    WorkerTimeoutError,
    defer,
    dispatch,
    gather,
)

if TYPE_CHECKING:
    from pykka_imagestore.jobs.check_configs import ConfigsCheck, Stack
    from pykka_imagestore.jobs.check_layer import CheckCounts


CheckListener = Callable[[CheckProgress], object]


class Checker:
    """Finds damage. Methods return at once; discarding their future stops the work. Thread-safe."""

    def __init__(self, actor: pykka.ActorRef[CheckerActor]) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls,
        paths: StorePaths,
        references: ReferenceStore,
        collector: Collector,
        pool: WorkerPool,
        limits: Limits,
        layer_time_limit: float | None = None,
    ) -> Checker:
        """Start a checker. Nothing is read until a check begins.

        Args:
            pool: Runs the work.
            limits: The limits on a layer's entries, as for a put.
            layer_time_limit: Seconds that the check of a layer may take. A layer that needs more is reported as not
                checked.
        """
        return cls(CheckerActor.start(paths, references, collector, pool, limits, layer_time_limit))

    def check(self, *, deep: bool, listener: CheckListener | None = None) -> Future[CheckReport]:
        """Check everything, and change nothing."""
        return dispatch(self._actor, CheckerActor.check, deep, listener)

    def repair(self, *, deep: bool, listener: CheckListener | None = None) -> Future[CheckReport]:
        """Check everything, and take out damaged layers and configs, except leased ones."""
        return dispatch(self._actor, CheckerActor.repair, deep, listener)

    def close(self) -> None:
        """Stop. Idempotent."""
        self._actor.stop(timeout=60)


class CheckerActor(StoreActor):
    """Runs checks; keeps no state between them."""

    def __init__(
        self,
        paths: StorePaths,
        references: ReferenceStore,
        collector: Collector,
        pool: WorkerPool,
        limits: Limits,
        layer_time_limit: float | None,
    ) -> None:
        super().__init__()
        self._layer_time_limit = layer_time_limit
        self._paths = paths
        self._references = references
        self._collector = collector
        self._pool = pool
        self._limits = limits
        self._executor = SerialExecutor("imagestore-checker")

    async def check(self, deep: bool, listener: CheckListener | None) -> CheckReport:
        report, _ = await self._check_all(deep, listener)
        return report

    async def repair(self, deep: bool, listener: CheckListener | None) -> CheckReport:
        report, damaged = await self._check_all(deep, listener)
        configs = dict.fromkeys(Digest(fault.name) for fault in report.faults if fault.kind == "config")
        done = await self._collector.evict(damaged, configs)
        return replace(report, taken_out=done.evicted, put_anew=done.put_anew)

    def on_stop(self) -> None:
        self._executor.close()

    async def _check_all(
        self, deep: bool, listener: CheckListener | None
    ) -> tuple[CheckReport, dict[DiffID, Identity]]:
        """Return what was found, and the damaged layers with the identities that they had when they were checked."""
        await self._references.ready()
        layers = await self._executor.run(find_layers, self._paths)
        configs = await self._executor.run(find_configs, self._paths)
        config_check, others = await self._check_configs(configs)
        layer_checks = await self._check_layers(layers, deep, listener)
        # What was removed meanwhile is no fault, and what was put meanwhile is not looked at.
        images = await self._references.list()
        left = set(await self._executor.run(find_layers, self._paths))
        layer_checks = {layer: check for layer, check in layer_checks.items() if layer in left}
        damaged = {layer: check.identity for layer, check in layer_checks.items() if check.faults and check.identity}
        configs_left = frozenset(await self._executor.run(find_configs, self._paths))
        faults = [
            *_layer_findings({layer: check.faults for layer, check in layer_checks.items()}),
            *_config_findings(config_check.faults, configs_left),
            *find_image_faults(images, configs_left, damaged, others),
        ]
        unchecked = [
            *_layer_findings({layer: check.unchecked for layer, check in layer_checks.items()}),
            *_config_findings(config_check.unchecked, configs_left),
            *find_torn_journal(await self._references.torn_bytes()),
            *(Finding("store", path, "is not part of the store") for path in await self._find_strangers()),
        ]
        return CheckReport(len(images), len(layers), len(configs), tuple(faults), tuple(unchecked)), damaged

    async def _find_strangers(self) -> list[str]:
        try:
            return await self._executor.run(find_strangers, self._paths)
        except PermissionError:
            return []  # this user may enter a directory but not list it

    async def _check_configs(self, configs: list[Digest]) -> tuple[ConfigsCheck, set[tuple[Digest, Stack]]]:
        """Return what was found, and the stacks of layers that images have and their config does not list."""
        stacks = dict.fromkeys(configs, ()) | stacks_by_config(await self._references.list())
        # No time limit: the configs are only hashed, so nothing in them can make the work longer.
        check = await self._pool.run(
            tasks.check_configs, tasks.CheckConfigs(str(self._paths.configs), stacks), retry=True
        )
        return check, {(config, stacks[config][number]) for config, each in check.others.items() for number in each}

    async def _check_layers(
        self, layers: list[DiffID], deep: bool, listener: CheckListener | None
    ) -> dict[DiffID, tasks.LayerCheck]:
        progress = _Progress(len(layers), listener)
        checks = await gather([self.spawn(self._check_layer(layer, deep, progress)) for layer in layers])
        return dict(zip(layers, checks, strict=True))

    async def _check_layer(self, layer: DiffID, deep: bool, progress: _Progress) -> tasks.LayerCheck:
        request = tasks.CheckLayer(str(self._paths.layer(layer)), layer, deep, self._limits)
        tell = defer(self.actor_ref, lambda _, counts: progress.advance(layer, counts))
        limit = self._layer_time_limit
        try:
            check = await self._pool.run(tasks.check_layer, request, retry=True, time_limit=limit, on_report=tell)
        except WorkerTimeoutError:
            check = tasks.LayerCheck(
                unchecked=(f"takes longer to check than the {limit:g} seconds that a layer may take",)
            )
        progress.complete(layer)
        return check


class _Progress:
    """Counts what was checked, and tells a listener, which must not block."""

    def __init__(self, layers: int, listener: CheckListener | None) -> None:
        self._layers = layers
        self._done = 0
        self._bytes: dict[DiffID, int] = {}
        self._sizes: dict[DiffID, int] = {}
        self._listener = listener

    def advance(self, layer: DiffID, counts: CheckCounts) -> None:
        self._bytes[layer] = max(counts.checked_bytes, self._bytes.get(layer, 0))
        self._sizes[layer] = counts.size_bytes
        self._tell()

    def complete(self, layer: DiffID) -> None:
        self._done += 1
        self._bytes[layer] = self._sizes.get(layer, 0)  # the last report came up to a tenth of a second before the end
        self._tell()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(CheckProgress(self._done, self._layers, sum(self._bytes.values())))


def _layer_findings(reasons: Mapping[DiffID, Iterable[str]]) -> Iterator[Finding]:
    return (Finding("layer", layer, reason) for layer, found in reasons.items() for reason in found)


def _config_findings(reasons: Mapping[Digest, str], left: Collection[Digest]) -> Iterator[Finding]:
    return (Finding("config", config, reason) for config, reason in reasons.items() if config in left)
