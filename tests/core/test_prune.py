from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.prune import (
    ImageUsage,
    Needs,
    Pruned,
    PruneOptions,
    Stock,
    find_unneeded,
    measure,
    plan_prune,
)

NOW = 1000.0
LAYERS = [DiffID(sha256(b"layer %d" % number)) for number in range(6)]
CONFIGS = [sha256(b"config %d" % number) for number in range(4)]
NAMES = [f"{letter}:latest" for letter in "abcde"]

layer_ids = st.lists(st.sampled_from(LAYERS), max_size=4).map(tuple)
images = st.lists(
    st.builds(DockerImage, st.sampled_from(NAMES), layer_ids, st.none() | st.sampled_from(CONFIGS)),
    unique_by=lambda image: image.name,
    max_size=5,
).map(tuple)
stocks = st.builds(
    Stock,
    images,
    st.dictionaries(st.sampled_from(LAYERS), st.integers(0, 100)),
    st.dictionaries(st.sampled_from(CONFIGS), st.sampled_from([0.0, 100.0, 500.0, NOW, NOW + 10])),
)
needed = st.builds(Needs, st.frozensets(st.sampled_from(LAYERS)), st.frozensets(st.sampled_from(CONFIGS)))
options = st.builds(
    PruneOptions,
    st.lists(st.sampled_from(["a", "docker.io/library/b:latest", "library/c"]), max_size=2).map(
        lambda names: tuple(map(ImageName.parse, names))
    ),
    st.none() | st.sampled_from([0, 100, 499.5, 500, 2000]),
    st.none() | st.integers(0, 300),
)


def rest(stock: Stock, removal: Pruned) -> Stock:
    """Return what is left when a plan was carried out."""
    return Stock(
        tuple(image for image in stock.images if image not in removal.images),
        {layer: size for layer, size in stock.layers.items() if layer not in removal.layers},
        {config: used for config, used in stock.configs.items() if config not in removal.configs},
    )


def is_kept(image: DockerImage, needs: Needs, options: PruneOptions) -> bool:
    named = ImageName.parse(image.name).key in {name.key for name in options.keep}
    has_config = image.config_digest is None or image.config_digest in needs.configs
    return named or (set(image.layer_ids) <= needs.layers and has_config)


@given(stocks, needed, options)
def test_kept_and_needed_images_are_never_forgotten(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    assert not any(is_kept(image, needs, options) for image in removal.images)
    assert set(removal.images) <= set(stock.images)


@given(stocks, needed, options)
def test_what_goes_is_exactly_what_neither_an_image_that_stays_has_nor_somebody_needs(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    stay = [image for image in stock.images if image not in removal.images]
    layers = {layer for image in stay for layer in image.layer_ids} | needs.layers
    configs = {image.config_digest for image in stay} | needs.configs
    assert removal.layers == tuple(layer for layer in stock.layers if layer not in layers)
    assert removal.configs == tuple(config for config in stock.configs if config not in configs)


@given(stocks, needed, options)
def test_kept_bytes_are_those_of_the_layers_that_stay(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    assert removal.kept_bytes == sum(rest(stock, removal).layers.values())


@given(stocks, needed, options)
def test_pruning_twice_changes_nothing(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    again = plan_prune(rest(stock, removal), needs, options, NOW)

    assert again == Pruned((), (), (), freed_bytes=0, kept_bytes=removal.kept_bytes)


@given(stocks, needed, options)
def test_images_go_least_recently_used_first(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    ages = [stock.last_used(image) for image in removal.images]
    spared = [image for image in stock.images if image not in removal.images and not is_kept(image, needs, options)]
    assert ages == sorted(ages)
    assert all(stock.last_used(image) >= max(ages, default=0) for image in spared)


@given(stocks, needed, options)
def test_budget_is_reached_if_it_can_be_and_no_image_more_is_forgotten(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    if options.budget_bytes is None:
        assert all(NOW - stock.last_used(image) > options.unused_for for image in removal.images)
    elif removal.kept_bytes > options.budget_bytes:
        assert all(is_kept(image, needs, options) for image in stock.images if image not in removal.images)
    elif removal.images:
        without_the_last = removal.images[:-1]
        kept = bytes_with(stock, needs, [image for image in stock.images if image not in without_the_last])
        is_old = options.unused_for is not None and NOW - stock.last_used(removal.images[-1]) > options.unused_for
        assert is_old or kept > options.budget_bytes


def bytes_with(stock: Stock, needs: Needs, images: list[DockerImage]) -> int:
    used = {layer for image in images for layer in image.layer_ids} | needs.layers
    return sum(size for layer, size in stock.layers.items() if layer in used)


@given(stocks, needed, options)
def test_images_that_nobody_used_for_so_long_go_all(stock, needs, options):
    removal = plan_prune(stock, needs, options, NOW)

    for image in stock.images:
        if options.unused_for is not None and NOW - stock.last_used(image) > options.unused_for:
            assert image in removal.images or is_kept(image, needs, options)


@given(stocks, needed)
def test_without_options_no_image_is_forgotten(stock, needs):
    assert plan_prune(stock, needs, PruneOptions(), NOW).images == ()


def test_image_used_exactly_so_long_ago_stays():
    image = DockerImage("a:latest", (), CONFIGS[0])
    stock = Stock((image,), {}, {CONFIGS[0]: NOW - 100})

    assert plan_prune(stock, Needs(), PruneOptions(unused_for=100), NOW).images == ()
    assert plan_prune(stock, Needs(), PruneOptions(unused_for=99.9), NOW).images == (image,)


def test_image_of_which_nothing_tells_its_use_goes_first():
    known = DockerImage("a:latest", (LAYERS[0],), CONFIGS[0])
    unknown = DockerImage("b:latest", (LAYERS[1],), None)
    stock = Stock((known, unknown), {LAYERS[0]: 10, LAYERS[1]: 10}, {CONFIGS[0]: 1.0})

    assert plan_prune(stock, Needs(), PruneOptions(budget_bytes=10), NOW).images == (unknown,)


@given(images, needed, st.lists(st.sampled_from(LAYERS), unique=True), st.lists(st.sampled_from(CONFIGS), unique=True))
def test_unneeded_is_what_nobody_has(images, needs, layers, configs):
    unneeded_layers, unneeded_configs = find_unneeded(images, needs, layers, configs)

    for layer in layers:
        is_used = layer in needs.layers or any(layer in image.layer_ids for image in images)
        assert (layer in unneeded_layers) != is_used
    for config in configs:
        is_used = config in needs.configs or any(config == image.config_digest for image in images)
        assert (config in unneeded_configs) != is_used


@given(needed, needed)
def test_needs_add_up(one, other):
    assert (one | other) == (other | one) == Needs(one.layers | other.layers, one.configs | other.configs)
    assert (one | Needs()) == one


# -- usage


@given(stocks)
def test_usage_of_an_image_is_what_a_naive_count_says(stock):
    usage = measure(stock)

    assert [image.name for image in usage.images] == sorted(image.name for image in stock.images)
    for found in usage.images:
        (image,) = (image for image in stock.images if image.name == found.name)
        others = [other for other in stock.images if other is not image]
        assert found == ImageUsage(
            image.name,
            bytes_with(stock, Needs(), [image]),
            bytes_with(stock, Needs(), list(stock.images)) - bytes_with(stock, Needs(), others),
            stock.configs.get(image.config_digest, 0.0),
        )


@given(stocks)
def test_usage_of_layers_is_all_that_there_are_the_largest_first(stock):
    usage = measure(stock)

    assert {layer.diff_id: layer.bytes for layer in usage.layers} == stock.layers
    assert all(one.bytes >= other.bytes for one, other in zip(usage.layers, usage.layers[1:], strict=False))
    for layer in usage.layers:
        assert list(layer.images) == sorted(image.name for image in stock.images if layer.diff_id in image.layer_ids)


@given(stocks)
def test_usage_sums_are_those_of_the_layers(stock):
    usage = measure(stock)

    used = bytes_with(stock, Needs(), list(stock.images))
    assert usage.bytes == sum(stock.layers.values())
    assert usage.unused_bytes == usage.bytes - used
    assert plan_prune(stock, Needs(), PruneOptions(), NOW).kept_bytes == used


@given(stocks)
def test_removal_of_an_image_frees_its_own_bytes(stock):
    for image, found in zip(sorted(stock.images, key=lambda image: image.name), measure(stock).images, strict=True):
        rest = [other for other in stock.images if other is not image]
        before, after = measure(stock), measure(Stock(tuple(rest), stock.layers, stock.configs))
        assert after.unused_bytes - before.unused_bytes == found.own_bytes


def test_layer_that_an_image_has_twice_counts_once():
    image = DockerImage("a:latest", (LAYERS[0], LAYERS[1], LAYERS[0]))
    stock = Stock((image,), {LAYERS[0]: 5, LAYERS[1]: 1}, {})

    (found,) = measure(stock).images

    assert (found.bytes, found.own_bytes) == (6, 6)
    assert plan_prune(stock, Needs(), PruneOptions(budget_bytes=5), NOW).kept_bytes == 0
