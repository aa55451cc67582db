"""The handles that a local store is composed of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.checker import Checker
from pykka_imagestore.collector import Collector
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.layer_facts import LayerFacts
from pykka_imagestore.layer_store import LayerStore
from pykka_imagestore.monitor import Monitor
from pykka_imagestore.puts import PutOptions
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import WorkerPool


@dataclass(frozen=True, slots=True)
class StoreParts:
    """One handle for each trade, all on one directory, and the pool that runs their work."""

    paths: StorePaths
    layer_facts: LayerFacts
    pool: WorkerPool
    references: ReferenceStore
    layers: LayerStore
    collector: Collector
    checker: Checker
    monitor: Monitor

    @classmethod
    def start(cls, directory: Path, pool: WorkerPool, options: PutOptions, monitor: Monitor) -> StoreParts:
        """Start all of them; ``pool`` runs their work. No disk is read until it is first needed."""
        paths, durable, limits, time_limit = (
            StorePaths(directory),
            options.durable,
            options.limits,
            options.layer_time_limit,
        )
        references = ReferenceStore.start(directory, durable=durable)
        layers = LayerStore.start(
            paths, pool, durable=durable, limits=limits, layer_time_limit=time_limit, monitor=monitor
        )
        collector = Collector.start(paths, references, pool, durable=durable, budget=options.budget, monitor=monitor)
        checker = Checker.start(paths, references, collector, pool, limits, time_limit)
        return cls(paths, LayerFacts(paths), pool, references, layers, collector, checker, monitor)

    def close(self) -> None:
        """Stop all but the references and the monitor, which puts that are being stopped still need. Idempotent."""
        with ExitStack() as closing:  # the last one first, even if one before it fails or is interrupted
            for part in (self.collector, self.checker, self.layers):
                closing.callback(part.close)
