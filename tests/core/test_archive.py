from __future__ import annotations

from pykka_imagestore.core.archive import Extent


def test_layer_of_many_small_files_costs_more_than_one_large_file():
    small_files = Extent("image.tar", 0, 10_000_000, "layer.tar", entries_estimate=10_000)
    large_file = Extent("image.tar", 0, 20_000_000, "layer.tar", entries_estimate=1)

    assert small_files.cost > large_file.cost


def test_compressed_layer_takes_at_least_what_it_has_now_however_many_entries_there_may_be():
    layer = Extent("image.tar", 0, 1_000_000, "layer.tar", entries_estimate=10_000, inflated_estimate=20_000_000)

    assert layer.cost > 20_000_000 + 1_000_000
    assert layer.least_bytes == 1_000_000
