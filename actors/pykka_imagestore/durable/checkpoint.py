"""The reference store's checkpoint, ``storedImages``.

    bytes 0..3      length of the message, uint32, little-endian
    bytes 4..       DockerProvisionerImages, see proto/docker_provisioner.proto

This is what Apache Mesos' ``protobuf::read`` expects. Nothing may follow the message. Mesos, which makes a new message
of the images that it knows, leaves our checksum out.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pykka_imagestore import _proto
from pykka_imagestore.core.checksum import checksum_fault, with_checksum
from pykka_imagestore.core.digest import DiffID, Digest, is_sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.durable.disk import Disk, write_whole
from pykka_imagestore.durable.files import read_file
from pykka_imagestore.durable.messages import has_unknown_fields, parse_message
from pykka_imagestore.errors import CheckpointError, InvalidNameError

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        images: In no order.
        sequence: Number of the journal's last change that the images show; 0 if Mesos wrote it, or if there is no file.
        size_bytes: Of the file.
    """

    images: tuple[DockerImage, ...] = ()
    sequence: int = 0
    size_bytes: int = 0


def write_checkpoint(path: Path, images: Iterable[DockerImage], sequence: int, disk: Disk) -> int:
    """Replace the checkpoint by one that holds ``images``, durable on return; return its size.

    Nobody else may write one meanwhile. A crash may leave ``<path>.new``, which the next one replaces.
    """
    message = _proto.DockerProvisionerImages(images=map(to_message, images), sequence=sequence)
    data = with_checksum(message.SerializeToString())
    write_whole(path, _LENGTH.pack(len(data)) + data, disk, aside=path.with_name(f"{path.name}.new"))
    return _LENGTH.size + len(data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a checkpoint holds, nothing if there is no file.

    Raises:
        CheckpointError: The file is not a whole and sound checkpoint. It is left as it is.
        MisplacedFileError, ForeignStoreError: As ``open_file``.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return Checkpoint()
    if len(data) < _LENGTH.size:
        raise CheckpointError(str(path), f"it has {len(data)} bytes, too few for a length")
    (length,) = _LENGTH.unpack_from(data)
    if len(data) != _LENGTH.size + length:
        raise CheckpointError(str(path), f"it says it has {length} bytes, and has {len(data) - _LENGTH.size}")
    try:
        message = parse_message(_proto.DockerProvisionerImages, data[_LENGTH.size :])
    except ValueError as error:
        raise CheckpointError(str(path), f"it is no DockerProvisionerImages: {error}") from error
    _see_checksum(path, data[_LENGTH.size :], message)
    images = tuple(from_message(path, image) for image in message.images)
    return Checkpoint(images, message.sequence, len(data))


def _see_checksum(path: Path, data: bytes, message: _proto.DockerProvisionerImages) -> None:
    fault = None
    if message.HasField("checksum"):
        fault = checksum_fault(data, message.checksum)
    elif has_unknown_fields(message):
        # With a bit changed in its tag, a checksum is no field that we know. Mesos and older versions write neither.
        fault = "its checksum is missing: it was changed, or is damaged"
    if fault is not None:
        raise CheckpointError(str(path), fault)


def to_message(image: DockerImage) -> _proto.DockerProvisionerImages.Image:
    """Return an image as it is stored."""
    return _proto.DockerProvisionerImages.Image(
        name=image.name, layer_ids=image.layer_ids, config_digest=image.config_digest
    )


def from_message(path: Path, message: _proto.DockerProvisionerImages.Image) -> DockerImage:
    """Return an image that was stored in the file ``path``.

    Raises:
        CheckpointError: It is not one.
    """
    # A layer id that is no DiffID, as Mesos wrote, is kept: that layer is missing here, and the image incomplete.
    if not _is_whole(message):
        raise CheckpointError(str(path), "it is no DockerProvisionerImages: a field is missing or no text")
    if message.config_digest and not is_sha256(message.config_digest):
        raise CheckpointError(str(path), f"image {message.name!r} has a config whose id is no sha256 digest")
    try:
        name = ImageName.parse_stored(message.name).labelled
    except InvalidNameError as error:
        raise CheckpointError(str(path), str(error)) from error
    digest = Digest(message.config_digest) if message.config_digest else None
    # Images share most of their layers: each DiffID is kept once.
    return DockerImage(name, tuple(DiffID(sys.intern(layer)) for layer in message.layer_ids), digest)


def _is_whole(image: _proto.DockerProvisionerImages.Image) -> bool:
    """Tell whether a message has what it must have: the parser asks neither for required fields nor for UTF-8."""
    texts = (image.name, image.config_digest, *image.layer_ids)
    return image.HasField("name") and all(isinstance(text, str) for text in texts)
