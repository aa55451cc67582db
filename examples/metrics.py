"""A store's counts and events, for Prometheus if prometheus-client is installed; else they are printed."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import Event, ImagePut, LocalStore

HAS_PROMETHEUS = find_spec("prometheus_client") is not None
if HAS_PROMETHEUS:
    from prometheus_client import CollectorRegistry, Histogram, generate_latest
    from prometheus_client.core import CounterMetricFamily

    registry = CollectorRegistry()
    put_seconds = Histogram("imagestore_put_seconds", "how long puts take", registry=registry)


def docker_save(directory: Path) -> Path:
    """Make an archive of an image with one layer, as docker save does."""
    with tarfile.open(directory / "layer.tar", "w") as layer:
        layer.add(__file__, "srv/metrics.py")
    diff_id = hashlib.sha256((directory / "layer.tar").read_bytes()).hexdigest()
    (directory / "config.json").write_text(json.dumps({"rootfs": {"diff_ids": [f"sha256:{diff_id}"]}}))
    (directory / "manifest.json").write_text(json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]))
    with tarfile.open(directory / "app.tar", "w") as archive:
        for member in ("manifest.json", "config.json", "layer.tar"):
            archive.add(directory / member, member)
    return directory / "app.tar"


class StoreCollector:
    """Reads the counts when Prometheus asks: stats() only returns what is known already."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def collect(self) -> "Iterator[CounterMetricFamily]":
        for name, count in asdict(self.store.stats()).items():
            yield CounterMetricFamily(f"imagestore_{name}", name.replace("_", " "), value=count)


def note(event: Event) -> None:  # called in a thread of the store, which waits for nothing here
    print(event)
    if HAS_PROMETHEUS and isinstance(event, ImagePut):
        put_seconds.observe(event.seconds)


with TemporaryDirectory(prefix="imagestore-demo-") as work:
    with LocalStore.start(Path(work, "store"), on_event=note) as store:
        if HAS_PROMETHEUS:
            registry.register(StoreCollector(store))
        store.put("app:1", docker_save(Path(work))).get(timeout=600)
    print(generate_latest(registry).decode() if HAS_PROMETHEUS else store.stats())  # start_http_server(9000) serves it
