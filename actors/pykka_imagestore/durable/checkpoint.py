"""The reference store's checkpoint, ``storedImages``.

    bytes 0..3      length of the message, uint32, little-endian
    bytes 4..       DockerProvisionerImages, see proto/docker_provisioner.proto

This is what Apache Mesos' ``protobuf::read`` expects. Nothing may follow the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError

from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.errors import CheckpointError, InvalidNameError

_LENGTH = struct.Struct("<I")


def write_checkpoint(path: Path, images: Iterable[DockerImage], disk: Disk) -> None:
    """Replace the checkpoint by one that holds ``images``; durable on return."""
    message = DockerProvisionerImages(
        images=[
            DockerProvisionerImages.Image(name=image.name, layer_ids=image.layer_ids, config_digest=image.config_digest)
            for image in images
        ]
    )
    data = message.SerializeToString()
    write_whole(path, _LENGTH.pack(len(data)) + data, disk)


def read_checkpoint(path: Path) -> list[DockerImage]:
    """Return the images of a checkpoint, none if there is no file.

    Raises:
        CheckpointError: The file is not a whole and sound checkpoint. It is left as it is.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    if len(data) < _LENGTH.size:
        raise CheckpointError(str(path), f"it has {len(data)} bytes, too few for a length")
    (length,) = _LENGTH.unpack_from(data)
    if len(data) != _LENGTH.size + length:
        raise CheckpointError(str(path), f"it says it has {length} bytes, and has {len(data) - _LENGTH.size}")
    try:
        message = DockerProvisionerImages.FromString(data[_LENGTH.size :])
    except (DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(str(path), f"it is no DockerProvisionerImages: {error}") from error
    if not all(map(_is_whole, message.images)):
        raise CheckpointError(str(path), "it is no DockerProvisionerImages: a field is missing or no text")
    return [_image(path, image) for image in message.images]


def _is_whole(image: DockerProvisionerImages.Image) -> bool:
    """Tell whether a message has what it must have: the parser asks neither for required fields nor for UTF-8."""
    texts = (image.name, image.config_digest, *image.layer_ids)
    return image.HasField("name") and all(isinstance(text, str) for text in texts)


def _image(path: Path, image: DockerProvisionerImages.Image) -> DockerImage:
    # A layer id that is no DiffID, as Mesos wrote, is kept: that layer is missing here, and the image incomplete.
    if image.config_digest and not is_sha256(image.config_digest):
        raise CheckpointError(str(path), f"image {image.name!r} has a config whose id is no sha256 digest")
    try:
        name = ImageName.parse(image.name).stored
    except InvalidNameError as error:
        raise CheckpointError(str(path), str(error)) from error
    digest = Digest(image.config_digest) if image.config_digest else None
    return DockerImage(name, tuple(map(DiffID, image.layer_ids)), digest)
