from __future__ import annotations

import inspect
import pickle

import pytest

from pykka_imagestore import errors
from pykka_imagestore.errors import StoreError

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
    errors.StackError: ("sha256:1", "has a hard link 'a' to 'b', which no layer below it has"),
    errors.ImageUserError: ("app", "/etc/passwd has no user 'app'"),
    errors.ContainerNotFoundError: ("box-1", "store"),
    errors.ContainerExistsError: ("box-1", "store"),
    errors.ContainerHeldError: ("box-1", "store"),
    errors.ContainerRecordError: ("containers/box-1/container.pb", "it is no ContainerRecord"),
    errors.RootfsError: ("box-1", (("overlay", "the kernel does not know it"),)),
    errors.StateError: ("it cannot",),
    errors.CheckpointError: ("storedImages", "it is no message"),
    errors.RecordError: ("layers/sha256-1/layer.pb", "it is no LayerRecord"),
    errors.LeaseError: ("store/leases/1",),
    errors.LeaseEndedError: ("0123456789abcdef", "store"),
    errors.ForeignStoreError: ("store", "store/layers", 0, 1000),
    errors.UnsafeStoreError: ("store", 0o777),
    errors.NotAStoreError: ("home", ["leases/house.odt", "notes\n"]),
    errors.StoreFormatError: ("store", 2, 1),
    errors.MisplacedFileError: ("store/storedImages", "a symbolic link", "a file"),
    errors.LocksUnsupportedError: ("store/locks/references",),
    errors.StoreClosedError: (),
    errors.NotRemovedError: ("store/gc/1/f", "something is mounted there", 3),
    errors.OverBudgetError: ("store", 2000, 1000),
    errors.NoSpaceError: ("store/staging/1", 2000, 1000),
    errors.FileTooLargeError: ("image.tar", "layer layer.tar: entry 3 'f'", 2000, 1000),
    errors.ProcUnavailableError: ("/proc/self/status", 2),
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


HOSTILE = "\x1b[2J\x9b\x07\r\n\u202e\u2028\ud800\x00 " * 1000


def hostile(argument):
    """Return an argument of the same type, made of what no terminal should get."""
    if isinstance(argument, str):
        return HOSTILE
    if isinstance(argument, bytes):
        return HOSTILE.encode("utf-8", "surrogatepass") + b"\xff"
    return type(argument)(map(hostile, argument)) if isinstance(argument, list | tuple) else argument


@pytest.mark.parametrize("error", CLASSES)
def test_whatever_an_error_is_made_of_it_is_one_printable_line_of_bounded_length(error):
    text = str(error(*map(hostile, ARGUMENTS[error])))

    assert text.isprintable()
    assert len(text) < 100_000


def test_error_of_another_package_is_one_printable_line_too():
    class TheirError(errors.LayerError):
        def __str__(self):
            return f"theirs: {self.layer}\n{super().__str__()}"

    text = str(TheirError("a\x1b.tar", "l\n", 3, b"\x1b", "is\x9b wrong"))

    assert text.startswith("theirs: l\\n\\na\\x1b.tar: layer 'l\\n': entry 3 '\\x1b' is\\x9b wrong. Nothing")


def test_attributes_of_an_error_are_as_they_were_found():
    assert errors.ArchiveError("a\x1b", "b\n").reason == "b\n"


def test_classes_are_as_the_drawing_says():
    drawn = {}
    above = []
    for line in errors.__doc__.splitlines():
        name, depth = line.split()[0] if line.strip() else "", (len(line) - len(line.lstrip())) // 4
        if name.endswith("Error"):
            above[depth:] = [name]
            drawn[name] = above[depth - 1] if depth else "Exception"

    assert drawn == {error.__name__: error.__bases__[0].__name__ for error in CLASSES}
