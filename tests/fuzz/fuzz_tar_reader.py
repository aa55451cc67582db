"""Fuzz target: any bytes as a tar. The reader ends, asks for little at once, and yields what an entry may be."""

from __future__ import annotations

from mutations import mutate_tar
from plain import is_whole, plain_members

from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.core.tar import format as tar_format
from pykka_imagestore.core.tar import reader
from pykka_imagestore.core.tar.format import BLOCK, DIRECTORY, FILE, MAX_PATH_BYTES, Entry, TarError, clean_path

mutate = mutate_tar
MAX_EXTENSION_BYTES = DEFAULT_LIMITS.extension_bytes
KINDS = frozenset(b"0123456")
CACHES = (tar_format._NUMBERS_SEEN, reader._PERMISSIONS_SEEN)


class Bytes:
    """A source that watches what it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.takes = 0

    def take(self, size: int) -> bytes:
        assert 0 <= size <= MAX_EXTENSION_BYTES + BLOCK, size
        self.takes += 1
        part = self.data[self.position : self.position + size]
        self.position += len(part)
        return part

    def skip(self, size: int) -> None:
        assert 0 <= size < 10**19 + BLOCK, size  # what a pax header's digits may say
        self.position += size


def check(data: bytes) -> None:
    """Read the same bytes twice, the second time with all remembered that the first one has met."""
    for cache in CACHES:
        cache.clear()
    entries, places, error = read(data)
    assert (entries, places, error) == read(data)

    members = plain_members(data)
    if is_whole(members, data) and not any(member.has_extension for member in members):
        assert (error, len(entries)) == ("", len(members))
    for entry, place, member in zip(entries, places, members, strict=False):
        name = entry.name.rstrip(b"/")
        size = None if entry.kind == DIRECTORY else entry.size
        assert (name, place, size) == (member.name, member.start, None if member.body is None else len(member.body))


def read(data: bytes) -> tuple[list[Entry], list[int], str]:
    """Return the entries, where each one's body begins, and what was wrong then."""
    source = Bytes(data)
    entries: list[Entry] = []
    places: list[int] = []
    error = ""
    try:
        for entry in reader.read_entries(source):
            assert entry.index == len(entries)
            see_that_it_is_sound(entry)
            entries.append(entry)
            places.append(source.position)
            source.skip(entry.size)
    except TarError as caught:
        error = str(caught)
        assert error.isprintable(), error
        assert len(error) < 300
    assert source.takes <= 2 * (len(data) // BLOCK + 2)
    return entries, places, error


def see_that_it_is_sound(entry: Entry) -> None:
    assert entry.kind in KINDS
    assert 0 <= entry.size < 10**19
    assert entry.kind == FILE or entry.size == 0
    assert 0 <= entry.mode <= 0o7777
    assert max(abs(number) for number in (entry.uid, entry.gid, entry.major, entry.minor)) < 10**19
    assert abs(entry.mtime_ns) < 2**63 * 10**9
    for text in (entry.name, entry.link):
        assert b"\0" not in text
        assert len(text) <= MAX_EXTENSION_BYTES
        see_that_it_is_clean(text)
    for key, value in entry.xattrs.items():
        assert b"\0" not in key
        assert len(key) + len(value) <= MAX_EXTENSION_BYTES


def see_that_it_is_clean(name: bytes) -> None:
    try:
        path = clean_path(name)
    except TarError:
        return
    assert len(path) <= MAX_PATH_BYTES
    assert not path or not {b"", b".", b".."} & set(path.split(b"/"))
    assert clean_path(path) == path
