"""Archives and layers that repeat things with a total limit. They are written byte by byte, as no tool would."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Write = Callable[[Path, int], None]

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_OCI = "application/vnd.oci.image"
_LARGE_WINDOW = {int(zstd.CompressionParameter.compression_level): 1, int(zstd.CompressionParameter.window_log): 27}


# -- tar, by hand


def _header(name: bytes, kind: bytes = b"0", size: int = 0, link: bytes = b"") -> bytes:
    block = name[:100].ljust(100, b"\0") + b"0000755\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000001\0"
    block += b" " * 8 + kind + link[:100].ljust(100, b"\0") + b"ustar\00000"
    block = block.ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _entry(name: bytes, kind: bytes = b"0", body: bytes = b"", link: bytes = b"") -> bytes:
    return _header(name, kind, len(body), link) + body + bytes(-len(body) % _BLOCK)


def _long(name: bytes, kind: bytes = b"L") -> bytes:
    return _entry(b"././@LongLink", kind, name + b"\0")


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, key, value)


def _pax(records: Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    return _entry(b"pax", kind, b"".join(_record(*record) for record in records))


# -- images


def _write_members(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _config(diff_ids: list[str], **fields: object) -> dict[str, object]:
    return {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}, **fields}


def _write_image(path: Path, stored: bytes, tar: bytes) -> None:
    """Write an image of one layer, given as it is stored and as it is inflated."""
    manifest = [{"Config": "c", "RepoTags": ["hostile:1"], "Layers": ["l"]}]
    _write_members(path, {"l": stored, "c": _json(_config([_digest(tar)])), "manifest.json": _json(manifest)})


def _layer(parts: Callable[[int], Iterable[bytes]]) -> Write:
    """Return a writer of an image whose one layer has the entries of ``parts(n)``; gzipped, because all are alike."""

    def write(path: Path, n: int) -> None:
        tar = b"".join(parts(n)) + _END
        _write_image(path, gzip.compress(tar, 6), tar)

    return write


def _frames(first: Callable[[bytes], bytes], frame: bytes) -> Write:
    """Return a writer of an image whose layer is followed by ``n`` empty compressed frames."""

    def write(path: Path, n: int) -> None:
        tar = _entry(b"f", body=b"x") + _END
        _write_image(path, first(tar) + frame * n, tar)

    return write


def _directories_behind_a_window(path: Path, n: int) -> None:
    """Write a layer that fills the largest window of zstd, and then has directories, which no entry names."""
    paths = (b"%d/%06d/.wh.x" % (number // 1000, number) for number in range(n))
    tar = b"".join([_entry(b".wh.x", body=bytes(129 << 20)), *map(_entry, paths), _END])
    _write_image(path, zstd.compress(tar, options=_LARGE_WINDOW), tar)


def _frames_around(path: Path, n: int) -> None:
    _write_raw(path, [])
    path.write_bytes(zstd.compress(path.read_bytes()) + zstd.compress(b"") * n)


# -- layers


def _global_headers(n: int) -> Iterable[bytes]:
    for number in range(n):
        yield _pax(((b"GNU.sparse.%03d%06d" % (number, m), b"") for m in range(20_000)), b"g")
        yield _entry(b"e%d" % number, b"5")


def _entries_below_global_headers(n: int) -> Iterable[bytes]:
    yield _pax(((b"GNU.sparse.%06d" % m, b"") for m in range(5 * n)), b"g")
    yield from (_entry(b"f%07d" % number) for number in range(n))


def _entries_with_global_attributes(n: int) -> Iterable[bytes]:
    yield _pax(((b"SCHILY.xattr.user.%02d" % m, b"v" * 150) for m in range(64)), b"g")
    yield from (_entry(b"f%07d" % number) for number in range(n))


def _sparse_maps_of_a_global_header(n: int) -> Iterable[bytes]:
    numbers = b",".join(b"%d,0" % m for m in range(1000))
    records = {b"GNU.sparse.map": numbers, b"GNU.sparse.size": b"2000"}
    yield _pax(records.items(), b"g")
    yield from (_entry(b".wh..wh.plnk/%07d" % number) for number in range(n))


def _tiny_records(n: int) -> Iterable[bytes]:
    records = b"".join(_record(b"%x" % m, b"") for m in range(50_000))
    for number in range(n):
        yield _entry(b"pax", b"x", records) + _entry(b"f%d" % number)


def _long_names_in_a_row(n: int) -> Iterable[bytes]:
    for number in range(n):
        yield _long(b"x" * 4000) * 100 + _long(b"f%d" % number) + _entry(b"f")


def _links_into_many_directories(n: int) -> Iterable[bytes]:
    yield from (_entry(b"d%d/f" % number) for number in range(n))
    yield from (_entry(b"links/%d" % number, b"1", link=b"d%d/f" % number) for number in range(n))


def _paths_through_links(n: int) -> Iterable[bytes]:
    """Yield entries of one directory, each named by another path through two links to it."""
    yield b"".join(_entry(b"s" * 60 + name, b"2", link=b".") for name in (b"0", b"1")) + _entry(b"f")
    for number in range(n):
        path = b"/".join(b"s" * 60 + b"%d" % (number >> bit & 1) for bit in range(30))
        yield _long(path + b"/f", b"K") + _entry(b"h%d" % number, b"1")


def _whiteouts(n: int) -> Iterable[bytes]:
    yield from (_entry(b"d/.wh.%d" % number) for number in range(n))


def _devices(n: int) -> Iterable[bytes]:
    yield from (_entry(b"d/%d" % number, b"6") for number in range(n))


def _climbing_symlinks(n: int) -> Iterable[bytes]:
    for number in range(n):
        yield _entry(b"s%d" % number, b"2", link=b"../" * 33) + _entry(b"s%d/f%d" % (number, number))


def _directories_replaced(n: int) -> Iterable[bytes]:
    for number in range(n):
        yield _entry(b"d", b"5") + _entry(b"d/f") + _entry(b"d", b"2", link=b"x%d" % number)


def _deep_and_shallow(n: int) -> Iterable[bytes]:
    for number in range(n):
        yield _entry(b"d/" * 45 + b"%d" % number) + _entry(b"s%d" % (number % 2), b"2", link=b"x")


# -- members


def _long_member_names(path: Path, n: int) -> None:
    _write_raw(path, (_long(b"%07d" % number + b"x" * 4000) + _entry(b"m") for number in range(n)))


def _long_member_links(path: Path, n: int) -> None:
    _write_raw(path, (_long(b"%07d" % m + b"x" * 4000, b"K") + _entry(b"%d" % m, b"1") for m in range(n)))


def _members(path: Path, n: int) -> None:
    _write_raw(path, (_entry(b"%d" % number) for number in range(n)))


def _members_below_a_global_header(path: Path, n: int) -> None:
    _write_raw(path, [_pax([(b"mtime", b"1." + b"1" * 15_000)], b"g"), *(_entry(b"%d" % m) for m in range(n))])


def _write_raw(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
        manifest = [{"Config": "c", "RepoTags": ["hostile:1"], "Layers": []}]
        file.write(_entry(b"c", body=_json(_config([]))) + _entry(b"manifest.json", body=_json(manifest)) + _END)


def _linked_layers(path: Path, n: int) -> None:
    """Write two images of the form before Docker 1.10, whose ``n`` layers are links to one member."""
    ids = [f"{number:064x}" for number in range(n)]
    layer = gzip.compress(_entry(b"f", body=bytes(4 << 20)) + _END, 9)
    parts = [_entry(b"L", body=layer)]
    for number, layer_id in enumerate(ids):
        document = {"id": layer_id, **({"parent": ids[number - 1]} if number else {})}
        parts.append(_entry(f"{layer_id}/json".encode(), body=_json(document)))
        parts.append(_entry(f"{layer_id}/layer.tar".encode(), b"1", link=b"L"))
    names = {f"r{number}": {"1": ids[-1 - number]} for number in range(min(n, 2))}
    path.write_bytes(b"".join((*parts, _entry(b"repositories", body=_json(names)), _END)))


def _images_of_one_chain(path: Path, n: int) -> None:
    """Write images of the form before Docker 1.10, each the parent of the next."""
    ids = [f"{number:064x}" for number in range(n)]
    parts = [_entry(b"L", body=_END)]
    for number, layer_id in enumerate(ids):
        document = {"id": layer_id, **({"parent": ids[number - 1]} if number else {})}
        parts.append(_entry(f"{layer_id}/json".encode(), body=_json(document)))
        parts.append(_entry(f"{layer_id}/layer.tar".encode(), b"1", link=b"L"))
    names = {"r": {str(number): layer_id for number, layer_id in enumerate(ids)}}
    path.write_bytes(b"".join((*parts, _entry(b"repositories", body=_json(names)), _END)))


# -- JSON


def _values(text: bytes) -> Write:
    """Return a writer of an image whose config has a value ``n`` times."""

    def write(path: Path, n: int) -> None:
        values = b",".join([text] * n)
        config = b'{"rootfs":{"diff_ids":[]},"values":[' + values + b"]}"
        manifest = [{"Config": "c", "RepoTags": ["hostile:1"], "Layers": []}]
        _write_members(path, {"c": config, "manifest.json": _json(manifest)})

    return write


def _brackets(path: Path, n: int) -> None:
    _write_members(path, {"manifest.json": b"[" * n})


def _layer_references(path: Path, n: int) -> None:
    """Write images that all have the same layer, fifty times each."""
    tar = _entry(b"f") + _END
    manifest = [{"Config": "c", "RepoTags": [f"a:{m}"], "Layers": ["l"] * 50} for m in range(n // 50)]
    config = _json(_config([_digest(tar)] * 50))
    _write_members(path, {"l": tar, "c": config, "manifest.json": _json(manifest)})


def _large_configs(path: Path, n: int) -> None:
    """Write images with configs of 500 KB that contain no ASCII character."""
    members = {f"c{m}": json.dumps(_config([], n=m, t="é" * 250_000), ensure_ascii=False).encode() for m in range(n)}
    manifest = [{"Config": f"c{m}", "RepoTags": [f"a:{m}"], "Layers": []} for m in range(n)]
    _write_members(path, {**members, "manifest.json": _json(manifest)})


def _brackets_in_configs(path: Path, n: int) -> None:
    members = {f"c{m}": _json(_config([], n=m, t="[" * 250_000)) for m in range(n)}
    manifest = [{"Config": f"c{m}", "RepoTags": [f"a:{m}"], "Layers": []} for m in range(n)]
    _write_members(path, {**members, "manifest.json": _json(manifest)})


def _brackets_in_names(path: Path, n: int) -> None:
    layout = _Layout()
    layout.write(path, [_named(layout.manifest(), "[" * 200_000 + str(number)) for number in range(n)])


def _one_config(path: Path, n: int) -> None:
    """Write images that share one config of a megabyte."""
    manifest = [{"Config": "c", "RepoTags": [f"a:{m}"], "Layers": []} for m in range(n)]
    config = _json(_config([], history=[{"created_by": "x" * 100}] * 8000))
    _write_members(path, {"c": config, "manifest.json": _json(manifest)})


def _estimated_layers(path: Path, n: int) -> None:
    """Write an image of ``n`` layers, each 2 KB that would inflate to two megabytes."""
    layer = gzip.compress(bytes(2 << 20))
    layers = {f"l{number}": layer[:4] + number.to_bytes(4) + layer[8:] for number in range(n)}  # the time
    diff_ids = [_digest(b"%d" % number) for number in range(n)]
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": [*layers]}]
    _write_members(path, {**layers, "c": _json(_config(diff_ids)), "manifest.json": _json(manifest)})


# -- OCI layouts


class _Layout:
    def __init__(self) -> None:
        self.members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, kind: str, value: Any) -> dict[str, Any]:
        data = value if isinstance(value, bytes) else _json(value)
        self.members[f"blobs/{_digest(data).replace(':', '/')}"] = data
        return {"mediaType": f"{_OCI}.{kind}", "digest": _digest(data), "size": len(data)}

    def manifest(self, layers: int = 1, **fields: object) -> dict[str, Any]:
        tar = _entry(b"f") + _END
        config = self.blob("config.v1+json", _config([_digest(tar)] * layers, **fields))
        blobs = [self.blob("layer.v1.tar", tar)] * layers
        return self.blob("manifest.v1+json", {"schemaVersion": 2, "config": config, "layers": blobs})

    def index(self, descriptors: list[Any]) -> dict[str, Any]:
        return self.blob("index.v1+json", {"schemaVersion": 2, "manifests": descriptors})

    def write(self, path: Path, named: Iterable[dict[str, Any]]) -> None:
        index = _json({"schemaVersion": 2, "manifests": list(named)})
        _write_members(path, {"index.json": index, **self.members})


def _named(descriptor: dict[str, Any], tag: object) -> dict[str, Any]:
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": f"a:{tag}"}}


def _names_of_one_manifest(path: Path, n: int) -> None:
    layout = _Layout()
    manifest = layout.manifest(n // 5)
    layout.write(path, (_named(manifest, number) for number in range(n)))


def _manifests(path: Path, n: int) -> None:
    layout = _Layout()
    layout.write(path, [_named(layout.manifest(number=number), number) for number in range(n)])


def _indexes_of_one_index(path: Path, n: int) -> None:
    layout = _Layout()
    index = layout.index([layout.manifest()] * 20)
    layout.write(path, (_named(index, number) for number in range(n)))


def _nested_indexes(path: Path, n: int) -> None:
    """Write an index with ``n`` times an index, which has ``n`` times a manifest."""
    layout = _Layout()
    descriptor = layout.index([layout.index([layout.manifest()] * n)] * n)
    layout.write(path, [_named(descriptor, 0)])


def _annotations(path: Path, n: int) -> None:
    layout = _Layout()
    manifest = layout.manifest()
    layout.write(path, [{**manifest, "annotations": {f"{m}-{k}": "" for k in range(100)}} for m in range(n)])


def _large_manifests(path: Path, n: int) -> None:
    """Write indexes with manifests for another machine, of 900 layers each."""
    layout = _Layout()
    layer = layout.blob("layer.v1.tar", _END)
    for number in range(n):
        config = layout.blob("config.v1+json", {"os": "plan9", "architecture": "mips", "number": number})
        layers = [{**layer, "digest": _digest(b"%d" % (1000 * number + m))} for m in range(900)]
        manifest = layout.blob("manifest.v1+json", {"schemaVersion": 2, "config": config, "layers": layers})
        layout.members[f"named-{number}"] = _json(_named(manifest, number))
    named = [json.loads(layout.members.pop(f"named-{number}")) for number in range(n)]
    layout.write(path, named)


TOTALS: dict[str, tuple[Write, int]] = {
    "global headers": (_layer(_global_headers), 5),
    "entries below a global header": (_layer(_entries_below_global_headers), 1000),
    "attributes of a global header": (_layer(_entries_with_global_attributes), 1000),
    "sparse maps of a global header": (_layer(_sparse_maps_of_a_global_header), 500),
    "tiny pax records": (_layer(_tiny_records), 5),
    "long names in a row": (_layer(_long_names_in_a_row), 20),
    "links into many directories": (_layer(_links_into_many_directories), 1000),
    "paths through links": (_layer(_paths_through_links), 500),
    "whiteouts": (_layer(_whiteouts), 3000),
    "fifos": (_layer(_devices), 3000),
    "climbing symlinks": (_layer(_climbing_symlinks), 2000),
    "directories replaced": (_layer(_directories_replaced), 1000),
    "deep and shallow in turns": (_layer(_deep_and_shallow), 500),
    "gzip members of nothing": (_frames(gzip.compress, gzip.compress(b"", mtime=0)), 50_000),
    "zstd frames of nothing": (_frames(zstd.compress, zstd.compress(b"")), 30_000),
    "zstd frames to skip": (_frames(zstd.compress, bytes.fromhex("502a4d1800000000")), 30_000),
    "zstd frames of nothing with a window of 128 MiB": (
        _frames(zstd.compress, bytes.fromhex("28b52ffd0088010000")),
        10_000,
    ),
    "directories behind a window of 128 MiB": (_directories_behind_a_window, 25_000),
    "xz streams of nothing": (_frames(lzma.compress, lzma.compress(b"")), 50_000),
    "bzip2 streams of nothing": (_frames(bz2.compress, bz2.compress(b"")), 50_000),
    "zstd frames around an archive": (_frames_around, 30_000),
    "members": (_members, 10_000),
    "long member names": (_long_member_names, 2000),
    "long member links": (_long_member_links, 2000),
    "members below a global header": (_members_below_a_global_header, 5000),
    "layers that link to one": (_linked_layers, 50),
    "images of one chain": (_images_of_one_chain, 100),
    "lists of nothing": (_values(b"[]"), 200_000),
    "objects of nothing": (_values(b'{"":{}}'), 100_000),
    "texts of one character": (_values('"Ā"'.encode()), 150_000),
    "integers of 4,000 digits": (_values(b"9" * 4000), 250),
    "fractions": (_values(b"1.5"), 200_000),
    "brackets": (_brackets, 1_000_000),
    "references to one layer": (_layer_references, 10_000),
    "configs of brackets": (_brackets_in_configs, 2),
    "names of brackets": (_brackets_in_names, 2),
    "configs of half a megabyte": (_large_configs, 2),
    "references to one config": (_one_config, 5),
    "layers that a sample inflates": (_estimated_layers, 50),
    "names of one manifest": (_names_of_one_manifest, 1000),
    "manifests": (_manifests, 300),
    "names of one index": (_indexes_of_one_index, 100),
    "nested indexes": (_nested_indexes, 50),
    "annotations": (_annotations, 500),
    "manifests for other machines": (_large_manifests, 30),
}
