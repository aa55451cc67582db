"""The handles that a local store is composed of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore.checker import Checker
from pykka_imagestore.collector import Collector
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.layer_store import LayerStore
from pykka_imagestore.puts import PutOptions
from pykka_imagestore.reference_store import ReferenceStore
from pykka_imagestore.runtime import WorkerPool


@dataclass(frozen=True, slots=True)
class StoreParts:
    """One handle for each trade, all on one directory."""

    paths: StorePaths
    references: ReferenceStore
    layers: LayerStore
    collector: Collector
    checker: Checker

    @classmethod
    def start(cls, directory: Path, pool: WorkerPool, options: PutOptions) -> StoreParts:
        """Start all of them; ``pool`` runs their work. No disk is read until it is first needed."""
        paths, durable, limits, time_limit = (
            StorePaths(directory),
            options.durable,
            options.limits,
            options.layer_time_limit,
        )
        references = ReferenceStore.start(directory, durable=durable)
        layers = LayerStore.start(paths, pool, durable=durable, limits=limits, layer_time_limit=time_limit)
        collector = Collector.start(paths, references, pool, durable=durable, budget=options.budget)
        checker = Checker.start(paths, references, collector, pool, limits, time_limit)
        return cls(paths, references, layers, collector, checker)

    def close_workers(self) -> None:
        """Stop all that uses the pool, and wait for it. Idempotent."""
        self.layers.close()
        self.checker.close()
        self.collector.close()
