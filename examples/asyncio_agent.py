"""An asyncio service ensures images: requests share puts, and what nobody waits for any more is stopped."""

import asyncio
import hashlib
import io
import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LeasedImage, LocalStore, NotFoundError


def tar_of(members: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(data := io.BytesIO()), mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


def docker_save(path: Path, files: int) -> Path:
    layer = tar_of({f"data/{number}": b"body\n" * 100 for number in range(files)})
    config = {"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}
    documents = {"manifest.json": [{"Config": "config.json", "Layers": ["layer.tar"]}], "config.json": config}
    path.write_bytes(tar_of({n: json.dumps(d).encode() for n, d in documents.items()} | {"layer.tar": layer}))
    return path


async def ensure(store: LocalStore, name: str, archive: Path) -> LeasedImage:
    """Return a lease of an image, which is put first if it is not there. Cancelling this gives that request up."""
    with suppress(NotFoundError):
        return await store.get(name, lease=True)
    return await store.put(name, archive, lease=True)


async def main(work: Path) -> None:
    small, large = docker_save(work / "small.tar", 10), docker_save(work / "large.tar", 20_000)
    async with LocalStore.start(work / "store") as store:  # is closed in a thread: the loop goes on
        for leased in await asyncio.gather(*(ensure(store, "small:1", small) for _ in range(3))):
            with leased:  # the layers stay until the end of this block, whatever a prune or a budget removes
                files = await asyncio.to_thread(os.listdir, leased.image.layers[0].path / "data")
        print(f"Three requests got an image of {len(files)} files, unpacked {store.stats().layers_unpacked} time.")
        try:
            await asyncio.wait_for(ensure(store, "large:1", large), timeout=0.1)
        except TimeoutError:
            print("0.1 s is not enough for a large image.")
        request = asyncio.create_task(ensure(store, "large:1", large))
        await asyncio.sleep(0.1)
        request.cancel()
        await asyncio.wait([request])
        print(f"Another was cancelled. In the store: {[image.name for image in await store.list()]}.")


with TemporaryDirectory(prefix="imagestore-demo-") as directory:
    asyncio.run(main(Path(directory)))
