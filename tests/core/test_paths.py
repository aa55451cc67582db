from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.digest import DiffID, is_sha256
from pykka_imagestore.core.paths import StorePaths

PATHS = StorePaths(Path("/store"))
DIFF_ID = DiffID("sha256:" + "a" * 64)


def test_store_lies_as_the_drawing_says():
    assert PATHS.stored_images == Path("/store/storedImages")
    assert PATHS.layer(DIFF_ID) == Path("/store/layers") / ("sha256-" + "a" * 64)
    assert PATHS.rootfs(DIFF_ID) == PATHS.layer(DIFF_ID) / "rootfs"
    assert PATHS.config(DIFF_ID) == Path("/store/configs") / ("sha256-" + "a" * 64)
    assert PATHS.staging == Path("/store/staging")
    assert PATHS.gc == Path("/store/gc")


@given(st.from_regex(r"sha256:[a-f0-9]{64}", fullmatch=True) | st.text())
def test_digest_that_was_checked_is_a_name_in_its_directory(text):
    if is_sha256(text):
        assert PATHS.layer(DiffID(text)).resolve().parent == PATHS.layers
        assert PATHS.config(text).resolve().parent == PATHS.configs
