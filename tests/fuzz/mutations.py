"""Changes to tars that keep most of them tars, so that a fuzzer gets past the checksum; and to the JSON in them.

A change is drawn from ``random``, so that the same seed makes the same one. ``mutate_bytes`` is libFuzzer's own: it
takes bytes and the most that there may be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from support import tars

MutateBytes = Callable[[bytes, int], bytes]
Blocks = list[bytes]

_NAMES = (
    *(b"a", b"b", b"a/b", b"a/b/c", b"b/a", b"a/", b"./a", b"/a", b"", b".", b"..", b"/", b"a//b", b"a/../b"),
    *(b"../outside/secret", b"../../outside", b"../../outside/secret", b"a/../../..", b"..a", b"a\\b", b"\xff\xfe"),
    *(b".wh.a", b"a/.wh.b", b".wh..wh..opq", b"a/.wh..wh..opq", b".wh.", b".wh..", b".wh...", b".wh..wh.plnk/1"),
    *(b"n" * 99, b"n" * 100, b"n" * 255, b"n" * 256, b"d/" * 60 + b"f", b".wh..wh.probe"),
)
_NUMBERS = (0, 1, 511, 512, 513, 0o777, 0o4755, 0o7777, 1000, 65535, 2**20 + 1, 2**32 - 1, 2**33 - 1)
_RAW_NUMBERS = (
    *(b"", b" ", b"8", b"-1", b"+7", b"1_0", b"0x1", b"\0\0007", b"7\0garbage", b"\x80" + bytes(11), b"\xff" * 12),
    *(tars.base_256(number, 12) for number in (-1, 2**31, 2**33, 2**40, 2**62, 2**63 - 1, 2**63, -(2**63))),
)
_KINDS = b"\x00001234567xgLKSVDMNXA\xff"
_PAX_KEYS = (
    *(b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"uname", b"comment", b"hdrcharset"),
    *(b"SCHILY.xattr.user.a", b"SCHILY.xattr.user.b", b"SCHILY.xattr.security.capability", b"SCHILY.xattr."),
    *(b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.user.overlay.whiteout", b"SCHILY.xattr.system.x"),
    *(b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.realsize", b"GNU.sparse.name"),
)
_PAX_VALUES = (
    *(
        b"",
        b"0",
        b"1",
        b"-1",
        b"512",
        b"1.5",
        b"-1.999999999",
        b"9" * 19,
        b"9" * 20,
        b"y",
        b"\0",
        b"a\nb=c",
        b"x" * 300,
    ),
    *(b"1." + b"0" * 30, b"%d" % 2**62, b"%d" % 2**63, b"BINARY", b"1e9"),
)
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 108),
    "uid": (108, 116),
    "gid": (116, 124),
    "size": (124, 136),
    "mtime": (136, 148),
    "checksum": (148, 156),
    "kind": (156, 157),
    "link": (157, 257),
    "magic": (257, 265),
    "major": (329, 337),
    "minor": (337, 345),
    "prefix": (345, 500),
    "segment": (386, 398),
    "real size": (483, 495),
}
_TEXTS = frozenset({"name", "link", "prefix"})


def mutate_tar(data: bytes, max_size: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Return a tar that differs in one place or a few; most often its checksums are right."""
    blocks = _split(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_CHANGES)(blocks, random, mutate_bytes)
    if random.randrange(16):
        blocks = [
            tars.with_checksum(block, signed=not random.randrange(64)) if _is_header(block) else block
            for block in blocks
        ]
    return b"".join(blocks)[:max_size]


def mutate_archive(data: bytes, max_size: int, random: Random, mutate_bytes: MutateBytes) -> bytes:
    """Return an image archive that differs in a tar's ways, or in what its JSON says."""
    blocks = _split(data)
    documents = [at for at in _headers(blocks) if b"json" in blocks[at][:100] or b"repositories" in blocks[at][:100]]
    if not documents or not random.randrange(3):
        return mutate_tar(data, max_size, random, mutate_bytes)
    at = random.choice(documents)
    body = b"".join(blocks[at + 1 : _end_of_entry(blocks, at)]).rstrip(b"\0")
    try:
        document = _changed_json(json.loads(body), _all_names(blocks), random, mutate_bytes)
        body = json.dumps(document).encode()
    except (ValueError, RecursionError):
        body = mutate_bytes(body, max(1, max_size - len(data) + len(body)))
    blocks[at : _end_of_entry(blocks, at)] = _split(tars.file(blocks[at][:100].rstrip(b"\0"), body))
    return b"".join(blocks)[:max_size]


def _split(data: bytes) -> Blocks:
    return [data[start : start + tars.BLOCK] for start in range(0, len(data), tars.BLOCK)]


def _is_header(block: bytes) -> bool:
    return len(block) == tars.BLOCK and block[257:262] == b"ustar"


def _headers(blocks: Blocks) -> list[int]:
    return [at for at, block in enumerate(blocks) if _is_header(block)]


def _end_of_entry(blocks: Blocks, at: int) -> int:
    """Return where the body ends that follows a header: at the next header, or the zeros at the end."""
    end = at + 1
    while end < len(blocks) and not _is_header(blocks[end]) and (blocks[end].strip(b"\0") or end == at + 1):
        end += 1
    return end


# -- changes to blocks, in place


def _change_bytes(blocks: Blocks, _random: Random, mutate_bytes: MutateBytes) -> None:
    data = b"".join(blocks)
    blocks[:] = _split(mutate_bytes(data, len(data) + tars.BLOCK))


def _change_field(blocks: Blocks, random: Random, mutate_bytes: MutateBytes) -> None:
    if not (headers := _headers(blocks)):
        return
    at = random.choice(headers)
    name, (start, end) = random.choice(list(_FIELDS.items()))
    if name == "kind":
        value = bytes([random.choice(_KINDS)])
    elif not random.randrange(4):
        value = mutate_bytes(blocks[at][start:end], end - start)
    elif name in _TEXTS:
        value = random.choice((random.choice(_NAMES), blocks[random.choice(headers)][:100]))
    elif name == "magic":
        value = random.choice((b"ustar\x0000", b"ustar  \0", b"ustar\0\0\0"))
    else:
        value = random.choice((tars.octal(random.choice(_NUMBERS), end - start), random.choice(_RAW_NUMBERS)))
    value = value[: end - start].ljust(end - start, b"\0")
    blocks[at] = blocks[at][:start] + value + blocks[at][end:]


def _change_body(blocks: Blocks, random: Random, mutate_bytes: MutateBytes) -> None:
    bodies = [at for at, block in enumerate(blocks) if not _is_header(block)]
    if bodies:
        at = random.choice(bodies)
        blocks[at] = mutate_bytes(blocks[at], tars.BLOCK).ljust(tars.BLOCK, b"\0")


def _copy_entry(blocks: Blocks, random: Random, _mutate_bytes: MutateBytes) -> None:
    if headers := _headers(blocks):
        at = random.choice(headers)
        place = random.choice(headers)
        blocks[place:place] = blocks[at : _end_of_entry(blocks, at)]


def _drop_entry(blocks: Blocks, random: Random, _mutate_bytes: MutateBytes) -> None:
    if headers := _headers(blocks):
        at = random.choice(headers)
        del blocks[at : _end_of_entry(blocks, at)]


def _cut_off(blocks: Blocks, random: Random, _mutate_bytes: MutateBytes) -> None:
    if not random.randrange(4):
        del blocks[random.randrange(len(blocks) + 1) :]


def _insert_entry(blocks: Blocks, random: Random, _mutate_bytes: MutateBytes) -> None:
    headers = _headers(blocks)
    place = random.choice(headers) if headers else 0
    names = [*_NAMES, *_all_names(blocks)]
    blocks[place:place] = _split(random.choice(_NEW)(random, random.choice(names), random.choice(names)))


_CHANGES = (
    *(_change_bytes, _change_body, _copy_entry, _drop_entry, _cut_off),
    *(_change_field, _change_field, _change_field, _insert_entry, _insert_entry, _insert_entry),
)


def _all_names(blocks: Blocks) -> list[bytes]:
    return [blocks[at][:100].rstrip(b"\0") for at in _headers(blocks)]


def _new_pax(random: Random, _name: bytes, _other: bytes) -> bytes:
    records = {random.choice(_PAX_KEYS): random.choice(_PAX_VALUES) for _ in range(random.choice((1, 1, 2)))}
    return tars.pax(records, random.choice((tars.PAX, tars.PAX, tars.PAX_GLOBAL)))


# Each makes an entry, or an extension header for the next, of two names.
_NEW: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    lambda random, name, _: tars.file(name, b"x" * random.choice((0, 1, 511, 512, 513)), mode=random.choice(_NUMBERS)),
    lambda random, name, _: tars.directory(name, mode=random.choice((0, 0o755, 0o7777)), uid=random.choice((0, 1000))),
    lambda _, name, other: tars.symlink(name, other),
    lambda _, name, other: tars.symlink(name, other),
    lambda _, name, other: tars.hard_link(name, other),
    lambda random, name, _: tars.header(
        name, random.choice((tars.FIFO, tars.CHARACTER_DEVICE)), minor=random.choice((0, 1))
    ),
    lambda _, name, __: tars.opaque(name),
    lambda _, name, __: tars.whiteout(name),
    lambda _, name, other: tars.pax({b"path": name, b"linkpath": other}),
    lambda random, name, _: tars.long_name(name, random.choice((tars.GNU_LONG_NAME, tars.GNU_LONG_LINK))),
    _new_pax,
)


# -- changes to JSON

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e999, 10**400, "", "a", "\0", "\ud800", "x" * 300, [], {}, [[]], [None], {"": {}}),
    *("layer.tar", "../secret", "/layer.tar", "./layer.tar", "manifest.json", "sha256:" + "0" * 64, "1" * 64),
)
_KEYS = (
    *("Config", "RepoTags", "Layers", "config", "layers", "rootfs", "diff_ids", "type", "parent", "id", "created"),
    *("app", "1", "", "\ud800", "history", "Size"),
)


def _changed_json(document: Any, names: list[bytes], random: Random, mutate_bytes: MutateBytes) -> Any:
    """Return the document with one value in it changed, added, copied or gone."""
    if isinstance(document, list | dict) and document and random.randrange(5):
        key = random.choice(list(document) if isinstance(document, dict) else range(len(document)))
        change = random.randrange(8)
        if change == 0:
            del document[key]
        elif change == 1 and isinstance(document, list):
            document.append(document[key])
        elif change == 1 and isinstance(document, dict):
            document[random.choice(_KEYS)] = document[key]
        else:
            document[key] = _changed_json(document[key], names, random, mutate_bytes)
        return document
    if isinstance(document, str) and not random.randrange(3):
        return mutate_bytes(document.encode("utf-8", "surrogatepass"), 300).decode("utf-8", "surrogateescape")
    return random.choice((random.choice(_VALUES), random.choice([b"", *names]).decode("utf-8", "surrogateescape")))
