from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DockerProvisionerImages(_message.Message):
    __slots__ = ("images", "sequence", "checksum")
    class Image(_message.Message):
        __slots__ = ("name", "layer_ids", "config_digest")
        NAME_FIELD_NUMBER: _ClassVar[int]
        LAYER_IDS_FIELD_NUMBER: _ClassVar[int]
        CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
        name: str
        layer_ids: _containers.RepeatedScalarFieldContainer[str]
        config_digest: str
        def __init__(self, name: _Optional[str] = ..., layer_ids: _Optional[_Iterable[str]] = ..., config_digest: _Optional[str] = ...) -> None: ...
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[DockerProvisionerImages.Image]
    sequence: int
    checksum: int
    def __init__(self, images: _Optional[_Iterable[_Union[DockerProvisionerImages.Image, _Mapping]]] = ..., sequence: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...
