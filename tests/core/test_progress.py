from __future__ import annotations

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.progress import LayerProgress, Progress

ONE, TWO = DiffID("sha256:1"), DiffID("sha256:2")


def test_whole_is_the_sum_of_its_layers():
    progress = Progress(("app:1",), (LayerProgress(ONE, 5, 10, 1, 2), LayerProgress(TWO, 20, 20, 3, 3, done=True)))

    assert (progress.bytes_done, progress.bytes_expected) == (25, 30)
    assert (progress.entries_done, progress.entries_expected) == (4, 5)
    assert not progress.done


def test_entries_are_expected_once_each_layers_are_known():
    known, unknown = LayerProgress(ONE, 5, 10, 1, 2), LayerProgress(TWO, 0, 20)

    assert Progress((), (known, unknown)).entries_expected is None
    assert Progress((), (known, known)).entries_expected == 4


def test_whole_is_done_when_each_layer_is():
    done = LayerProgress(ONE, 10, 10, done=True)

    assert Progress((), (done, done)).done
    assert not Progress((), (done, LayerProgress(TWO, 10, 10))).done


def test_image_without_layers_is_done_from_the_start():
    progress = Progress(("empty:latest",), ())

    assert (progress.bytes_done, progress.bytes_expected, progress.entries_expected, progress.done) == (0, 0, 0, True)
