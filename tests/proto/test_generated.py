from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from pykka_imagestore._proto import docker_provisioner_pb2, layer_pb2

FIELD = descriptor_pb2.FieldDescriptorProto


@pytest.fixture
def seed() -> type[Message]:
    """Return Mesos' DockerProvisionerImages, which knows three fields and no more."""
    file = descriptor_pb2.FileDescriptorProto(name="seed.proto", package="mesos", syntax="proto2")
    images = file.message_type.add(name="DockerProvisionerImages")
    images.field.add(
        name="images",
        number=1,
        label=FIELD.LABEL_REPEATED,
        type=FIELD.TYPE_MESSAGE,
        type_name=".mesos.DockerProvisionerImages.Image",
    )
    image = images.nested_type.add(name="Image")
    image.field.add(name="name", number=1, label=FIELD.LABEL_REQUIRED, type=FIELD.TYPE_STRING)
    image.field.add(name="layer_ids", number=2, label=FIELD.LABEL_REPEATED, type=FIELD.TYPE_STRING)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mesos.DockerProvisionerImages"))


def test_seed_reads_what_we_write(seed):
    ours = docker_provisioner_pb2.DockerProvisionerImages()
    ours.images.add(name="ubuntu:latest", layer_ids=["sha256:1", "sha256:2"], config_digest="sha256:3")

    theirs = seed.FromString(ours.SerializeToString())

    assert [(image.name, list(image.layer_ids)) for image in theirs.images] == [
        ("ubuntu:latest", ["sha256:1", "sha256:2"])
    ]


def test_we_read_what_the_seed_writes(seed):
    theirs = seed()
    theirs.images.add(name="ubuntu:latest", layer_ids=["sha256:1", "sha256:2"])

    ours = docker_provisioner_pb2.DockerProvisionerImages.FromString(theirs.SerializeToString())

    assert [(image.name, list(image.layer_ids)) for image in ours.images] == [
        ("ubuntu:latest", ["sha256:1", "sha256:2"])
    ]
    assert not ours.images[0].HasField("config_digest")


def test_seed_writes_back_what_it_does_not_know(seed):
    ours = docker_provisioner_pb2.DockerProvisionerImages()
    ours.images.add(name="ubuntu:latest", config_digest="sha256:3")

    back = ours.FromString(seed.FromString(ours.SerializeToString()).SerializeToString())

    assert back == ours


@pytest.mark.parametrize("file", [docker_provisioner_pb2.DESCRIPTOR, layer_pb2.DESCRIPTOR], ids=lambda file: file.name)
def test_files_have_names_that_no_other_library_uses(file):
    # Every library in a process shares one descriptor pool, and a second "layer.proto" would not import.
    assert file.name.startswith("pykka_imagestore/_proto/")
    assert file.package == "pykka_imagestore"
