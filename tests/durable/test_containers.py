"""Containers on disk: there entirely or not at all, had by one living process, and what they need stays."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import names

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.digest import DiffID, Digest, sha256
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.containers import (
    ContainerTable,
    Holder,
    RemovedContainers,
    _from_bytes,
    _to_bytes,
    find_containers,
    is_holder_alive,
    read_container,
)
from pykka_imagestore.durable.disk import disk
from pykka_imagestore.errors import ContainerExistsError, ContainerNotFoundError, ContainerRecordError

ONE, TWO = DiffID(sha256(b"one")), DiffID(sha256(b"two"))
CONFIG = Digest(sha256(b"config"))
BOX = Container("box-1", "app:1", (ONE, TWO), CONFIG, "overlay", "agent", "0" * 16, 1_700_000_000, "this start")

some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some_digests = st.binary(max_size=3).map(sha256)
some_containers = st.builds(
    Container,
    st.just("box-1"),
    some_text,
    st.lists(some_digests.map(DiffID), max_size=3).map(tuple),
    st.none() | some_digests.map(Digest),
    some_text,
    some_text,
    some_text,
    st.integers(0, 1 << 40),
    some_text,
    stack=st.none() | some_digests,
    read_only=st.booleans(),
    attached=st.booleans(),
    target=st.none() | st.binary(min_size=1, max_size=9).map(os.fsdecode),
    upper_bytes=st.none() | st.integers(1, 1 << 60),
    project=st.none() | st.integers(1, (1 << 31) - 1),
    is_filled=st.booleans(),
    for_runtime=st.booleans(),
)


@pytest.fixture
def holder(paths: StorePaths) -> Holder:
    return Holder(paths, disk(durable=True))


@given(some_containers)
def test_what_is_recorded_is_read(container: Container) -> None:
    path = StorePaths.__new__(StorePaths)  # for an error alone

    assert _from_bytes(path, "box-1", _to_bytes(container)) == container  # type: ignore[arg-type]


@given(some_containers, st.data())
def test_record_with_a_changed_byte_is_told(container: Container, data: st.DataObject) -> None:
    record = bytearray(_to_bytes(container))
    place = data.draw(st.integers(0, len(record) - 1))
    record[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(ContainerRecordError):
        _from_bytes("record", "box-1", bytes(record))  # type: ignore[arg-type]


def test_container_begins_with_its_record_and_nothing_else(paths: StorePaths, holder: Holder) -> None:
    holder.begin(replace(BOX, holder=holder.name))

    assert names(paths.containers / "box-1") == ["container.pb"]
    assert stat.S_IMODE((paths.containers / "box-1").stat().st_mode) == 0o700
    assert read_container(paths, "box-1") == replace(BOX, holder=holder.name)
    assert names(paths.staging / holder.name) == ["lock"]


def test_id_is_had_once_and_a_refused_one_leaves_nothing(paths: StorePaths, holder: Holder) -> None:
    holder.begin(BOX)
    with pytest.raises(ContainerExistsError):
        holder.begin(replace(BOX, image="app:2"))

    assert read_container(paths, "box-1") == BOX
    assert names(paths.staging / holder.name) == ["lock"]


def test_whoever_has_containers_is_alive_until_it_lets_go(paths: StorePaths, holder: Holder) -> None:
    holder.begin(replace(BOX, holder=holder.name))
    assert [each.is_held for each in find_containers(paths)] == [True]

    holder.release()
    holder.release()

    assert [each.is_held for each in find_containers(paths)] == [False]
    assert not is_holder_alive(paths, "../locks")
    assert names(paths.staging) == []


def test_adopted_container_is_had_by_the_next(paths: StorePaths, holder: Holder) -> None:
    holder.begin(replace(BOX, holder=holder.name))
    holder.release()

    following = Holder(paths, disk(durable=True))
    following.take_over(replace(BOX, holder=holder.name))

    assert read_container(paths, "box-1") == replace(BOX, holder=following.name)
    assert [each.is_held for each in find_containers(paths)] == [True]
    assert names(paths.containers / "box-1") == ["container.pb"]


def test_removed_containers_wait_together_and_an_id_may_come_again(paths: StorePaths, holder: Holder) -> None:
    removed = RemovedContainers(paths, disk(durable=True))
    for _ in range(3):
        holder.begin(BOX)
        removed.take("box-1")

    waiting = removed.give()

    assert waiting is not None
    assert names(waiting.path) == ["container.0", "container.1", "container.2", "lock"]
    assert (removed.give(), names(paths.containers)) == (None, [])
    with pytest.raises(ContainerNotFoundError):
        removed.take("box-1")


def test_table_tells_what_is_needed_now(paths: StorePaths, holder: Holder) -> None:
    table = ContainerTable(paths)
    assert table.needs().layers == frozenset()

    holder.begin(BOX)
    assert (table.needs().layers, table.needs().configs) == ({ONE, TWO}, {CONFIG})

    holder.rewrite(replace(BOX, layer_ids=(ONE,)))
    assert table.needs().layers == {ONE}

    RemovedContainers(paths, disk(durable=True)).take("box-1")
    assert table.needs().layers == frozenset()


@pytest.mark.parametrize("what", ["directory", "symlink", "damage", "another's"])
def test_record_that_is_none_is_an_error_and_nothing_is_needed_for_sure(
    paths: StorePaths, holder: Holder, what: str
) -> None:
    holder.begin(BOX)
    record = paths.containers / "box-1/container.pb"
    data = record.read_bytes()
    record.unlink()
    if what == "directory":
        record.mkdir()
    elif what == "symlink":
        record.symlink_to("/etc/passwd")
    else:
        record.write_bytes(data[:-1] + b"?" if what == "damage" else _to_bytes(replace(BOX, container_id="box-2")))

    with pytest.raises(ContainerRecordError, match=str(record)):
        ContainerTable(paths).needs()
    assert ContainerTable(paths).read(all_readable=False) == {}
    assert find_containers(paths) == ()
