"""Each input that a fuzzer begins with, or once found, on every Python; and some changes to each."""

from __future__ import annotations

import importlib
import random
import zlib

import pytest
from fuzz_extractor import check_all
from run import corpus_of
from support.privileges import as_ordinary_user

TARGETS = ("tar_reader", "extractor", "archive_index")
CORPUS = [(target, file) for target in TARGETS for file in sorted(corpus_of(target).iterdir())]
CHANGES = 5


@pytest.mark.parametrize(("target", "file"), CORPUS, ids=lambda value: getattr(value, "name", value))
def test_what_the_corpus_holds(target, file):
    importlib.import_module(f"fuzz_{target}").check(file.read_bytes())


@pytest.mark.parametrize(("target", "file"), CORPUS, ids=lambda value: getattr(value, "name", value))
def test_what_the_corpus_holds_with_changes(target, file):
    module = importlib.import_module(f"fuzz_{target}")
    dice = random.Random(zlib.crc32(file.name.encode()))

    for _ in range(CHANGES):
        module.check(module.mutate(file.read_bytes(), 1 << 14, dice, change_a_byte(dice)))


def test_layers_of_the_corpus_as_an_ordinary_user():
    as_ordinary_user(check_all, [file.read_bytes() for target, file in CORPUS if target == "extractor"])


def change_a_byte(dice):
    """Return what stands where libFuzzer's own changes are."""

    def change(data, max_size):
        changed = bytearray(data[:max_size] or b"x")
        changed[dice.randrange(len(changed))] = dice.randrange(256)
        return bytes(changed)

    return change
