from __future__ import annotations

import inspect
import pickle

import pytest

from pykka_imagestore import errors
from pykka_imagestore.errors import StoreError, shown

ARGUMENTS = {
    errors.InvalidInputError: ("it is wrong",),
    errors.InvalidNameError: ("UPPER", "its repository is not in lowercase"),
    errors.AmbiguousImageError: ("image.tar", "it is not clear which", ("a:1", "b:1")),
    errors.ArchiveError: ("image.tar", "it is broken"),
    errors.UnsupportedArchiveError: ("image.tar", "is no image archive"),
    errors.ArchiveChangedError: ("image.tar", "it", "inode 1 of device 2, 3 bytes", "a pipe"),
    errors.DigestMismatchError: ("image.tar", "layer layer.tar", "sha256:1", "sha256:2"),
    errors.LayerError: ("image.tar", "layer.tar", 3, b"\xff\n", "is broken"),
    errors.EscapingEntryError: ("image.tar", "layer.tar", None, b"", "points outside"),
    errors.LimitError: ("image.tar", "layer.tar", 3, b"f", "is one too many", "entries"),
    errors.NotFoundError: ("a:1",),
    errors.ImageIncompleteError: ("a:1", ["sha256:1"]),
    errors.NoArchiveError: ("a:1", "archives/a:1.tar"),
    errors.StateError: ("it cannot",),
    errors.CheckpointError: ("storedImages", "it is no message"),
    errors.RecordError: ("layers/sha256-1/layer.pb", "it is no LayerRecord"),
    errors.LeaseError: ("store/leases/1",),
    errors.LeaseEndedError: ("0123456789abcdef", "store"),
    errors.ForeignStoreError: ("store", "store/layers", 0, 1000),
    errors.LocksUnsupportedError: ("store/locks/references",),
    errors.StoreClosedError: (),
    errors.NotRemovedError: ("store/gc/1/f", "something is mounted there", 3),
    errors.OverBudgetError: ("store", 2000, 1000),
    errors.NoSpaceError: ("store/staging/1", 2000, 1000),
    StoreError: ("something",),
}
CLASSES = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)]


@pytest.mark.parametrize("error", CLASSES)
def test_error_survives_the_way_back_from_a_worker(error):
    raised = error(*ARGUMENTS[error])

    back = pickle.loads(pickle.dumps(raised))

    assert type(back) is error
    assert str(back) == str(raised)
    assert vars(back) == vars(raised)


@pytest.mark.parametrize("error", CLASSES)
def test_error_is_one_printable_line(error):
    assert str(error(*ARGUMENTS[error])).isprintable()


def test_classes_are_as_the_drawing_says():
    drawn = {}
    above = []
    for line in errors.__doc__.splitlines():
        name, depth = line.split()[0] if line.strip() else "", (len(line) - len(line.lstrip())) // 4
        if name.endswith("Error"):
            above[depth:] = [name]
            drawn[name] = above[depth - 1] if depth else "Exception"

    assert drawn == {error.__name__: error.__bases__[0].__name__ for error in CLASSES}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (b"etc/motd", "'etc/motd'"),
        ("größe".encode(), "'größe'"),
        (b"\xff\n", r"'\\xff\n'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_name_is_shown_so_that_it_harms_no_terminal(name, sentence):
    assert shown(name) == sentence


@pytest.mark.parametrize("name", ["x" * 1_000_000, "\n" * 1_000_000])
def test_long_name_is_shown_in_part(name):
    assert len(shown(name)) < 210
