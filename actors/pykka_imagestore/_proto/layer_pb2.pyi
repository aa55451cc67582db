from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WhiteoutFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONE: _ClassVar[WhiteoutFormat]
    OVERLAY_TRUSTED: _ClassVar[WhiteoutFormat]
    OVERLAY_USER: _ClassVar[WhiteoutFormat]
    FILES: _ClassVar[WhiteoutFormat]
NONE: WhiteoutFormat
OVERLAY_TRUSTED: WhiteoutFormat
OVERLAY_USER: WhiteoutFormat
FILES: WhiteoutFormat

class LayerRecord(_message.Message):
    __slots__ = ("diff_id", "size_bytes", "entries", "whiteouts", "implicit_directories", "unset", "unset_count", "stored_bytes", "replaced_lost", "uid", "gid", "earliest", "latest", "time_step_ns", "split_bytes", "split_checksum", "replaced_checksum", "inodes", "implicit_root", "lower_links", "opaque_directories", "hiding_directories", "checksum")
    class Unset(_message.Message):
        __slots__ = ("path", "what")
        PATH_FIELD_NUMBER: _ClassVar[int]
        WHAT_FIELD_NUMBER: _ClassVar[int]
        path: bytes
        what: str
        def __init__(self, path: _Optional[bytes] = ..., what: _Optional[str] = ...) -> None: ...
    class LowerLink(_message.Message):
        __slots__ = ("path", "target")
        PATH_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        path: bytes
        target: bytes
        def __init__(self, path: _Optional[bytes] = ..., target: _Optional[bytes] = ...) -> None: ...
    DIFF_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    WHITEOUTS_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    UNSET_FIELD_NUMBER: _ClassVar[int]
    UNSET_COUNT_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLACED_LOST_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    TIME_STEP_NS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPLIT_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    REPLACED_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_ROOT_FIELD_NUMBER: _ClassVar[int]
    LOWER_LINKS_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    HIDING_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    diff_id: str
    size_bytes: int
    entries: int
    whiteouts: WhiteoutFormat
    implicit_directories: _containers.RepeatedScalarFieldContainer[bytes]
    unset: _containers.RepeatedCompositeFieldContainer[LayerRecord.Unset]
    unset_count: int
    stored_bytes: int
    replaced_lost: bool
    uid: int
    gid: int
    earliest: int
    latest: int
    time_step_ns: int
    split_bytes: int
    split_checksum: int
    replaced_checksum: int
    inodes: int
    implicit_root: bool
    lower_links: _containers.RepeatedCompositeFieldContainer[LayerRecord.LowerLink]
    opaque_directories: _containers.RepeatedScalarFieldContainer[bytes]
    hiding_directories: _containers.RepeatedScalarFieldContainer[bytes]
    checksum: int
    def __init__(self, diff_id: _Optional[str] = ..., size_bytes: _Optional[int] = ..., entries: _Optional[int] = ..., whiteouts: _Optional[_Union[WhiteoutFormat, str]] = ..., implicit_directories: _Optional[_Iterable[bytes]] = ..., unset: _Optional[_Iterable[_Union[LayerRecord.Unset, _Mapping]]] = ..., unset_count: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., replaced_lost: bool = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., earliest: _Optional[int] = ..., latest: _Optional[int] = ..., time_step_ns: _Optional[int] = ..., split_bytes: _Optional[int] = ..., split_checksum: _Optional[int] = ..., replaced_checksum: _Optional[int] = ..., inodes: _Optional[int] = ..., implicit_root: bool = ..., lower_links: _Optional[_Iterable[_Union[LayerRecord.LowerLink, _Mapping]]] = ..., opaque_directories: _Optional[_Iterable[bytes]] = ..., hiding_directories: _Optional[_Iterable[bytes]] = ..., checksum: _Optional[int] = ...) -> None: ...
