"""Two programs share a store: one puts, the other gets with a lease. A prune leaves leased images alone."""

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore

OTHER_PROGRAM = """
import sys
from pykka_imagestore import LocalStore
with LocalStore.start(sys.argv[1]) as store:
    leased = store.get("app:1", lease=True).get(timeout=600)
    print(f"The other program has {leased.image.name} with {len(leased.image.layers)} layer.", flush=True)
    sys.stdin.readline()  # it works with the layers' files; the lease lasts as long as this process
"""


def docker_save(directory: Path, name: str) -> Path:
    """Make an archive of an image with one layer, as docker save does."""
    with tarfile.open(directory / "layer.tar", "w") as layer:
        layer.add(__file__, f"srv/{name}.py")
    diff_id = hashlib.sha256((directory / "layer.tar").read_bytes()).hexdigest()
    (directory / "config.json").write_text(json.dumps({"rootfs": {"diff_ids": [f"sha256:{diff_id}"]}}))
    (directory / "manifest.json").write_text(json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]))
    with tarfile.open(directory / f"{name}.tar", "w") as archive:
        for member in ("manifest.json", "config.json", "layer.tar"):
            archive.add(directory / member, member)
    return directory / f"{name}.tar"


with TemporaryDirectory(prefix="imagestore-demo-") as directory, LocalStore.start(Path(directory, "store")) as store:
    for name in ("app", "unused"):
        store.put(f"{name}:1", docker_save(Path(directory), name)).get(timeout=600)
    command = [sys.executable, "-c", OTHER_PROGRAM, str(Path(directory, "store"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        print(other.stdout.readline(), end="")
        pruned = store.prune(budget_bytes=0).get(timeout=600)
        print(f"A prune with a budget of 0 removed {[image.name for image in pruned.images]}; app:1 is leased.")
        other.kill()

    pruned = store.prune(budget_bytes=0).get(timeout=600)
    print(
        f"The other program was killed, and its lease went with it: {[image.name for image in pruned.images]} is gone."
    )
    store.swept().get(timeout=600)
