"""An agent actor answers messages while ten puts run. It awaits each put; worker processes do the work."""

import hashlib
import io
import json
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore
from pykka_imagestore.runtime import Actor, collect, dispatch


class Agent(Actor):
    def __init__(self, store: LocalStore) -> None:
        super().__init__()
        self.store = store
        self.images: list[str] = []

    async def prepare(self, name: str, archive: Path) -> None:
        image = await self.store.put(name, archive)  # other messages are handled meanwhile
        self.images.append(image.name)

    def count(self) -> int:
        return len(self.images)


def tar_of(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


def docker_save(number: int) -> bytes:
    """Return an archive as docker save writes it, of an image with one layer of 2,000 files."""
    layer = tar_of({f"data/{n // 100}/{n}": f"image {number}, file {n}\n".encode() * 50 for n in range(2000)})
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}})
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}])
    return tar_of({"manifest.json": manifest.encode(), "config.json": config.encode(), "layer.tar": layer})


with TemporaryDirectory(prefix="imagestore-demo-") as directory, LocalStore.start(Path(directory, "store")) as store:
    archives = [Path(directory, f"{number}.tar") for number in range(10)]
    for number, archive in enumerate(archives):
        archive.write_bytes(docker_save(number))
    agent, answers, begin = Agent.start(store), [], time.perf_counter()
    puts = collect([dispatch(agent, Agent.prepare, f"app:{number}", path) for number, path in enumerate(archives)])
    while puts.is_pending():
        start = time.perf_counter()
        dispatch(agent, Agent.count).get(timeout=60)
        answers.append(time.perf_counter() - start)
        time.sleep(0.001)
    print(f"{len(puts.get(timeout=60))} puts took {time.perf_counter() - begin:.2f} s.")
    print(f"Meanwhile the agent answered {len(answers)} questions, the slowest in {max(answers) * 1000:.1f} ms.")
