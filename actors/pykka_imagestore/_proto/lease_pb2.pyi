from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseRecord(_message.Message):
    __slots__ = ("layer_ids", "config_digest", "process", "purpose", "image", "more_config_digests")
    LAYER_IDS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MORE_CONFIG_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    layer_ids: _containers.RepeatedScalarFieldContainer[str]
    config_digest: str
    process: int
    purpose: str
    image: str
    more_config_digests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layer_ids: _Optional[_Iterable[str]] = ..., config_digest: _Optional[str] = ..., process: _Optional[int] = ..., purpose: _Optional[str] = ..., image: _Optional[str] = ..., more_config_digests: _Optional[_Iterable[str]] = ...) -> None: ...
