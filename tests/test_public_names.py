from __future__ import annotations

import pytest

import pykka_imagestore


def test_every_public_name_is_there() -> None:
    found = [getattr(pykka_imagestore, name) for name in pykka_imagestore.__all__]

    assert [each.__name__ for each in found] == pykka_imagestore.__all__
    assert set(pykka_imagestore.__all__) <= set(dir(pykka_imagestore))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'pykka_imagestore' has no attribute 'Nothing'"):
        _ = pykka_imagestore.Nothing
