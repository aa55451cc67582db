from __future__ import annotations

import errno
import itertools
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import pytest
from support import seams
from support.disks import DyingDisk, FailingDisk, PowerCutError, RecordingDisk
from support.processes import TIMEOUT, Program

from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
from pykka_imagestore._proto.journal_pb2 import JournalFrame
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.journal import HEADER_BYTES, Frame, pack_frame, pack_header, parse_frame
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable import journal_file, replica
from pykka_imagestore.durable import references as module
from pykka_imagestore.durable.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.locks import locked
from pykka_imagestore.durable.references import Put, References, Remove
from pykka_imagestore.errors import CheckpointError, MisplacedFileError

LAYERS = [DiffID(sha256(b"%d" % number)) for number in range(3)]
A, B, C = (DockerImage(f"{name}:latest", (layer,)) for name, layer in zip("abc", LAYERS, strict=True))


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    return new_store(tmp_path / "store")


def new_store(root: Path) -> StorePaths:
    paths = StorePaths(root)
    make_store(paths, Disk())
    for layer in LAYERS:
        paths.layer(layer).mkdir()
    return paths


def name(image: DockerImage) -> ImageName:
    return ImageName.parse(image.name)


def reopened(paths: StorePaths) -> tuple[DockerImage, ...]:
    return References(paths, Disk()).list()


def frames(paths: StorePaths) -> list[Frame]:
    data, at, found = paths.journal.read_bytes(), HEADER_BYTES, []
    while frame := parse_frame(data, at):
        found.append(frame)
        at += frame.size_bytes
    assert at == len(data)
    return found


# -- what is there


def test_what_was_committed_is_there_again(paths: StorePaths) -> None:
    references = References(paths, Disk())

    answers = references.commit([Put(A), Put(B)])
    references.close()

    assert answers == (A, B)
    assert reopened(paths) == references.list() == (A, B)
    assert references.find(ImageName.parse("docker.io/library/a")) == A
    assert references.find(name(C)) is None


def test_changes_of_one_commit_are_made_in_their_order_in_one_frame(paths: StorePaths) -> None:
    other = DockerImage("a:latest", B.layer_ids)
    references = References(paths, Disk())

    changes: list[Put | Remove] = [
        Put(A),
        Remove(name(A)),
        Remove(name(A)),
        Put(A),
        Put(other),
        Remove(name(A), only=A),
        Put(C),
    ]
    answers = references.commit(changes)

    assert answers == (A, A, None, A, other, None, C)
    assert reopened(paths) == (other, C)
    assert len(frames(paths)) == 1


def test_removal_of_one_image_leaves_another_of_the_same_name(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A), Put(B)])

    answers = references.commit([Remove(name(A), only=DockerImage("a:latest", B.layer_ids)), Remove(name(B), only=B)])

    assert answers == (None, B)
    assert reopened(paths) == (A,)


def test_missing_layers_are_looked_for_each_time(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])

    paths.layer(LAYERS[0]).rmdir()
    missing = references.find(name(A)), references.list()[0]
    paths.layer(LAYERS[0]).mkdir()

    assert [image and image.missing for image in missing] == [(LAYERS[0],)] * 2
    assert references.find(name(A)) == A


def test_store_without_files_has_no_images_and_gets_no_files(tmp_path: Path) -> None:
    references = References(StorePaths(tmp_path / "missing"), Disk())

    assert references.list() == ()
    assert references.find(name(A)) is None
    references.compact(closing=True)
    assert os.listdir(tmp_path) == []


# -- several replicas


def test_replicas_see_at_once_what_another_commits(paths: StorePaths) -> None:
    one, other = References(paths, Disk()), References(paths, Disk())
    assert other.list() == ()

    one.commit([Put(A)])
    assert other.list() == (A,)
    other.commit([Put(B)])
    assert one.find(name(B)) == B
    one.commit([Remove(name(A))])
    assert other.find(name(A)) is None
    assert [frame.sequence for frame in frames(paths)] == [1, 2, 3]


def test_replicas_in_two_processes_see_at_once_what_the_other_commits(paths: StorePaths) -> None:
    program = f"""
    import sys
    from pathlib import Path
    from pykka_imagestore.core.image import DockerImage
    from pykka_imagestore.core.paths import StorePaths
    from pykka_imagestore.durable.disk import Disk
    from pykka_imagestore.durable.references import Put, References
    references = References(StorePaths(Path(sys.argv[1])), Disk())
    print(len(references.list()), flush=True)
    while True:
        input()
        references.commit([Put(DockerImage("b:latest", ({LAYERS[1]!r},)))])
        print(*(image.name for image in references.list()), flush=True)
    """
    references = References(paths, Disk())
    with Program(program, paths.root) as other:
        assert other.line() == "0"
        references.commit([Put(A)])
        other.tell()

        assert other.line() == "a:latest b:latest"
        assert references.list() == (A, B)


def test_replica_follows_across_the_compaction_of_another(paths: StorePaths) -> None:
    one, other = References(paths, Disk()), References(paths, Disk())
    one.commit([Put(A), Put(B)])
    assert other.list() == (A, B)

    one.compact(closing=True)
    assert other.list() == (A, B)
    one.commit([Remove(name(A))])
    assert other.list() == (B,)
    other.commit([Put(C)])
    assert one.list() == reopened(paths) == (B, C)


def test_replica_that_slept_through_several_compactions_misses_nothing(paths: StorePaths) -> None:
    one, other = References(paths, Disk()), References(paths, Disk())
    one.commit([Put(A)])
    assert other.list() == (A,)

    for image in (B, C):
        one.commit([Put(image)])
        one.compact(closing=True)
    one.commit([Remove(name(A))])

    assert other.commit([Remove(name(B))]) == (B,)
    assert one.list() == reopened(paths) == (C,)


def test_reader_beside_writers_and_compactions_never_fails_and_never_goes_back(paths: StorePaths) -> None:
    stop, errors, seen = threading.Event(), [], []
    counter = ImageName.parse("counter")

    def read() -> None:
        reader = References(paths, ForgetfulDisk())
        last = 0
        try:
            while not stop.is_set():
                image = reader.find(counter)
                number = 0 if image is None else len(image.layer_ids)
                assert number >= last
                last = number
            seen.append(last)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for writer in [References(paths, ForgetfulDisk()) for _ in range(2)] * 60:
        image = writer.find(counter)
        layers = () if image is None else image.layer_ids
        writer.commit([Put(DockerImage("counter:latest", (*layers, LAYERS[0])))])
        if len(layers) % 5 == 0:
            writer.compact(closing=True)
    stop.set()
    for reader in readers:
        reader.join(TIMEOUT)

    assert errors == []
    assert len(seen) == 2


# -- what is synced


def test_first_change_syncs_the_new_journal_and_then_the_change(paths: StorePaths) -> None:
    recorder = RecordingDisk()

    References(paths, recorder).commit([Put(A), Put(B)])

    assert recorder.calls == [
        ("sync_file", "storedImages.journal.new"),
        ("rename", "storedImages.journal.new", "storedImages.journal"),
        ("sync_directory", "store"),
        ("sync_data", "storedImages.journal"),
    ]


def test_further_change_is_one_sync(paths: StorePaths) -> None:
    recorder = RecordingDisk()
    references = References(paths, recorder)
    references.commit([Put(A)])
    recorder.calls.clear()

    references.commit([Put(B), Put(C), Remove(name(A))])

    assert recorder.calls == [("sync_data", "storedImages.journal")]


def test_change_is_written_before_it_is_synced_and_synced_before_commit_returns(paths: StorePaths) -> None:
    written: list[int] = []

    class LookingDisk(Disk):
        def sync_data(self, descriptor: int) -> None:
            written.append(len(frames(paths)))
            super().sync_data(descriptor)

    references = References(paths, LookingDisk())

    references.commit([Put(A)])
    references.commit([Put(B)])

    assert written == [1, 2]


def test_no_change_writes_and_syncs_nothing_if_this_replica_synced_what_it_relies_on(paths: StorePaths) -> None:
    recorder = RecordingDisk()
    references = References(paths, recorder)
    references.commit([Put(A)])
    before, _ = paths.journal.read_bytes(), recorder.calls.clear()

    assert references.commit([Put(A), Remove(name(B))]) == (A, None)

    assert (paths.journal.read_bytes(), recorder.calls) == (before, [])


def test_no_change_syncs_what_another_wrote_and_perhaps_did_not_sync(paths: StorePaths) -> None:
    References(paths, ForgetfulDisk()).commit([Put(A)])
    before, recorder = paths.journal.read_bytes(), RecordingDisk()

    assert References(paths, recorder).commit([Put(A)]) == (A,)

    assert paths.journal.read_bytes() == before
    assert recorder.calls == [("sync_data", "storedImages.journal"), ("sync_directory", "store")]


def test_name_of_a_journal_whose_maker_died_is_synced_with_the_first_change_there(paths: StorePaths) -> None:
    with pytest.raises(PowerCutError):
        References(paths, DyingDisk(2)).commit([Put(A)])  # before it syncs the directory
    recorder = RecordingDisk()
    references = References(paths, recorder)

    references.commit([Put(B)])
    references.commit([Put(C)])

    assert recorder.calls == [
        ("sync_data", "storedImages.journal"),
        ("sync_directory", "store"),
        ("sync_data", "storedImages.journal"),
    ]


def test_frame_attests_what_was_synced_before_it(paths: StorePaths) -> None:
    references = References(paths, Disk())

    for image in (A, B, C):
        references.commit([Put(image)])

    ends = [HEADER_BYTES]
    for frame in frames(paths):
        assert frame.attested_bytes == ends[-1]
        ends.append(ends[-1] + frame.size_bytes)


def test_frame_attests_nothing_that_only_another_replica_can_have_synced(paths: StorePaths) -> None:
    References(paths, ForgetfulDisk()).commit([Put(A)])

    References(paths, Disk()).commit([Put(B)])

    assert frames(paths)[-1].attested_bytes == 0


# -- torn and damaged


def test_torn_last_frame_is_dropped_and_costs_no_acknowledged_change(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    acknowledged = paths.journal.stat().st_size
    references.commit([Put(B)])
    whole = paths.journal.read_bytes()

    for cut in range(acknowledged, len(whole)):
        paths.journal.write_bytes(whole[:cut])

        assert reopened(paths) == (A,)
        assert paths.journal.read_bytes() == whole[:cut]  # who only reads changes nothing
        References(paths, ForgetfulDisk()).commit([Put(C)])
        assert reopened(paths) == (A, C)
        assert len(frames(paths)) == 2


def test_dropping_a_torn_frame_is_said_once_and_by_the_writer(
    paths: StorePaths, caplog: pytest.LogCaptureFixture
) -> None:
    References(paths, Disk()).commit([Put(A)])
    with open(paths.journal, "ab") as journal:
        journal.write(b"\xf5IMG and more")
    references = References(paths, Disk())

    references.list()
    assert caplog.text == ""
    references.commit([Put(B)])
    references.commit([Put(C)])

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"{paths.journal}: its last 13 bytes were cut off by a crash and are dropped"


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\xf5IMG" * 9, pack_frame(Frame(9, 0, b""))[:-1], b"\xff"])
def test_garbage_at_the_end_is_torn(paths: StorePaths, tail: bytes) -> None:
    References(paths, Disk()).commit([Put(A)])
    with open(paths.journal, "ab") as journal:
        journal.write(tail)

    References(paths, Disk()).commit([Put(B)])

    assert reopened(paths) == (A, B)
    assert len(frames(paths)) == 2


def test_frames_after_a_torn_one_that_were_never_synced_go_with_it(paths: StorePaths) -> None:
    """The disk may have written the second of two frames, and not the first, before the power went."""
    References(paths, Disk()).commit([Put(A)])
    end = paths.journal.stat().st_size
    for image in (B, C):
        References(paths, ForgetfulDisk()).commit([Put(image)])
    zeroed(paths.journal, end + 3)

    assert reopened(paths) == (A,)
    References(paths, Disk()).commit([Put(B)])
    assert reopened(paths) == (A, B)


def zeroed(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x55]))


def test_damaged_frame_in_the_middle_is_an_error_and_nothing_is_overwritten(paths: StorePaths) -> None:
    references = References(paths, Disk())
    for image in (A, B, C):
        references.commit([Put(image)])
    sound = paths.journal.read_bytes()
    first, second, _ = frames(paths)

    for position in range(HEADER_BYTES, HEADER_BYTES + first.size_bytes + second.size_bytes):
        paths.journal.write_bytes(sound)
        zeroed(paths.journal, position)
        damaged = paths.journal.read_bytes()
        change = 0 if position < HEADER_BYTES + first.size_bytes else 1

        for work in (References.list, lambda it: it.commit([Put(A)]), lambda it: it.find(name(A))):
            with pytest.raises(CheckpointError, match=rf"what follows change {change}, at byte \d+, is damaged"):
                work(References(paths, ForgetfulDisk()))
        assert paths.journal.read_bytes() == damaged
        assert not paths.stored_images.exists()


def test_damage_that_comes_while_a_replica_is_open_is_noticed_by_those_who_read_it(paths: StorePaths) -> None:
    references = References(paths, Disk())
    for image in (A, B, C):
        references.commit([Put(image)])
    zeroed(paths.journal, HEADER_BYTES + 3)

    assert references.list() == (A, B, C)
    with pytest.raises(CheckpointError):
        reopened(paths)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"\xff\xff", "change 1 is no JournalFrame"),
        (b"\x0a\x00", "one of its changes neither puts nor removes an image"),
        (b"\x0a\x02\x1a\x00", "one of its changes neither puts nor removes an image"),
        (JournalFrame(changes=[{"remove": "UPPER"}]).SerializeToString(), "'UPPER' is not an image name"),
        (b"\x0a\x03\x12\x01\xff", "is no"),
        (JournalFrame(changes=[{"put": {"name": "UPPER"}}]).SerializeToString(), "'UPPER' is not an image name"),
        (b"\x0a\x02\x0a\x00", "a field is missing or no text"),
    ],
)
def test_sound_frame_that_says_nothing_sensible_is_an_error(paths: StorePaths, payload: bytes, sentence: str) -> None:
    data = pack_header(0) + pack_frame(Frame(1, 0, payload))
    paths.journal.write_bytes(data)

    for work in (References.list, lambda it: it.commit([Put(A)])):
        with pytest.raises(CheckpointError, match=sentence):
            work(References(paths, Disk()))
    assert paths.journal.read_bytes() == data


@pytest.mark.parametrize("sequence", [0, 1, 3, 2**64 - 1])
def test_frame_with_the_wrong_number_is_an_error(paths: StorePaths, sequence: int) -> None:
    References(paths, Disk()).commit([Put(A)])
    with open(paths.journal, "ab") as journal:
        journal.write(pack_frame(Frame(sequence, 0, b"")))

    with pytest.raises(CheckpointError, match=f"change 1 is followed by {sequence}"):
        reopened(paths)


@pytest.mark.parametrize("data", [b"", b"x", pack_header(0)[:-1], b"IMGJRNL2" + pack_header(0)[8:], b"\0" * 4096])
def test_journal_that_does_not_begin_as_one_is_an_error(paths: StorePaths, data: bytes) -> None:
    paths.journal.write_bytes(data)

    for work in (References.list, lambda it: it.commit([Put(A)])):
        with pytest.raises(CheckpointError, match=r"storedImages\.journal: it does not begin as a journal of images"):
            work(References(paths, Disk()))
    assert paths.journal.read_bytes() == data


@pytest.mark.parametrize("may_write", [False, True])
def test_damage_in_a_store_that_may_only_be_read_is_called_that(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch, may_write: bool
) -> None:
    paths.journal.write_bytes(b"x")
    if not may_write:
        monkeypatch.setattr(os, "open", refuse_to_write)

    with pytest.raises(CheckpointError, match="it does not begin"):
        reopened(paths)


def read_only(path: Path) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def refuse_to_write(path: Path, flags: int, mode: int = 0o777, *, real: Callable[..., int] = os.open) -> int:
    return read_only(path) if flags & os.O_RDWR else real(path, flags, mode)


def test_store_that_may_only_be_read_is_read(paths: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    References(paths, Disk()).commit([Put(A)])
    monkeypatch.setattr(os, "open", refuse_to_write)

    assert reopened(paths) == (A,)


def test_reader_that_sees_bytes_which_are_being_replaced_looks_again_under_the_lock(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    References(paths, Disk()).commit([Put(A)])
    parsed = journal_file.parse_header
    answers = iter([None])
    monkeypatch.setattr(seams.PARSE_JOURNAL_HEADER, lambda data: next(answers, parsed(data)))

    assert reopened(paths) == (A,)


def test_reader_that_sees_damage_while_another_thread_compacts_waits_for_it_and_no_longer(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once held the lock that the other waited for."""
    damaged, found = threading.Event(), []
    follow = replica.Replica.follow

    def see_damage(self: replica.Replica) -> None:
        if threading.current_thread() is reader and not damaged.is_set():
            damaged.set()
            raise CheckpointError("journal", "seen in the middle of a write")
        follow(self)

    monkeypatch.setattr(seams.FOLLOW_JOURNAL, see_damage)
    reader = threading.Thread(target=lambda: found.append(references.list()), daemon=True)

    class MeetingDisk(Disk):
        def rename(self, source: Path, target: Path) -> None:
            if target == paths.stored_images:  # the writers' lock is held
                reader.start()
                assert damaged.wait(TIMEOUT)
            super().rename(source, target)

    references = References(paths, MeetingDisk())
    references.commit([Put(A)])
    writer = threading.Thread(target=references.compact, args=[True], daemon=True)
    writer.start()

    writer.join(TIMEOUT)
    reader.join(TIMEOUT)
    assert (writer.is_alive(), found) == (False, [(A,)])


def test_reader_does_not_wait_for_the_sync_of_another_process(paths: StorePaths) -> None:
    references, found = References(paths, Disk()), []
    references.commit([Put(A)])
    with locked(paths.references_lock):
        writer = threading.Thread(target=references.commit, args=[[Put(B)]])
        writer.start()
        writer.join(0.05)
        reader = threading.Thread(target=lambda: found.append(references.list()))
        reader.start()
        reader.join(TIMEOUT)

        assert found == [(A,)]
    writer.join(TIMEOUT)
    reader.join(TIMEOUT)
    assert references.list() == (A, B)


# -- checkpoint and journal


def test_checkpoint_without_a_journal_is_what_mesos_wrote(paths: StorePaths) -> None:
    message = DockerProvisionerImages(images=[{"name": "a", "layer_ids": [LAYERS[0]]}]).SerializeToString()
    checkpoint = struct.pack("<I", len(message)) + message
    paths.stored_images.write_bytes(checkpoint)
    references = References(paths, Disk())

    assert references.list() == (A,)
    references.commit([Put(B)])

    assert reopened(paths) == (A, B)
    assert paths.stored_images.read_bytes() == checkpoint


def test_journal_without_a_checkpoint_begins_with_nothing(paths: StorePaths) -> None:
    References(paths, Disk()).commit([Put(A)])

    assert not paths.stored_images.exists()
    assert paths.journal.read_bytes()[:HEADER_BYTES] == pack_header(0)
    assert reopened(paths) == (A,)


@pytest.mark.parametrize("lost", ["all of it", "the last one"])
def test_journal_newer_than_its_checkpoint_is_an_error_and_both_stay(paths: StorePaths, lost: str) -> None:
    references = References(paths, Disk())
    for image in (A, B):
        references.commit([Put(image)])
        references.compact(closing=True)
        shutil.copy(paths.stored_images, paths.root / f"backup-{image.name[0]}")
    if lost == "all of it":
        paths.stored_images.unlink()
    else:
        shutil.copy(paths.root / "backup-a", paths.stored_images)
    before = paths.journal.read_bytes()
    holds = 0 if lost == "all of it" else 1

    for work in (References.list, lambda it: it.commit([Put(C)])):
        with pytest.raises(CheckpointError, match=f"from change 2, but storedImages holds only those up to {holds}"):
            work(References(paths, Disk()))
    assert paths.journal.read_bytes() == before
    assert paths.stored_images.exists() == (holds == 1)


def test_journal_moved_away_with_its_checkpoint_leaves_no_images(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    references.compact(closing=True)
    for path in (paths.stored_images, paths.journal):
        path.unlink()

    assert references.list() == reopened(paths) == ()


def test_compaction_makes_a_checkpoint_and_an_empty_journal_that_continues_it(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A), Put(B)])
    references.commit([Remove(name(A))])

    references.compact(closing=True)

    checkpoint = read_checkpoint(paths.stored_images)
    assert (checkpoint.images, checkpoint.sequence) == ((B,), 2)
    assert paths.journal.read_bytes() == pack_header(2)
    references.commit([Put(C)])
    assert [frame.sequence for frame in frames(paths)] == [3]
    assert reopened(paths) == (B, C)


def test_compaction_syncs_the_checkpoint_and_its_name_before_the_journal_goes(paths: StorePaths) -> None:
    recorder = RecordingDisk()
    references = References(paths, recorder)
    references.commit([Put(A)])
    recorder.calls.clear()

    references.compact(closing=True)

    assert recorder.calls == [
        ("sync_file", "storedImages.new"),
        ("rename", "storedImages.new", "storedImages"),
        ("sync_directory", "store"),
        ("sync_file", "storedImages.journal.new"),
        ("rename", "storedImages.journal.new", "storedImages.journal"),
        ("sync_directory", "store"),
    ]


@pytest.mark.parametrize("calls_before_cut", range(6))
def test_power_cut_in_a_compaction_leaves_the_same_images(
    paths: StorePaths, calls_before_cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    References(paths, Disk()).commit([Put(A), Put(B)])
    References(paths, Disk()).commit([Remove(name(A)), Put(C)])
    dying = References(paths, DyingDisk(calls_before_cut))
    dying.list()

    with pytest.raises(PowerCutError):
        dying.compact(closing=True)

    assert reopened(paths) == (B, C)
    references = References(paths, Disk())
    references.commit([Put(A)])
    references.compact(closing=True)
    references.commit([Remove(name(B))])
    assert reopened(paths) == (A, C)
    assert caplog.text == ""


@pytest.mark.parametrize("whole_frames", [0, 1])
@pytest.mark.parametrize("torn_bytes", [0, 20])
def test_power_cut_in_a_compaction_that_takes_unsynced_frames_of_the_old_journal_loses_nothing(
    paths: StorePaths, whole_frames: int, torn_bytes: int
) -> None:
    """The checkpoint was synced, with changes that the journal had only in memory."""
    references = References(paths, Disk())
    references.commit([Put(A)])
    references.commit([Remove(name(A)), Put(B)])
    first, _ = frames(paths)
    with pytest.raises(PowerCutError):
        compact_with(paths, DyingDisk(3))  # before the new journal is written
    with open(paths.journal, "r+b") as journal:
        journal.truncate(HEADER_BYTES + whole_frames * first.size_bytes + torn_bytes)

    assert reopened(paths) == (B,)
    one, other = References(paths, Disk()), References(paths, Disk())
    one.commit([Put(C)])
    other.commit([Remove(name(B))])

    assert reopened(paths) == one.list() == (C,)


@pytest.mark.parametrize("when", ["before", "after"])
def test_reader_that_opens_the_files_while_another_compacts_needs_no_lock(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    other = References(paths, Disk())
    other.commit([Put(A)])

    def read_beside_a_compaction(path: Path) -> Checkpoint:
        monkeypatch.setattr(seams.READ_CHECKPOINT, read_checkpoint)
        if when == "before":
            other.compact(closing=True)
        found = read_checkpoint(path)
        other.compact(closing=True)
        return found

    monkeypatch.setattr(seams.READ_CHECKPOINT, read_beside_a_compaction)
    monkeypatch.setattr(seams.LOCK_JOURNAL, read_only)

    assert reopened(paths) == (A,)


def compact_with(paths: StorePaths, disk: Disk) -> None:
    references = References(paths, disk)
    references.list()
    references.compact(closing=True)


def test_journal_is_compacted_when_it_is_larger_than_the_checkpoint_and_not_small(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seams.SMALL_JOURNAL_BYTES, 1000)
    references = References(paths, ForgetfulDisk())
    compacted_at = []
    for number in range(150):
        references.commit([Put(DockerImage(f"i{number}:latest", (LAYERS[0],)))])
        size = paths.journal.stat().st_size
        references.compact(closing=False)
        if paths.journal.stat().st_size < size:
            compacted_at.append(size)

    assert compacted_at[0] > 1000
    assert all(later > earlier for earlier, later in itertools.pairwise(compacted_at))
    assert 3 <= len(compacted_at) <= 6
    assert len(reopened(paths)) == 150


def test_close_does_not_write_a_large_checkpoint(paths: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams.SMALL_JOURNAL_BYTES, 1000)
    write_checkpoint(paths.stored_images, [DockerImage(f"i{n}:1", (LAYERS[0],)) for n in range(20)], 0, Disk())
    before = paths.stored_images.read_bytes()
    references = References(paths, Disk())
    references.commit([Put(A)])

    references.compact(closing=True)

    assert paths.stored_images.read_bytes() == before
    assert len(frames(paths)) == 1


def test_compaction_that_cannot_be_written_leaves_the_journal_going(paths: StorePaths) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    paths.stored_images.with_name("storedImages.new").mkdir()

    with pytest.raises(MisplacedFileError):
        references.compact(closing=True)

    references.commit([Put(B)])
    assert reopened(paths) == (A, B)


# -- failures


def test_sync_that_fails_is_made_good_by_writing_everything_anew(
    paths: StorePaths, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingDisk()
    references = References(paths, disk)
    references.commit([Put(A)])
    disk.failing = {"sync_data"}

    assert references.commit([Put(B)]) == (B,)

    assert read_checkpoint(paths.stored_images).images == (A, B)
    assert paths.journal.read_bytes() == pack_header(2)
    assert f"{paths.journal} could not be synced, and is written anew" in caplog.text
    disk.failing.clear()
    references.commit([Put(C)])
    assert reopened(paths) == (A, B, C)


@pytest.mark.parametrize("failing", ["sync_file", "rename", "sync_directory"])
def test_sync_that_fails_for_good_is_an_error_and_the_next_change_writes_everything_anew(
    paths: StorePaths, failing: str
) -> None:
    disk = FailingDisk()
    references = References(paths, disk)
    references.commit([Put(A)])
    disk.failing = {"sync_data", failing}

    for _ in range(2):
        with pytest.raises(OSError, match=failing):
            references.commit([Put(B)])
    disk.failing.clear()  # what was not written then, no later sync would write
    assert references.commit([Put(C)]) == (C,)

    assert read_checkpoint(paths.stored_images).images == (A, B, C)
    assert paths.journal.read_bytes() == pack_header(read_checkpoint(paths.stored_images).sequence)
    assert reopened(paths) == references.list() == (A, B, C)


def test_full_disk_leaves_what_was_there(paths: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    before, write = paths.journal.read_bytes(), os.pwrite
    room = [10]

    def write_until_full(descriptor: int, data: bytes, position: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room[0]], position)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", write_until_full)
    with pytest.raises(OSError, match=r"No space left on device: .*storedImages\.journal'$"):
        references.commit([Put(B)])

    assert paths.journal.read_bytes() == before
    assert references.list() == reopened(paths) == (A,)
    monkeypatch.undo()
    references.commit([Put(C)])
    assert reopened(paths) == (A, C)


def test_full_disk_that_refuses_to_cut_too_leaves_a_torn_frame(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    write, calls = os.pwrite, iter([10])

    def write_ten_bytes(descriptor: int, data: bytes, position: int) -> int:
        return write(descriptor, data[: next(calls)], position)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", lambda *args: _or_full(write_ten_bytes, *args))
        broken.setattr(os, "ftruncate", lambda *_: read_only(paths.journal))
        with pytest.raises(OSError, match="No space left"):
            references.commit([Put(B)])

    assert references.list() == reopened(paths) == (A,)
    references.commit([Put(C)])
    assert references.list() == reopened(paths) == (A, C)


def _or_full(write, *args: object) -> int:
    try:
        return write(*args)
    except StopIteration:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def test_journal_that_cannot_be_begun_leaves_nothing(paths: StorePaths) -> None:
    references = References(paths, FailingDisk("sync_file"))

    with pytest.raises(OSError, match="sync_file"):
        references.commit([Put(A)])

    assert references.list() == ()
    assert not any("storedImages" in entry for entry in os.listdir(paths.root))


# -- many processes

WRITER = f"""
import sys
from collections.abc import Iterable
from pathlib import Path
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.durable.references import Put, References
references = References(StorePaths(Path(sys.argv[1])), Disk())
print("ready", flush=True)
input()
for number in range(50):
    references.commit([Put(DockerImage(f"w{{sys.argv[2]}}-{{number}}:latest", ({LAYERS[0]!r},)))])
    print(number, flush=True)
    if number % 10 == 9:
        references.compact(closing=True)
"""


def test_many_processes_that_commit_at_once_lose_nothing_even_if_some_are_killed(paths: StorePaths) -> None:
    writers = [Program(WRITER, paths.root, number) for number in range(8)]
    for writer in writers:
        assert writer.line() == "ready"
    for writer in writers:
        writer.tell()
    acknowledged = set()
    for number, writer in enumerate(writers):
        with writer:
            if number < 3:
                for count in range(5 + 15 * number):
                    assert writer.line() == str(count)
                writer.process.kill()
            known = ([4 + 15 * number if number < 3 else -1, *map(int, writer.lines())])[-1]
            assert number < 3 or known == 49
            acknowledged |= {f"w{number}-{count}:latest" for count in range(known + 1)}

    found = {image.name for image in reopened(paths)}

    assert acknowledged <= found
    assert len(found) <= len(acknowledged) + 3  # of each that was killed, one more that it had no time to tell of


def test_image_that_is_removed_and_put_again_between_two_looks_is_whole(
    paths: StorePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer in A.layer_ids:
        paths.layer(layer).mkdir(exist_ok=True)
    other = References(paths, Disk())
    other.commit([Put(A)])
    look, looks = module.find_missing, itertools.chain([True], itertools.repeat(False))

    def removed_and_put_again(paths: StorePaths, layers: Iterable[DiffID]) -> frozenset[DiffID]:
        if not next(looks):
            return look(paths, layers)
        other.commit([Remove(name(A))])
        other.commit([Put(A)])
        return frozenset(layers)  # which were out when they were looked for

    monkeypatch.setattr(seams.FIND_MISSING, removed_and_put_again)

    assert References(paths, Disk()).find(name(A)) == A


# -- what others may have put there


@pytest.mark.parametrize("written", ["before", "while it is open"])
def test_journal_with_another_name_is_not_appended_to(paths: StorePaths, tmp_path: Path, written: str) -> None:
    references = References(paths, Disk())
    references.commit([Put(A)])
    os.link(paths.journal, tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()
    if written == "before":
        references = References(paths, Disk())

    references.commit([Put(B)])
    references.commit([Put(C)])

    assert (tmp_path / "copy").read_bytes() == before
    assert references.list() == reopened(paths) == (A, B, C)
    assert paths.journal.stat().st_nlink == 1


def test_other_process_follows_when_the_journal_is_replaced_since_it_has_another_name(
    paths: StorePaths, tmp_path: Path
) -> None:
    first, second = References(paths, Disk()), References(paths, Disk())
    first.commit([Put(A)])
    assert second.list() == (A,)
    os.link(paths.journal, tmp_path / "copy")

    first.commit([Put(B)])

    assert second.list() == (A, B)
    second.commit([Remove(name(A))])
    assert first.list() == (B,)
