"""Checks that what is stored is what it must be, and takes out what is not.

Handle: Checker. Actor: CheckerActor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pykka

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
from pykka_imagestore.jobs.check.findings import LayerCheck
from pykka_imagestore.jobs.check_configs import CheckConfigs, ConfigsCheck, Stack, check_configs
from pykka_imagestore.jobs.check_layer import CheckCounts, CheckLayer, check_layer
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import (
    Actor,
    Future,
    SerialExecutor,
    WorkerPool,
    WorkerTimeoutError,
    defer,
    dispatch,
    gather,
)

CheckListener = Callable[[CheckProgress], object]


class Checker:
    """Looks for damage. Methods return at once; a discard stops the work. Thread-safe."""

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
        """Start a checker whose work ``pool`` runs. Nothing is looked at yet.

        Args:
            layer_time_limit: Seconds that a layer may take; one that needs more is not checked.
        """
        return cls(CheckerActor.start(paths, references, collector, pool, limits, layer_time_limit))

    def check(self, *, deep: bool, listener: CheckListener | None = None) -> Future[CheckReport]:
        """Look at everything, and change nothing."""
        return dispatch(self._actor, CheckerActor.check, deep, listener)

    def repair(self, *, deep: bool, listener: CheckListener | None = None) -> Future[CheckReport]:
        """Look at everything, and take out layers and configs that are damaged, save leased ones."""
        return dispatch(self._actor, CheckerActor.repair, deep, listener)

    def close(self) -> None:
        """Stop. Idempotent."""
        self._actor.stop(timeout=60)


class CheckerActor(Actor):
    """Keeps nothing between two checks."""

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
        self._executor = SerialExecutor("checker")

    async def check(self, deep: bool, listener: CheckListener | None) -> CheckReport:
        report, _ = await self._look(deep, listener)
        return report

    async def repair(self, deep: bool, listener: CheckListener | None) -> CheckReport:
        report, bad = await self._look(deep, listener)
        configs = dict.fromkeys(Digest(fault.name) for fault in report.faults if fault.kind == "config")
        done = await self._collector.evict(bad, configs)
        return replace(report, taken_out=done.evicted, put_anew=done.put_anew)

    async def _look(self, deep: bool, listener: CheckListener | None) -> tuple[CheckReport, dict[DiffID, Identity]]:
        """Return what was found, and the damaged layers with what they were when they were looked at."""
        await self._references.ready()
        layers = await self._executor.run(find_layers, self._paths)
        configs = await self._executor.run(find_configs, self._paths)
        progress = _Progress(len(layers), listener)
        configs_check, others = await self._check_configs(configs)
        checked = await gather([self.spawn(self._check_layer(layer, deep, progress)) for layer in layers])
        # What was removed meanwhile is no fault, and what was put meanwhile is not looked at.
        images = await self._references.list()
        left = set(await self._executor.run(find_layers, self._paths))
        found = {layer: check for layer, check in zip(layers, checked, strict=True) if layer in left}
        bad = {layer: check.identity for layer, check in found.items() if check.faults and check.identity}
        there = frozenset(await self._executor.run(find_configs, self._paths))
        faults = [
            *(Finding("layer", layer, fault) for layer, check in found.items() for fault in check.faults),
            *(Finding("config", config, fault) for config, fault in configs_check.faults.items() if config in there),
            *find_image_faults(images, there, bad, others),
        ]
        unchecked = [
            *(Finding("layer", layer, what) for layer, check in found.items() for what in check.unchecked),
            *(Finding("config", config, what) for config, what in configs_check.unchecked.items() if config in there),
            *find_torn_journal(await self._references.torn_bytes()),
            *(Finding("store", path, "is nothing of the store's") for path in await self._find_strangers()),
        ]
        return CheckReport(len(images), len(layers), len(configs), tuple(faults), tuple(unchecked)), bad

    async def _find_strangers(self) -> list[str]:
        try:
            return await self._executor.run(find_strangers, self._paths)
        except PermissionError:
            return []  # a directory that one may pass through and not list

    def on_stop(self) -> None:
        self._executor.close()

    async def _check_configs(self, configs: list[Digest]) -> tuple[ConfigsCheck, set[tuple[Digest, Stack]]]:
        """Check configs; return what was found, and those that images have with layers that they do not list."""
        stacks = dict.fromkeys(configs, ()) | stacks_by_config(await self._references.list())
        # No time limit: configs are hashed, and nothing in them says how much more there is to do.
        check = await self._pool.run(check_configs, CheckConfigs(str(self._paths.configs), stacks), retry=True)
        return check, {(config, stacks[config][number]) for config, each in check.others.items() for number in each}

    async def _check_layer(self, layer: DiffID, deep: bool, progress: _Progress) -> LayerCheck:
        request = CheckLayer(str(self._paths.layer(layer)), layer, deep, self._limits)
        tell = defer(self.actor_ref, lambda _, counts: progress.advance(layer, counts))
        limit = self._layer_time_limit
        try:
            check = await self._pool.run(check_layer, request, retry=True, time_limit=limit, on_report=tell)
        except WorkerTimeoutError:
            check = LayerCheck(unchecked=(f"takes longer to check than the {limit:g} seconds that a layer may take",))
        progress.complete()
        return check


class _Progress:
    """How far a check has come, and who wants to know; the listener must not block."""

    def __init__(self, layers: int, listener: CheckListener | None) -> None:
        self._layers = layers
        self._done = 0
        self._bytes: dict[DiffID, int] = {}
        self._listener = listener

    def advance(self, layer: DiffID, counts: CheckCounts) -> None:
        self._bytes[layer] = counts.checked_bytes
        self._tell()

    def complete(self) -> None:
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(CheckProgress(self._done, self._layers, sum(self._bytes.values())))
