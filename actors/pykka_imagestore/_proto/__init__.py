"""Generated from proto/ by `make proto`; this file alone is written by hand.

Each message is imported when it is first used: nothing that takes 15 ms to import is needed to start a store.
"""

from __future__ import annotations

from pykka_imagestore.runtime.lazy import lazy_names

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from pykka_imagestore._proto.container_pb2 import ContainerRecord
    from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
    from pykka_imagestore._proto.journal_pb2 import JournalFrame
    from pykka_imagestore._proto.layer_pb2 import LayerRecord
    from pykka_imagestore._proto.lease_pb2 import LeaseRecord
    from pykka_imagestore._proto.stack_pb2 import StackRecord

__all__ = ["ContainerRecord", "DockerProvisionerImages", "JournalFrame", "LayerRecord", "LeaseRecord", "StackRecord"]

_HOMES = {
    "ContainerRecord": "container_pb2",
    "DockerProvisionerImages": "docker_provisioner_pb2",
    "JournalFrame": "journal_pb2",
    "LayerRecord": "layer_pb2",
    "LeaseRecord": "lease_pb2",
    "StackRecord": "stack_pb2",
}

__getattr__ = lazy_names(__name__, __name__, _HOMES)
