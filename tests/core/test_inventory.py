from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.inventories import CONFIGS, LAYERS, images, needed

from pykka_imagestore.core.inventory import find_unneeded
from pykka_imagestore.core.needs import Needs


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
