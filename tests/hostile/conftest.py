from __future__ import annotations

import os

import pytest
from support import tars
from support.layers import unpack_layer
from support.trees import describe

from pykka_imagestore.errors import LayerError


class Victim:
    """A folder where a layer is unpacked, and beside it one that no layer may reach.

    Attributes:
        outside: The folder out of reach, as a path from the layer's root and as an absolute one.
    """

    def __init__(self, folder):
        self._folder = folder
        self.folder = folder / "outside"
        self.folder.mkdir()
        (self.folder / "secret").write_bytes(b"unchanged")
        (self.folder / "inner").mkdir()
        os.utime(self.folder, (1, 1))
        self.outside = b"../../outside"
        self.absolute = os.fsencode(self.folder)
        self._before = describe(folder)

    def unpack(self, *parts):
        """Unpack a layer that is dangerous and not refused."""
        return unpack_layer(tars.tar(*parts), self._folder)

    def refuse(self, *parts, match, error=LayerError):
        """See that a layer is refused and leaves nothing behind."""
        with pytest.raises(error, match=match):
            self.unpack(*parts)
        assert not (self._folder / "layer").exists()

    def see_that_nothing_changed(self):
        (self._folder / "layer.tar").unlink(missing_ok=True)
        now = {path: node for path, node in describe(self._folder).items() if not (path + b"/").startswith(b"layer/")}
        assert {path: node for path, node in now.items() if path} == {
            path: node for path, node in self._before.items() if path
        }


@pytest.fixture
def victim(tmp_path):
    """Return a victim; what lies outside of the layer is compared at the end."""
    victim = Victim(tmp_path)
    yield victim
    victim.see_that_nothing_changed()
