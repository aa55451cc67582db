from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support.inventories import CONFIGS, LAYERS, NOW, inventories, needed, size_with

from pykka_imagestore.core.budget import Budget, Size
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.inventory import Inventory, size_of_reference
from pykka_imagestore.core.needs import Needs
from pykka_imagestore.core.plan_prune import Pruned, PruneOptions, plan_prune

options = st.builds(
    PruneOptions,
    st.lists(st.sampled_from(["a", "docker.io/library/b:latest", "library/c"]), max_size=2).map(
        lambda names: tuple(map(ImageName.parse, names))
    ),
    st.none() | st.sampled_from([0, 100, 499.5, 500, 2000]),
    st.builds(Budget, st.none() | st.integers(0, 8000), st.none() | st.integers(0, 40)),
)


def rest(inventory: Inventory, removal: Pruned) -> Inventory:
    """Return what is left when a plan was carried out."""
    return Inventory(
        tuple(image for image in inventory.images if image not in removal.images),
        {layer: size for layer, size in inventory.layers.items() if layer not in removal.layers},
        {config: used for config, used in inventory.configs.items() if config not in removal.configs},
        {config: size for config, size in inventory.config_sizes.items() if config not in removal.configs},
        inventory.containers,
    )


def is_kept(image: DockerImage, needs: Needs, options: PruneOptions) -> bool:
    named = ImageName.parse(image.name).key in {name.key for name in options.keep}
    has_config = image.config_digest is None or image.config_digest in needs.configs
    return named or (set(image.layer_ids) <= needs.layers and has_config)


@given(inventories, needed, options)
def test_kept_and_needed_images_are_never_forgotten(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    assert not any(is_kept(image, needs, options) for image in removal.images)
    assert set(removal.images) <= set(inventory.images)


@given(inventories, needed, options)
def test_what_goes_is_exactly_what_neither_an_image_that_stays_has_nor_somebody_needs(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    stay = [image for image in inventory.images if image not in removal.images]
    layers = {layer for image in stay for layer in image.layer_ids} | needs.layers
    configs = {image.config_digest for image in stay} | needs.configs
    assert removal.layers == tuple(layer for layer in inventory.layers if layer not in layers)
    assert removal.configs == tuple(config for config in inventory.configs if config not in configs)


@given(inventories, needed, options)
def test_kept_and_freed_are_the_sizes_of_what_stays_and_of_what_goes(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    assert removal.kept == rest(inventory, removal).size()
    assert removal.kept + Size(removal.freed_bytes, removal.freed_inodes) == inventory.size()


@given(inventories, needed, options)
def test_pruning_twice_changes_nothing(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    again = plan_prune(rest(inventory, removal), needs, options, NOW)

    assert (again.images, again.layers, again.configs) == ((), (), ())
    assert (again.kept, again.freed_bytes, again.least) == (removal.kept, 0, removal.least)


@given(inventories, needed, options)
def test_images_go_least_recently_used_first_save_those_that_cost_no_layer(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    ages = [inventory.last_used(image) for image in removal.images]
    left = rest(inventory, removal)
    assert ages == sorted(ages)
    for image in left.images:
        if inventory.last_used(image) < max(ages, default=0) and not is_kept(image, needs, options):
            others = size_with(inventory, needs, [other for other in left.images if other is not image])
            assert size_with(inventory, needs, left.images) - others in (
                size_of_reference(image),
                size_of_reference(image) + inventory.config_sizes.get(image.config_digest, Size()),
            )


@given(inventories, needed, options)
def test_budget_is_kept_if_it_can_be(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    least = size_with(inventory, needs, [image for image in inventory.images if is_kept(image, needs, options)])
    assert removal.least == least
    if 0 in (options.budget.bytes, options.budget.inodes):
        assert not removal.is_out_of_reach
        assert removal.kept == least or options.budget.holds(removal.kept)
    else:
        assert removal.is_out_of_reach == (not options.budget.holds(least))
        assert removal.is_out_of_reach != options.budget.holds(removal.kept)


@given(inventories, needed, options)
def test_budget_that_cannot_be_kept_forgets_nothing(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    if removal.is_out_of_reach:
        without = plan_prune(inventory, needs, replace(options, budget=Budget()), NOW)
        assert (removal.images, removal.layers, removal.configs) == (without.images, without.layers, without.configs)


@given(inventories, needed, options)
def test_no_image_more_is_forgotten_than_a_budget_takes(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)
    old = plan_prune(inventory, needs, replace(options, budget=Budget()), NOW).images
    left = rest(inventory, removal).images

    for image in removal.images:
        if image not in old:
            kept = size_with(inventory, needs, [*left, image])
            costs = kept - size_with(inventory, needs, left)
            layers = {layer for other in left for layer in other.layer_ids} | needs.layers
            is_free = all(layer in layers for layer in image.layer_ids if layer in inventory.layers)
            assert not (is_free and options.budget.holds(kept)), costs
    if removal.images and removal.images[-1] not in old:
        without_the_last = [image for image in inventory.images if image not in removal.images[:-1]]
        assert not options.budget.holds(size_with(inventory, needs, without_the_last))


@given(inventories, needed, options)
def test_images_that_nobody_used_for_so_long_go_all(inventory, needs, options):
    removal = plan_prune(inventory, needs, options, NOW)

    for image in inventory.images:
        if options.unused_for is not None and NOW - inventory.last_used(image) > options.unused_for:
            assert image in removal.images or is_kept(image, needs, options)


@given(inventories, needed)
def test_without_options_no_image_is_forgotten(inventory, needs):
    assert plan_prune(inventory, needs, PruneOptions(), NOW).images == ()


def test_image_used_exactly_so_long_ago_stays():
    image = DockerImage("a:latest", (), CONFIGS[0])
    inventory = Inventory((image,), {}, {CONFIGS[0]: NOW - 100})

    assert plan_prune(inventory, Needs(), PruneOptions(unused_for=100), NOW).images == ()
    assert plan_prune(inventory, Needs(), PruneOptions(unused_for=99.9), NOW).images == (image,)


def test_image_of_which_nothing_tells_its_use_goes_first():
    known = DockerImage("a:latest", (LAYERS[0],), CONFIGS[0])
    unknown = DockerImage("b:latest", (LAYERS[1],), None)
    inventory = Inventory((known, unknown), {LAYERS[0]: Size(10_000), LAYERS[1]: Size(10_000)}, {CONFIGS[0]: 1.0})

    assert plan_prune(inventory, Needs(), PruneOptions(budget=Budget(11_000)), NOW).images == (unknown,)


def test_leased_image_over_the_budget_costs_no_other_image_its_place():
    large, alias, small = (
        DockerImage("large:latest", (LAYERS[0],), CONFIGS[0]),
        DockerImage("alias:latest", (LAYERS[0],), CONFIGS[1]),
        DockerImage("small:latest", (LAYERS[1],), CONFIGS[2]),
    )
    inventory = Inventory((large, alias, small), {LAYERS[0]: Size(8 << 20), LAYERS[1]: Size(4096)}, {})
    needs = Needs(frozenset({LAYERS[0]}), frozenset({CONFIGS[0]}))

    removal = plan_prune(inventory, needs, PruneOptions(budget=Budget(4 << 20)), NOW)

    assert (removal.images, removal.is_out_of_reach) == ((), True)
    assert 8 << 20 <= removal.least_bytes < removal.kept_bytes


def test_image_whose_layers_stay_anyway_is_not_forgotten_in_vain():
    alias, other, young = (
        DockerImage("alias:latest", (LAYERS[0],), CONFIGS[0]),
        DockerImage("other:latest", (LAYERS[1],), CONFIGS[1]),
        DockerImage("young:latest", (LAYERS[0],), CONFIGS[2]),
    )
    layers = {LAYERS[0]: Size(10_000), LAYERS[1]: Size(10_000)}
    inventory = Inventory((alias, other, young), layers, {CONFIGS[0]: 1.0, CONFIGS[1]: 2.0, CONFIGS[2]: 3.0})

    assert plan_prune(inventory, Needs(), PruneOptions(budget=Budget(15_000)), NOW).images == (other,)


def test_inodes_have_a_budget_of_their_own():
    many, few = DockerImage("many:latest", (LAYERS[0],), CONFIGS[0]), DockerImage("few:latest", (LAYERS[1],), None)
    inventory = Inventory((many, few), {LAYERS[0]: Size(10, 90_000), LAYERS[1]: Size(10, 9)}, {CONFIGS[0]: 1.0})

    removal = plan_prune(inventory, Needs(), PruneOptions(budget=Budget(inodes=90_005)), NOW)

    assert removal.images == (few,)
    assert (removal.freed_inodes, removal.kept_inodes) == (9, 90_000)
