from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class StackRecord(_message.Message):
    __slots__ = ("stack", "layer_ids", "reads", "is_empty", "stored_bytes", "inodes", "layer_whiteouts", "whiteouts", "checksum")
    STACK_FIELD_NUMBER: _ClassVar[int]
    LAYER_IDS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    IS_EMPTY_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    LAYER_WHITEOUTS_FIELD_NUMBER: _ClassVar[int]
    WHITEOUTS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    stack: str
    layer_ids: _containers.RepeatedScalarFieldContainer[str]
    reads: str
    is_empty: bool
    stored_bytes: int
    inodes: int
    layer_whiteouts: _containers.RepeatedScalarFieldContainer[int]
    whiteouts: int
    checksum: int
    def __init__(self, stack: _Optional[str] = ..., layer_ids: _Optional[_Iterable[str]] = ..., reads: _Optional[str] = ..., is_empty: bool = ..., stored_bytes: _Optional[int] = ..., inodes: _Optional[int] = ..., layer_whiteouts: _Optional[_Iterable[int]] = ..., whiteouts: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...
