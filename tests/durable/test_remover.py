from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from support import seams
from support.disks import RecordingDisk

from pykka_imagestore._proto.stack_pb2 import StackRecord
from pykka_imagestore.core.budget import Budget
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.core.digest import DiffID, directory_name, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.core.plan_prune import PruneOptions
from pykka_imagestore.core.rootfs import Reads, stack_id
from pykka_imagestore.durable import remover
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.identity import identify
from pykka_imagestore.durable.layout import find_configs, find_layers, find_orphaned_work, make_store
from pykka_imagestore.durable.leases import take_lease
from pykka_imagestore.durable.references import Put, References
from pykka_imagestore.durable.remover import Remover
from pykka_imagestore.errors import NotFoundError

ONE, TWO, THREE = (DiffID(sha256(text)) for text in (b"one", b"two", b"three"))
CONFIG = sha256(b"{}")
APP = DockerImage("app:latest", (ONE, TWO), CONFIG)
OTHER = DockerImage("other:latest", (ONE,))


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    paths = StorePaths(tmp_path / "store")
    make_store(paths, Disk())
    for layer in (ONE, TWO, THREE):
        paths.layer(layer).mkdir()
    paths.config(CONFIG).write_bytes(b"{}")
    References(paths, Disk()).commit([Put(APP), Put(OTHER)])
    return paths


def identity_of(paths, layer):
    identity = identify(paths.layer(layer))
    assert identity is not None
    return identity


def release(waiting):
    assert waiting is not None
    waiting.release()


def test_removal_takes_out_what_only_that_image_needed(paths):
    image, waiting = Remover(paths, Disk()).remove(ImageName.parse("app"))

    assert image == APP
    assert set(find_layers(paths)) == {ONE, THREE}
    assert find_configs(paths) == []
    assert waiting is not None
    assert sorted(os.listdir(waiting.path)) == sorted(["lock", paths.layer(TWO).name, paths.config(CONFIG).name])
    assert find_orphaned_work(paths) == []
    release(waiting)
    assert find_orphaned_work(paths) == [waiting.path]


def test_removal_of_nothing_is_an_error(paths):
    with pytest.raises(NotFoundError, match="no image gone:latest"):
        Remover(paths, Disk()).remove(ImageName.parse("gone"))


def test_removal_leaves_what_is_leased(paths):
    lease = take_lease(paths, [TWO], CONFIG, "a test")

    _, waiting = Remover(paths, Disk()).remove(ImageName.parse("app"))

    assert waiting is None
    assert TWO in find_layers(paths)
    lease.release()


@pytest.mark.parametrize("layer_id", ["", ".", "..", "../../witness", "/etc", "cf2616975b4a"])
def test_removal_touches_nothing_that_is_no_layer(paths, layer_id):
    witness = paths.root.parent / "witness"
    witness.mkdir()
    References(paths, Disk()).commit([Put(DockerImage("mesos:latest", (DiffID(layer_id),)))])

    _, waiting = Remover(paths, Disk()).remove(ImageName.parse("mesos"))

    assert waiting is None
    assert witness.is_dir()
    assert len(find_layers(paths)) == 3


def test_prune_commits_once_then_renames(paths):
    recorder = RecordingDisk()

    pruned, waiting = Remover(paths, recorder).prune(PruneOptions(budget=Budget(0), unused_for=0))

    assert [image.name for image in pruned.images] == ["other:latest", "app:latest"]
    renames = [call for call in recorder.calls if call[0] == "rename"]
    first = recorder.calls.index(renames[0])
    assert [call[0] for call in recorder.calls[:first]].count("sync_data") == 2  # what others wrote, and the removals
    assert len(renames) == 4
    assert References(paths, Disk()).list() == ()
    release(waiting)


def test_prune_that_has_nothing_to_do_makes_nothing(paths):
    release(Remover(paths, Disk()).prune(PruneOptions())[1])

    pruned, waiting = Remover(paths, Disk()).prune(PruneOptions())

    assert (pruned.images, pruned.layers, waiting) == ((), (), None)


def test_layer_that_was_put_anew_meanwhile_is_not_taken_out(paths):
    looked_at = {layer: identity_of(paths, layer) for layer in (TWO, THREE)}
    paths.layer(TWO).rmdir()
    make_anew(paths.layer(TWO), looked_at[TWO])

    done, waiting = Remover(paths, Disk()).evict(looked_at, [])

    assert (done.evicted, done.put_anew) == ((THREE,), (TWO,))
    assert TWO in find_layers(paths)
    release(waiting)


def make_anew(directory: Path, old: tuple[int, ...]) -> None:
    """Make a directory that has the number of the one that was removed, as many file systems would give it at once."""
    others = [directory.with_name(f"{number}") for number in range(100)]
    for other in others:
        other.mkdir()
        if other.stat().st_ino == old[1]:
            other.rename(directory)
            break
    else:
        directory.mkdir()
    for other in others:
        with suppress(FileNotFoundError):
            other.rmdir()


def test_layer_whose_record_was_replaced_meanwhile_is_not_taken_out(paths):
    (paths.layer(TWO) / "layer.pb").write_bytes(b"damaged")
    looked_at = {TWO: identity_of(paths, TWO)}
    (paths.layer(TWO) / "layer.pb").write_bytes(b"restored")

    done, waiting = Remover(paths, Disk()).evict(looked_at, [])

    assert (done.evicted, done.put_anew, waiting) == ((), (TWO,), None)


def test_config_that_was_put_anew_meanwhile_is_not_taken_out(paths):
    other, gone = sha256(b"other"), sha256(b"gone")
    paths.config(other).write_bytes(b"damaged")

    done, waiting = Remover(paths, Disk()).evict({}, [CONFIG, other, gone])

    assert (done.evicted, done.put_anew) == ((other,), (CONFIG,))
    assert find_configs(paths) == [CONFIG]
    release(waiting)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
def test_what_is_no_file_in_a_configs_place_is_taken_out_and_not_read(paths, kind):
    config = paths.config(CONFIG)
    config.unlink()
    if kind == "fifo":
        os.mkfifo(config)
    elif kind == "symlink":
        (paths.root.parent / "witness").write_bytes(b"{}")
        config.symlink_to(paths.root.parent / "witness")
    else:
        config.mkdir()

    done, waiting = Remover(paths, Disk()).evict({}, [CONFIG])

    assert done.evicted == (CONFIG,)
    release(waiting)


def test_failed_rename_lets_go_of_what_was_taken_out(paths):
    class Broken(Disk):
        def rename(self, source: Path, target: Path) -> None:
            if source.parent == paths.configs:
                raise OSError("injected")
            super().rename(source, target)

    with pytest.raises(OSError, match="injected"):
        Remover(paths, Broken()).remove(ImageName.parse("app"))

    assert len(find_orphaned_work(paths)) == 1


def test_put_that_lets_go_of_its_lease_meanwhile_keeps_its_layers(paths, monkeypatch):
    lease = take_lease(paths, [TWO], None, "a put")
    look = remover.find_needs

    def let_go_then_look(paths: StorePaths) -> object:
        needs = look(paths)
        References(paths, Disk()).commit([Put(DockerImage("new:latest", (TWO,)))])
        lease.release()
        return needs

    monkeypatch.setattr(seams.FIND_NEEDS, let_go_then_look)

    Remover(paths, Disk()).remove(ImageName.parse("app"))

    assert TWO in find_layers(paths)


def test_needs_are_read_before_images(paths, monkeypatch):
    order = []
    for name, seam, real in (
        ("find_needs", seams.FIND_NEEDS, remover.find_needs),
        ("settle", seams.SETTLE_REFERENCES, References.settle),
    ):
        monkeypatch.setattr(seam, lambda *args, n=name, real=real: order.append(n) or real(*args))

    Remover(paths, Disk()).remove(ImageName.parse("app"))
    Remover(paths, Disk()).prune(PruneOptions())

    assert order == ["find_needs", "settle", "settle", "find_needs", "settle"]


# -- what stacks of layers need on top


def publish(paths, *layers):
    """Publish what a stack of layers needs on top; return its directory."""
    record = StackRecord(stack=stack_id(layers, Reads.ANY), layer_ids=layers, reads=Reads.ANY, is_empty=True)
    record.layer_whiteouts[:] = [0] * len(layers)
    paths.stack(record.stack).mkdir(parents=True)
    (paths.stack(record.stack) / "stack.pb").write_bytes(with_checksum(record.SerializeToString()))
    return paths.stack(record.stack)


def test_what_a_stack_needs_on_top_goes_with_the_first_of_its_layers(paths):
    gone, stays = publish(paths, ONE, TWO), publish(paths, ONE)

    _, waiting = Remover(paths, Disk()).remove(ImageName.parse("app"))

    assert waiting is not None
    assert not gone.exists()
    assert stays.exists()
    assert {path.name for path in waiting.path.iterdir()} >= {f"stack-{gone.name}", directory_name(TWO)}
    release(waiting)
    assert find_orphaned_work(paths) == [waiting.path]


def test_what_a_stack_needs_on_top_goes_before_its_layers(paths):
    publish(paths, ONE, TWO)
    disk = RecordingDisk()

    release(Remover(paths, disk).remove(ImageName.parse("app"))[1])

    renamed = [target for call, *_, target in disk.calls if call == "rename"]
    assert [name.partition("-")[0] for name in renamed] == ["stack", "sha256", "sha256"]


def test_what_a_leased_stack_needs_on_top_stays(paths):
    stays = publish(paths, ONE, TWO)
    lease = take_lease(paths, [ONE, TWO], None, "test")

    pruned, waiting = Remover(paths, Disk()).prune(PruneOptions(budget=Budget(0)))

    assert [image.name for image in pruned.images] == ["app:latest"]
    assert stays.exists()
    lease.release()
    if waiting is not None:
        waiting.release()
