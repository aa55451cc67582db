from __future__ import annotations

import pickle

import pytest

from pykka_imagestore.core.format_error import (
    FormatError,
    LimitExceededError,
    UnsupportedFormatError,
    WrongDigestError,
    about_archive,
    inside,
)
from pykka_imagestore.errors import ArchiveError, DigestMismatchError, LimitError, UnsupportedArchiveError
from pykka_imagestore.jobs.answers.allowlist import ANSWERS

LIMIT = LimitExceededError("has 9 layers; 8 is the limit", "layers")
DIGEST = WrongDigestError("sha256:a", "sha256:b", ("blob",))
ERRORS = [
    (FormatError("should be a list"), ArchiveError),
    (UnsupportedFormatError("is of version 2"), UnsupportedArchiveError),
    (LIMIT, LimitError),
    (DIGEST, DigestMismatchError),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS)
def test_archive_is_named_once_by_the_code_that_knows_it(error, kind):
    with pytest.raises(ArchiveError) as caught, about_archive("image.tar"), inside("'index.json'", "manifest 0"):
        raise error

    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"image.tar: 'index.json', manifest 0{', ' if error.where else ' '}{error}. ")


@pytest.mark.parametrize(("error", "_"), ERRORS)
def test_fault_inside_something_larger_is_a_fault_of_the_same_kind(error, _):
    outer = error.inside("'index.json'").inside("layout")

    assert type(outer) is type(error)
    assert outer.fault == error.fault
    assert outer.where == ("layout", "'index.json'", *error.where)


@pytest.mark.parametrize(("error", "_"), ERRORS)
def test_error_passes_between_processes(error, _):
    for copy in (pickle.loads(pickle.dumps(error)), ANSWERS.load(ANSWERS.dump(error))):
        assert type(copy) is type(error)
        assert (str(copy), copy.args) == (str(error), error.args)


def test_facts_are_told_apart():
    limit, mismatch = LIMIT.about("image.tar"), DIGEST.about("image.tar")

    assert (limit.limit, limit.archive) == ("layers", "image.tar")
    assert (mismatch.what, mismatch.expected, mismatch.found) == ("blob", "sha256:a", "sha256:b")
