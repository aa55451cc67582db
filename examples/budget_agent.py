"""An agent under a byte budget: each task has a lease of its image, and what no task uses makes room for others."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import Actor, Semaphore, WorkerPool, collect, dispatch

BUDGET = 2_500_000  # bytes: room for two images of a megabyte


def tar_of(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


def docker_save(path: Path) -> Path:
    """Make an archive of an image with one layer of a megabyte, as docker save does."""
    layer = tar_of({"data": path.name.encode()[:8] * 125_000})
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}})
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}])
    path.write_bytes(tar_of({"manifest.json": manifest.encode(), "config.json": config.encode(), "layer.tar": layer}))
    return path


def run_task(rootfs: Path) -> int:
    return sum((rootfs / "data").read_bytes())  # or whatever a task does with its image


class Agent(Actor):
    def __init__(self, store: LocalStore, tasks: WorkerPool) -> None:
        super().__init__()
        self.store, self.pool = store, tasks
        self.slots = Semaphore(2)  # tasks at once; what more of them lease could exceed the budget

    async def run(self, name: str, archive: Path) -> int:
        async with self.slots.held():
            with await self.store.put(name, archive, lease=True) as leased:  # from the put to the end of the task
                return await self.pool.run(run_task, leased.image.layers[0].path)


with TemporaryDirectory(prefix="imagestore-demo-") as work, WorkerPool(2, threads=True) as tasks:
    archives = [docker_save(Path(work, f"task{number}.tar")) for number in range(6)]
    with LocalStore.start(Path(work, "store"), budget_bytes=BUDGET) as store:
        agent = Agent.start(store, tasks)
        runs = [dispatch(agent, Agent.run, f"{path.stem}:1", path) for path in archives]
        print(f"{len(set(collect(runs).get(timeout=600)))} tasks have run, two at once, each on an image of 1 MB.")
        store.prune(budget_bytes=BUDGET).get(timeout=600)  # or a moment later, by itself, as leases have ended
        usage, stats = store.usage().get(timeout=600), store.stats()
        print(f"The store is within its budget: {usage.bytes <= BUDGET}; {stats.images_evicted} images have gone.")
