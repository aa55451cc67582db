"""A pool of sandboxes: hands out fresh root file systems, keeps some ready, and tells how often one was ready."""

import hashlib
import io
import itertools
import json
import os
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore, Provisioner, Rootfs
from pykka_imagestore.runtime import Actor, collect, dispatch


def docker_save(path: Path) -> None:
    layer = bytes(1024)
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, body in (("manifest.json", manifest), ("config.json", config), ("layer.tar", layer)):
            (member := tarfile.TarInfo(name)).size = len(body)
            tar.addfile(member, io.BytesIO(body))


class SandboxPool(Actor):
    """Makes one more for each that is taken, so that as many as at the beginning are ready, or soon will be."""

    def __init__(self, provisioner: Provisioner, image: str, ready: int) -> None:
        super().__init__()
        self.sandboxes = (provisioner.provision(f"sandbox-{number}", image) for number in itertools.count())
        self.coming, self.taken, self.hits = list(itertools.islice(self.sandboxes, ready)), 0, 0

    async def take(self) -> Rootfs:
        self.coming.append(next(self.sandboxes))
        sandbox, self.taken = self.coming.pop(0), self.taken + 1
        self.hits += sandbox.is_ready()
        return await sandbox

    async def end(self) -> tuple[float, list[Rootfs]]:
        return self.hits / self.taken, [await sandbox for sandbox in self.coming]


with TemporaryDirectory(prefix="imagestore-demo-") as work, LocalStore.start(Path(work, "store")) as store:
    docker_save(archive := Path(work, "task.tar"))
    store.put("task:1", archive).get(timeout=600)
    with Provisioner.start(store) as provisioner:
        pool, begun, gone = SandboxPool.start(provisioner, "task:1", ready=4), time.monotonic(), []
        for _ in range(100):
            sandbox = dispatch(pool, SandboxPool.take).get(timeout=60)
            os.close(os.open("mine", os.O_CREAT | os.O_EXCL, dir_fd=sandbox.fd))  # fails if it is not a fresh one
            gone.append(provisioner.destroy(sandbox.container_id))
        (rate, rest), seconds = dispatch(pool, SandboxPool.end).get(timeout=60), time.monotonic() - begun
        print(f"100 tasks had a fresh sandbox each, in {seconds:.2f} s; for {rate:.0%} of them one was ready.")
        gone += [provisioner.destroy(sandbox.container_id) for sandbox in rest]
        collect(gone).get(timeout=60)
