from __future__ import annotations

import struct
import zlib

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from support.disks import DyingDisk, PowerCutError

from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.durable.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk
from pykka_imagestore.errors import CheckpointError, MisplacedFileError

ONE, TWO = DiffID(sha256(b"one")), DiffID(sha256(b"two"))
IMAGES = (
    DockerImage("ubuntu:latest", (ONE, TWO), sha256(b"config")),
    DockerImage("quay.io/team/app:1", (ONE, ONE), None),
    DockerImage("empty:latest", (), sha256(b"empty")),
)
FIELD = descriptor_pb2.FieldDescriptorProto

diff_ids = st.sampled_from([ONE, TWO, DiffID("an id of the old store")])
images = st.builds(
    DockerImage,
    st.sampled_from(["a:latest", "quay.io/b/c:1", "a@sha256:" + "a" * 64]),
    st.lists(diff_ids, max_size=4).map(tuple),
    st.sampled_from([sha256(b"config"), None]),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storedImages"


@pytest.fixture(scope="module")
def seed():
    """Return Mesos' DockerProvisionerImages, which knows three fields and no more."""
    file = descriptor_pb2.FileDescriptorProto(name="seed_checkpoint.proto", package="mesos", syntax="proto2")
    message = file.message_type.add(name="DockerProvisionerImages")
    image = message.nested_type.add(name="Image")
    image.field.add(name="name", number=1, label=FIELD.LABEL_REQUIRED, type=FIELD.TYPE_STRING)
    image.field.add(name="layer_ids", number=2, label=FIELD.LABEL_REPEATED, type=FIELD.TYPE_STRING)
    of_type = ".mesos.DockerProvisionerImages.Image"
    message.field.add(name="images", number=1, label=FIELD.LABEL_REPEATED, type=FIELD.TYPE_MESSAGE, type_name=of_type)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mesos.DockerProvisionerImages"))


def framed(message):
    return struct.pack("<I", len(message)) + message


def test_what_was_written_is_read(path):
    size = write_checkpoint(path, IMAGES, 7, Disk())

    assert read_checkpoint(path) == Checkpoint(IMAGES, 7, size)
    assert size == path.stat().st_size


@given(st.lists(images, max_size=4).map(tuple), st.integers(0, 2**64 - 1))
def test_round_trip(tmp_path_factory, images, sequence):
    path = tmp_path_factory.mktemp("checkpoint") / "storedImages"

    write_checkpoint(path, images, sequence, ForgetfulDisk())

    checkpoint = read_checkpoint(path)
    assert (checkpoint.images, checkpoint.sequence) == (images, sequence)


def test_no_file_means_no_images(path):
    assert read_checkpoint(path) == Checkpoint((), 0, 0)


def test_no_images_are_a_file_too(path):
    write_checkpoint(path, [], 0, Disk())

    assert path.read_bytes() == b"\x08\0\0\0\x10\0\xa5\x06" + zlib.crc32(b"\x10\0").to_bytes(4, "little")
    assert read_checkpoint(path) == Checkpoint((), 0, 12)


def test_file_is_a_length_in_little_endian_and_the_message(path):
    write_checkpoint(path, IMAGES, 7, Disk())

    data = path.read_bytes()
    message = DockerProvisionerImages.FromString(data[4:])
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    assert [image.name for image in message.images] == [image.name for image in IMAGES]
    assert message.sequence == 7


def test_seed_reads_what_we_write(path, seed):
    write_checkpoint(path, IMAGES, 7, Disk())

    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data)
    theirs = seed.FromString(data[4 : 4 + length])
    assert [(image.name, tuple(image.layer_ids)) for image in theirs.images] == [
        (image.name, image.layer_ids) for image in IMAGES
    ]


def test_we_read_what_the_seed_writes(path, seed):
    theirs = seed()
    theirs.images.add(
        name="docker.io/library/ubuntu:14.04", layer_ids=[ONE, "cf2616975b4a3cba083ca99bc3f0bf25f5f528c3"]
    )
    path.write_bytes(framed(theirs.SerializeToString()))

    checkpoint = read_checkpoint(path)
    assert checkpoint.images == (
        DockerImage("ubuntu:14.04", (ONE, DiffID("cf2616975b4a3cba083ca99bc3f0bf25f5f528c3")), None),
    )
    assert checkpoint.sequence == 0


SOUND = DockerProvisionerImages(
    images=[DockerProvisionerImages.Image(name="a:latest", layer_ids=[ONE], config_digest=sha256(b"config"))]
).SerializeToString()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it has 0 bytes, too few for a length"),
        (b"\0\0\0", "it has 3 bytes, too few for a length"),
        (framed(SOUND)[:-1], rf"it says it has {len(SOUND)} bytes, and has {len(SOUND) - 1}"),
        (framed(SOUND) + b"\0", rf"it says it has {len(SOUND)} bytes, and has {len(SOUND) + 1}"),
        (b"\xff\xff\xff\xff" + SOUND, "it says it has 4294967295 bytes"),
        (struct.pack(">I", len(SOUND)) + SOUND, "it says it has"),
        (SOUND, "it says it has"),
        (framed(b"text, and no message at all"), "it is no DockerProvisionerImages"),
        (framed(b"\x0a\x7f"), "it is no DockerProvisionerImages"),
        (framed(b"\x0a\x02\x12\x00"), "it is no DockerProvisionerImages"),
        (framed(b"\x0a\x03\x0a\x01\xff"), "it is no DockerProvisionerImages"),
        (framed(b"\x0a\x06\x0a\x01a\x12\x01\xff"), "it is no DockerProvisionerImages"),
        (framed(b"\x0a\x02\x0a\x00"), "'' is not an image name"),
        (framed(b"\x0a\x07\x0a\x05UPPER"), "'UPPER' is not an image name"),
        (framed(b"\x0a\x06\x0a\x01a\x1a\x01x"), "image 'a' has a config whose id is no sha256 digest"),
    ],
)
def test_file_that_cannot_be_read_is_an_error_and_stays_as_it_is(path, data, sentence):
    path.write_bytes(data)

    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_checkpoint(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert "It was left as it is" in str(caught.value)
    assert path.read_bytes() == data


@given(st.binary(max_size=60).map(framed) | st.binary(max_size=60))
def test_any_bytes_are_images_or_a_checkpoint_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("checkpoint") / "storedImages"
    path.write_bytes(data)

    try:
        read_checkpoint(path)
    except CheckpointError:
        assert path.read_bytes() == data


@given(st.integers(0, len(framed(SOUND)) - 1), st.integers(1, 255))
def test_a_byte_changed_anywhere_gives_images_or_a_checkpoint_error(tmp_path_factory, position, change):
    path = tmp_path_factory.mktemp("checkpoint") / "storedImages"
    damaged = bytearray(framed(SOUND))
    damaged[position] = (damaged[position] + change) % 256
    path.write_bytes(damaged)

    try:
        read_checkpoint(path)
    except CheckpointError:
        assert path.read_bytes() == damaged


@given(st.lists(images, max_size=3), st.integers(0, 1 << 63), st.data())
def test_a_bit_changed_anywhere_is_a_checkpoint_error(tmp_path_factory, images, sequence, data):
    path = tmp_path_factory.mktemp("checkpoint") / "storedImages"
    write_checkpoint(path, images, sequence, ForgetfulDisk())
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)

    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_file_with_another_checksum_says_so(path):
    write_checkpoint(path, IMAGES, 7, Disk())
    path.write_bytes(path.read_bytes().replace(b"ubuntu", b"ubunty"))

    with pytest.raises(CheckpointError, match=r"its checksum is [0-9a-f]{8}, and that of its bytes [0-9a-f]{8}: "):
        read_checkpoint(path)


def test_directory_in_its_place_is_told(path):
    path.mkdir()

    with pytest.raises(MisplacedFileError, match=f"^{path} is a directory, and a store has a file there"):
        read_checkpoint(path)


@pytest.mark.parametrize("calls_before_cut", range(3))
def test_checkpoint_is_the_old_or_the_new_one_across_a_power_cut(path, calls_before_cut):
    write_checkpoint(path, IMAGES[:1], 6, Disk())

    with pytest.raises(PowerCutError):
        write_checkpoint(path, IMAGES, 7, DyingDisk(calls_before_cut))

    checkpoint = read_checkpoint(path)
    assert (checkpoint.images, checkpoint.sequence) == ((IMAGES[:1], 6) if calls_before_cut < 2 else (IMAGES, 7))
