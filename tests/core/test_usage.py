from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from support.inventories import LAYERS, NOW, inventories, size_with

from pykka_imagestore.core.budget import Budget, Size
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.inventory import Inventory, size_of_reference
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.plan_prune import PruneOptions, plan_prune
from pykka_imagestore.core.usage import ImageUsage, measure


@given(inventories)
def test_usage_of_an_image_is_what_a_naive_count_says(inventory):
    usage, bare = measure(inventory), replace(inventory, containers={})

    assert [image.name for image in usage.images] == sorted(image.name for image in inventory.images)
    for found in usage.images:
        (image,) = (image for image in inventory.images if image.name == found.name)
        others = [other for other in inventory.images if other is not image]
        size, own = (
            size_with(bare, Needs(), [image]),
            size_with(bare, Needs(), inventory.images) - size_with(bare, Needs(), others),
        )
        used = inventory.configs.get(image.config_digest, 0.0)
        assert found == ImageUsage(image.name, size.bytes, own.bytes, used, size.inodes, own.inodes)


@given(inventories)
def test_usage_of_layers_is_all_that_there_are_the_largest_first(inventory):
    usage = measure(inventory)

    assert {layer.diff_id: Size(layer.bytes, layer.inodes) for layer in usage.layers} == inventory.layers
    assert all(one.bytes >= other.bytes for one, other in zip(usage.layers, usage.layers[1:], strict=False))
    for layer in usage.layers:
        assert list(layer.images) == sorted(
            image.name for image in inventory.images if layer.diff_id in image.layer_ids
        )


@given(inventories)
def test_usage_is_all_that_there_is_and_what_a_prune_leaves_is_used(inventory):
    usage = measure(inventory)

    used = size_with(inventory, Needs(), inventory.images)
    assert Size(usage.bytes, usage.inodes) == inventory.size()
    assert usage.unused_bytes == usage.bytes - used.bytes
    assert plan_prune(inventory, Needs(), PruneOptions(), NOW).kept == used


@given(inventories)
def test_removal_of_an_image_frees_its_own_bytes(inventory):
    for image, found in zip(
        sorted(inventory.images, key=lambda image: image.name), measure(inventory).images, strict=True
    ):
        others = tuple(other for other in inventory.images if other is not image)
        before, after = measure(inventory), measure(replace(inventory, images=others))
        reference = size_of_reference(image).bytes
        assert after.unused_bytes - before.unused_bytes + reference == found.own_bytes


def test_layer_that_an_image_has_twice_counts_once():
    image = DockerImage("a:latest", (LAYERS[0], LAYERS[1], LAYERS[0]))
    inventory = Inventory((image,), {LAYERS[0]: Size(5, 2), LAYERS[1]: Size(1, 1)}, {})

    (found,) = measure(inventory).images

    size = Size(6, 3) + size_of_reference(image)
    assert (Size(found.bytes, found.inodes), Size(found.own_bytes, found.own_inodes)) == (size, size)
    assert plan_prune(inventory, Needs(), PruneOptions(budget=Budget(5)), NOW).kept_bytes == 0
