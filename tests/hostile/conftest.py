from __future__ import annotations

import os

import pytest
from support import tars
from support.layers import unpack_layer
from support.trees import describe

from pykka_imagestore.errors import LayerError


class Victim:
    """A directory where a layer is unpacked, and beside it one that no layer may reach.

    Attributes:
        outside: The directory out of reach, as a path from the layer's root and as an absolute one.
    """

    def __init__(self, directory):
        self._directory = directory
        self.directory = directory / "outside"
        self.directory.mkdir()
        (self.directory / "secret").write_bytes(b"unchanged")
        (self.directory / "inner").mkdir()
        os.utime(self.directory, (1, 1))
        self.outside = b"../../outside"
        self.absolute = os.fsencode(self.directory)
        self._before = describe(directory)

    def unpack(self, *parts):
        """Unpack a layer that is dangerous and not refused."""
        return unpack_layer(tars.tar(*parts), self._directory)

    def refuse(self, *parts, match, error=LayerError):
        """See that a layer is refused and leaves nothing behind."""
        with pytest.raises(error, match=match):
            self.unpack(*parts)
        assert not (self._directory / "layer").exists()

    def see_that_nothing_changed(self):
        (self._directory / "layer.tar").unlink(missing_ok=True)
        now = {
            path: node for path, node in describe(self._directory).items() if not (path + b"/").startswith(b"layer/")
        }
        assert {path: node for path, node in now.items() if path} == {
            path: node for path, node in self._before.items() if path
        }


@pytest.fixture
def victim(tmp_path):
    """Return a victim; what lies outside of the layer is compared at the end."""
    victim = Victim(tmp_path)
    yield victim
    victim.see_that_nothing_changed()
