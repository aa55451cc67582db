"""Images are located as their paths say, and those of the last list not again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.locator import Locator

PATHS = StorePaths(Path("/store"))
LAYERS = tuple(DiffID(f"sha256:{number:064x}") for number in range(4))
A = DockerImage("a:1", LAYERS[:2])
B = DockerImage("b:1", LAYERS[1:3])


def test_located_images_are_where_the_paths_say_in_their_order() -> None:
    found = Locator(PATHS)

    for images in ((A, B), (B, A), (), (A,), (A, B)):
        assert found.locate_all(images) == PATHS.locate_all(images)


def test_image_of_the_last_list_is_not_located_again() -> None:
    found = Locator(PATHS)
    (first,) = found.locate_all((A,))

    assert found.locate_all((A, B))[0] is first
    found.locate_all((B,))
    assert found.locate_all((A,))[0] is not first


@pytest.mark.parametrize("later", [DockerImage("a:1", LAYERS[2:]), replace(A, missing=LAYERS[:1])])
def test_image_that_has_changed_is_located_anew(later: DockerImage) -> None:
    found = Locator(PATHS)
    found.locate_all((A, B))

    assert found.locate_all((later, B)) == PATHS.locate_all((later, B))


def test_so_many_images_that_they_take_much_memory_are_not_remembered() -> None:
    found = Locator(PATHS, most=1)
    first = found.locate_all((A, B))

    assert found.locate_all((A, B)) == first
    assert found.locate_all((A, B))[0] is not first[0]
