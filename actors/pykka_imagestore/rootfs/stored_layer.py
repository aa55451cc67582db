"""A stored layer as the plan of a stack sees it: its record, and its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.paths import ROOTFS
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.errors import StateError
from pykka_imagestore.fs.attributes import sees_trusted_xattrs
from pykka_imagestore.fs.layer_files import LayerFiles
from pykka_imagestore.fs.open_directories import opened_directory

_IMPLICIT_MODE = 0o755


class StoredLayer(LayerFiles):
    """A layer of the store: a ``LayerView``.

    Args:
        root: Descriptor of its root directory, which this does not close.
        record: Its record.

    Raises:
        StateError: This process cannot see which of its directories are opaque, or a newer version put it.
    """

    def __init__(self, root: int, record: LayerRecord) -> None:
        form, is_new = _form_of(record), record.HasField("implicit_root")
        super().__init__(root, form, frozenset(record.opaque_directories) if is_new else None)
        if not is_new and form == WhiteoutFormat.OVERLAY_TRUSTED and not sees_trusted_xattrs():
            raise StateError(
                f"layer {record.diff_id} was put by an older version, and what it hides of lower layers is shown to "
                "processes with CAP_SYS_ADMIN only. Provision its images as root once, or remove and put them again"
            )
        self.diff_id = record.diff_id
        self.implicit = frozenset(record.implicit_directories) | ({b""} if _implies_root(record, root) else set())
        self._hiding = tuple(record.hiding_directories) if is_new else None
        self.lower_links = {link.path: link.target for link in record.lower_links}

    @cached_property
    def hiding(self) -> tuple[bytes, ...]:
        """Its directories that have whiteouts which are devices; the layer is walked if its record does not tell."""
        return tuple(self.find_hiding()) if self._hiding is None else self._hiding


@contextmanager
def opened_layers(directories: Sequence[str]) -> Iterator[list[StoredLayer]]:
    """Lend the layers in some directories of layers/, in the same order; one that comes twice is opened once.

    Raises:
        RecordError, OSError: One cannot be read.
        StateError: As ``StoredLayer``.
    """
    with ExitStack() as opened:
        layers: dict[str, StoredLayer] = {}
        for directory in dict.fromkeys(directories):
            root = opened.enter_context(opened_directory(f"{directory}/{ROOTFS}"))
            layers[directory] = StoredLayer(root, read_record(Path(directory)))
            opened.callback(layers[directory].close)
        yield [layers[directory] for directory in directories]


def _form_of(record: LayerRecord) -> WhiteoutFormat:
    try:
        return WhiteoutFormat(record.whiteouts)
    except ValueError as error:
        raise StateError(
            f"layer {record.diff_id} has whiteouts in a form that only a newer version knows; use that one"
        ) from error


def _implies_root(record: LayerRecord, root: int) -> bool:
    if record.HasField("implicit_root"):
        return record.implicit_root
    status = os.fstat(root)  # an older version did not record it: such a root has nothing of its own
    is_plain = stat.S_IMODE(status.st_mode) == _IMPLICIT_MODE and not status.st_mtime_ns
    return is_plain and (status.st_uid, status.st_gid) in ((record.uid, record.gid), (os.geteuid(), os.getegid()))
