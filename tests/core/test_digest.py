from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.digest import directory_name, is_sha256, sha256

HEX = "0123456789abcdef" * 4


@given(st.binary())
def test_sha256_is_algorithm_and_hex(data):
    assert sha256(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@given(st.binary())
def test_directory_name_is_one_name_that_tells_the_digest(data):
    digest = sha256(data)

    assert is_sha256(digest)
    assert "/" not in directory_name(digest)
    assert directory_name(digest).replace("-", ":") == digest


@pytest.mark.parametrize(
    "value",
    [
        "",
        HEX,
        "sha256:",
        f"sha256:{HEX[1:]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"sha512:{HEX}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256-{HEX}",
        "sha256:" + "../" * 21 + ".",
        b"sha256:",
        5,
        None,
        ["sha256"],
    ],
)
def test_anything_else_is_no_sha256_digest(value):
    assert not is_sha256(value)
