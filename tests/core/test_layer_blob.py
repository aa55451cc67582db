from __future__ import annotations

from dataclasses import replace

from support.layers import nowhere_blob

from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.layer_blob import Absent, Estimate


def test_layer_of_many_small_files_costs_more_than_one_large_file():
    small_files = replace(nowhere_blob(size=10_000_000), estimate=Estimate(entries=10_000))
    large_file = replace(nowhere_blob(size=20_000_000), estimate=Estimate(entries=1))

    assert small_files.cost > large_file.cost


def test_compressed_layer_takes_at_least_what_it_has_now_however_many_entries_there_may_be():
    layer = replace(nowhere_blob(size=1_000_000), estimate=Estimate(entries=10_000, inflated_bytes=20_000_000))

    assert layer.cost > 20_000_000 + 1_000_000
    assert layer.least_bytes == 1_000_000


def test_place_is_the_same_whatever_the_bytes_are_called():
    assert nowhere_blob("a").place == nowhere_blob("./a").place
    assert nowhere_blob("a", 1).place != nowhere_blob("a", 2).place


def test_layer_that_lies_nowhere_says_why():
    absent = replace(nowhere_blob(), location=Absent("image.tar", "is missing"), digest=Digest("sha256:1"))

    assert (nowhere_blob().absence, absent.absence) == ("", "is missing")
    assert absent.origin == nowhere_blob().origin == "image.tar"
    assert absent.place != replace(absent, digest=Digest("sha256:2")).place
