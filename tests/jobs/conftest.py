from __future__ import annotations

import pytest
from support import tars
from support.layer_samples import PARTS
from support.layers import unpack_layer


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks a layer of these parts."""
    return lambda *parts: unpack_layer(tars.tar(*parts), tmp_path)


@pytest.fixture
def layer(tmp_path):
    """Return an unpacked layer with an entry of each kind."""
    return unpack_layer(tars.tar(*PARTS) + b"what follows", tmp_path)
