from pykka_imagestore._proto import docker_provisioner_pb2 as _docker_provisioner_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JournalFrame(_message.Message):
    __slots__ = ("changes",)
    class Change(_message.Message):
        __slots__ = ("put", "remove")
        PUT_FIELD_NUMBER: _ClassVar[int]
        REMOVE_FIELD_NUMBER: _ClassVar[int]
        put: _docker_provisioner_pb2.DockerProvisionerImages.Image
        remove: str
        def __init__(self, put: _Optional[_Union[_docker_provisioner_pb2.DockerProvisionerImages.Image, _Mapping]] = ..., remove: _Optional[str] = ...) -> None: ...
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[JournalFrame.Change]
    def __init__(self, changes: _Optional[_Iterable[_Union[JournalFrame.Change, _Mapping]]] = ...) -> None: ...
