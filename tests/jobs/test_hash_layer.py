from __future__ import annotations

import gzip
import hashlib

import pytest
from support import tars
from support.layers import blob_of

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.errors import LayerError
from pykka_imagestore.jobs.hash_layer import hash_layer

LAYER = tars.tar(tars.directory(b"d"), tars.file(b"d/f", b"x" * 5000))
DIFF_ID = DiffID(f"sha256:{hashlib.sha256(LAYER).hexdigest()}")


def test_digest_of_a_layer_is_that_of_its_tar(tmp_path):
    assert hash_layer(blob_of(LAYER, tmp_path)) == DIFF_ID
    assert hash_layer(blob_of(gzip.compress(LAYER), tmp_path)) == DIFF_ID


def test_digest_of_a_layer_that_is_cut_off_is_refused(tmp_path):
    with pytest.raises(LayerError, match=r"layer layer.tar: cannot be inflated"):
        hash_layer(blob_of(gzip.compress(LAYER)[:-20], tmp_path))
