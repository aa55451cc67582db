"""Container images as directories, without a daemon: a plugin for the Pykka actor framework."""

from __future__ import annotations

from pykka_imagestore.runtime.lazy import lazy_names

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    __version__: str
    from pykka_imagestore.core.check_report import CheckProgress, CheckReport, Finding
    from pykka_imagestore.core.container import ContainerInfo
    from pykka_imagestore.core.digest import DiffID, Digest
    from pykka_imagestore.core.events import (
        ArchiveIndexed,
        ContainerDestroyed,
        ContainerProvisioned,
        Event,
        ImagePut,
        ImagesRemoved,
        LayerUnpacked,
        PutFailed,
        PutJoined,
        StoreStats,
        Swept,
    )
    from pykka_imagestore.core.image import DockerImage, ImageInfo, Layer, Recovery
    from pykka_imagestore.core.image_name import ImageName
    from pykka_imagestore.core.limits import Limits
    from pykka_imagestore.core.plan_prune import Pruned
    from pykka_imagestore.core.progress import LayerProgress, Progress
    from pykka_imagestore.core.run_config import RunConfig
    from pykka_imagestore.core.usage import ContainerUsage, ImageUsage, LayerUsage, LeaseUsage, Usage
    from pykka_imagestore.core.user import User
    from pykka_imagestore.errors import (
        AmbiguousImageError,
        ArchiveChangedError,
        ArchiveError,
        CheckpointError,
        ContainerExistsError,
        ContainerHeldError,
        ContainerNotFoundError,
        ContainerRecordError,
        DigestMismatchError,
        EscapingEntryError,
        FileTooLargeError,
        ForeignStoreError,
        ImageIncompleteError,
        ImageUserError,
        InvalidInputError,
        InvalidNameError,
        LayerError,
        LeaseEndedError,
        LeaseError,
        LimitError,
        LocksUnsupportedError,
        MisplacedFileError,
        NoArchiveError,
        NoSpaceError,
        NotAStoreError,
        NotFoundError,
        OverBudgetError,
        ProcUnavailableError,
        RecordError,
        RootfsError,
        StackError,
        StateError,
        StoreClosedError,
        StoreError,
        StoreFormatError,
        UnsafeStoreError,
        UnsupportedArchiveError,
    )
    from pykka_imagestore.leased_image import LeasedImage
    from pykka_imagestore.local_store import LocalStore, LocalStoreActor
    from pykka_imagestore.provision.provisioned import ContainerRecovery, Rootfs
    from pykka_imagestore.provisioner import Provisioner, ProvisionerActor
    from pykka_imagestore.reference_store import ReferenceStore, ReferenceStoreActor
    from pykka_imagestore.runtime.errors import WorkerDiedError, WorkerError, WorkerTimeoutError
    from pykka_imagestore.temporary_rootfs import TemporaryRootfs

__all__ = [
    "AmbiguousImageError",
    "ArchiveChangedError",
    "ArchiveError",
    "ArchiveIndexed",
    "CheckProgress",
    "CheckReport",
    "CheckpointError",
    "ContainerDestroyed",
    "ContainerExistsError",
    "ContainerHeldError",
    "ContainerInfo",
    "ContainerNotFoundError",
    "ContainerProvisioned",
    "ContainerRecordError",
    "ContainerRecovery",
    "ContainerUsage",
    "DiffID",
    "Digest",
    "DigestMismatchError",
    "DockerImage",
    "EscapingEntryError",
    "Event",
    "FileTooLargeError",
    "Finding",
    "ForeignStoreError",
    "ImageIncompleteError",
    "ImageInfo",
    "ImageName",
    "ImagePut",
    "ImageUsage",
    "ImageUserError",
    "ImagesRemoved",
    "InvalidInputError",
    "InvalidNameError",
    "Layer",
    "LayerError",
    "LayerProgress",
    "LayerUnpacked",
    "LayerUsage",
    "LeaseEndedError",
    "LeaseError",
    "LeaseUsage",
    "LeasedImage",
    "LimitError",
    "Limits",
    "LocalStore",
    "LocalStoreActor",
    "LocksUnsupportedError",
    "MisplacedFileError",
    "NoArchiveError",
    "NoSpaceError",
    "NotAStoreError",
    "NotFoundError",
    "OverBudgetError",
    "ProcUnavailableError",
    "Progress",
    "Provisioner",
    "ProvisionerActor",
    "Pruned",
    "PutFailed",
    "PutJoined",
    "RecordError",
    "Recovery",
    "ReferenceStore",
    "ReferenceStoreActor",
    "Rootfs",
    "RootfsError",
    "RunConfig",
    "StackError",
    "StateError",
    "StoreClosedError",
    "StoreError",
    "StoreFormatError",
    "StoreStats",
    "Swept",
    "TemporaryRootfs",
    "UnsafeStoreError",
    "UnsupportedArchiveError",
    "Usage",
    "User",
    "WorkerDiedError",
    "WorkerError",
    "WorkerTimeoutError",
]

_HOMES = {
    "AmbiguousImageError": "errors",
    "ArchiveError": "errors",
    "CheckProgress": "core.check_report",
    "CheckReport": "core.check_report",
    "ContainerNotFoundError": "errors",
    "ContainerExistsError": "errors",
    "ContainerHeldError": "errors",
    "ContainerRecordError": "errors",
    "CheckpointError": "errors",
    "DiffID": "core.digest",
    "Digest": "core.digest",
    "ArchiveChangedError": "errors",
    "DigestMismatchError": "errors",
    "DockerImage": "core.image",
    "EscapingEntryError": "errors",
    "FileTooLargeError": "errors",
    "ForeignStoreError": "errors",
    "Finding": "core.check_report",
    "ArchiveIndexed": "core.events",
    "Event": "core.events",
    "ImagePut": "core.events",
    "ImagesRemoved": "core.events",
    "LayerUnpacked": "core.events",
    "PutFailed": "core.events",
    "PutJoined": "core.events",
    "StoreStats": "core.events",
    "Swept": "core.events",
    "ImageIncompleteError": "errors",
    "ImageInfo": "core.image",
    "ImageName": "core.image_name",
    "ImageUsage": "core.usage",
    "ImageUserError": "errors",
    "InvalidInputError": "errors",
    "InvalidNameError": "errors",
    "Layer": "core.image",
    "LayerError": "errors",
    "LayerProgress": "core.progress",
    "LayerUsage": "core.usage",
    "LeaseUsage": "core.usage",
    "LeaseEndedError": "errors",
    "LeaseError": "errors",
    "LeasedImage": "leased_image",
    "LimitError": "errors",
    "Limits": "core.limits",
    "LocalStore": "local_store",
    "LocalStoreActor": "local_store",
    "LocksUnsupportedError": "errors",
    "MisplacedFileError": "errors",
    "NoArchiveError": "errors",
    "NoSpaceError": "errors",
    "NotAStoreError": "errors",
    "NotFoundError": "errors",
    "OverBudgetError": "errors",
    "ProcUnavailableError": "errors",
    "Progress": "core.progress",
    "Pruned": "core.plan_prune",
    "RecordError": "errors",
    "Recovery": "core.image",
    "ReferenceStore": "reference_store",
    "StackError": "errors",
    "RootfsError": "errors",
    "RunConfig": "core.run_config",
    "ReferenceStoreActor": "reference_store",
    "StateError": "errors",
    "StoreClosedError": "errors",
    "StoreError": "errors",
    "StoreFormatError": "errors",
    "TemporaryRootfs": "temporary_rootfs",
    "UnsafeStoreError": "errors",
    "UnsupportedArchiveError": "errors",
    "Usage": "core.usage",
    "WorkerDiedError": "runtime.errors",
    "WorkerError": "runtime.errors",
    "WorkerTimeoutError": "runtime.errors",
    "User": "core.user",
    "Provisioner": "provisioner",
    "ProvisionerActor": "provisioner",
    "Rootfs": "provision.provisioned",
    "ContainerRecovery": "provision.provisioned",
    "ContainerInfo": "core.container",
    "ContainerUsage": "core.usage",
    "ContainerProvisioned": "core.events",
    "ContainerDestroyed": "core.events",
}


_import_name = lazy_names(__name__, __name__, _HOMES)


def __getattr__(name: str) -> object:
    """Import a public name's module when the name is first used."""
    return _installed_version() if name == "__version__" else _import_name(name)


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - takes longer than all else here

    try:
        return version("pykka-imagestore")
    except PackageNotFoundError as error:
        msg = "pykka_imagestore is not installed, only found on the path, and so has no version"
        raise AttributeError(msg) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
