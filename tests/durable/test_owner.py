from __future__ import annotations

from pathlib import Path

import pytest

from pykka_imagestore.durable.owner import store_of

RANDOM, DIGEST = "0123456789abcdef", f"sha256-{64 * 'a'}"


@pytest.mark.parametrize("store", ["/srv/images", "/srv/staging/images", "/srv/gc"])
@pytest.mark.parametrize(
    "place",
    [
        "storedImages",
        "storedImages.journal.new",
        "imagestore",
        "layers",
        f"layers/{DIGEST}",
        f"configs/{DIGEST}",
        "locks/references",
        f"leases/{RANDOM}",
        f"gc/{RANDOM}",
        f"staging/{RANDOM}/lock",
        "reserve/3",
    ],
)
def test_store_of_a_file_is_found_whatever_the_directories_above_are_called(store, place):
    assert store_of(Path(store, place)) == Path(store)
