from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ContainerRecord(_message.Message):
    __slots__ = ("container_id", "image", "layer_ids", "config_digest", "stack", "backend", "read_only", "attached", "target", "upper_bytes", "project", "owner", "holder", "created", "boot", "is_filled", "for_runtime", "checksum")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LAYER_IDS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UPPER_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    IS_FILLED_FIELD_NUMBER: _ClassVar[int]
    FOR_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    image: str
    layer_ids: _containers.RepeatedScalarFieldContainer[str]
    config_digest: str
    stack: str
    backend: str
    read_only: bool
    attached: bool
    target: bytes
    upper_bytes: int
    project: int
    owner: str
    holder: str
    created: int
    boot: str
    is_filled: bool
    for_runtime: bool
    checksum: int
    def __init__(self, container_id: _Optional[str] = ..., image: _Optional[str] = ..., layer_ids: _Optional[_Iterable[str]] = ..., config_digest: _Optional[str] = ..., stack: _Optional[str] = ..., backend: _Optional[str] = ..., read_only: bool = ..., attached: bool = ..., target: _Optional[bytes] = ..., upper_bytes: _Optional[int] = ..., project: _Optional[int] = ..., owner: _Optional[str] = ..., holder: _Optional[str] = ..., created: _Optional[int] = ..., boot: _Optional[str] = ..., is_filled: bool = ..., for_runtime: bool = ..., checksum: _Optional[int] = ...) -> None: ...
