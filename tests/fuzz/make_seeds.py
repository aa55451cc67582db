"""Writes the inputs that the fuzz targets begin with: a small layer or archive for each thing that may be in one."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import tars
from support.compressions import COMPRESS
from support.images import diff_id, layer

CORPUS = Path(__file__).parent / "corpus"
ID, PARENT = "1" * 64, "2" * 64
CAPABILITY = b"\1\0\0\2\0\4\0\0" + bytes(12)

LAYERS = {
    "plain": (tars.directory(b"etc/"), tars.file(b"etc/motd", b"hello"), tars.file(b"etc/hosts", b"x" * 513)),
    "implicit-directories": (tars.file(b"a/b/c/f", b"x"), tars.directory(b"a/b/", mode=0o700, mtime=5)),
    "symlinked-parent": (tars.directory(b"real"), tars.symlink(b"a", b"real"), tars.file(b"a/f", b"x")),
    "symlink-out": (tars.symlink(b"a", b"../../outside"), tars.file(b"a/secret", b"x"), tars.directory(b"a/inner")),
    "symlink-loop": (tars.symlink(b"a", b"b"), tars.symlink(b"b", b"a"), tars.file(b"a/f")),
    "name-out": (tars.file(b"f"), tars.file(b"../outside/secret", b"x")),
    "hard-links": (tars.file(b"a", b"x"), tars.hard_link(b"b", b"a"), tars.hard_link(b"c/d", b"./b")),
    "hard-link-out": (tars.symlink(b"a", b"../../outside"), tars.hard_link(b"b", b"a/secret")),
    "hard-link-to-symlink-out": (tars.symlink(b"a", b"../../outside/secret"), tars.hard_link(b"b", b"a")),
    "hard-link-below-whiteout": (tars.whiteout(b"a"), tars.hard_link(b"b", b"a/f")),
    "whiteouts": (tars.directory(b"a"), tars.whiteout(b"a/gone"), tars.opaque(b"a"), tars.whiteout(b"b")),
    "whiteout-then-directory": (tars.whiteout(b"a"), tars.file(b"a/f", b"x"), tars.whiteout(b"a")),
    "aufs-bookkeeping": (tars.file(b".wh..wh.plnk/1.2", b"x"), tars.file(b".wh..wh.aufs")),
    "same-name-again": (tars.file(b"a", b"1"), tars.directory(b"a"), tars.file(b"a/b"), tars.symlink(b"a", b"b")),
    "devices": (tars.header(b"null", tars.CHARACTER_DEVICE, major=1, minor=3), tars.header(b"p", tars.FIFO)),
    "whiteout-device": (tars.header(b"gone", tars.CHARACTER_DEVICE),),
    "set-id": (tars.file(b"su", b"x", mode=0o4755, uid=1000, gid=1000), tars.directory(b"tmp", mode=0o3777)),
    "pax-path-size-time": (
        tars.pax({b"path": b"long/" * 30 + b"f", b"size": b"3", b"mtime": b"1.5"}),
        tars.file(b"x", b"abc"),
    ),
    "pax-owner": (tars.pax({b"uid": b"3000000", b"gid": b"5"}), tars.file(b"x")),
    "pax-global": (
        tars.pax({b"mtime": b"7"}, tars.PAX_GLOBAL),
        tars.file(b"a"),
        tars.pax({b"mtime": b""}),
        tars.file(b"b"),
    ),
    "pax-link": (tars.pax({b"linkpath": b"t" * 200}), tars.symlink(b"a", b"x")),
    "xattrs": (
        tars.pax({b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.security.capability": CAPABILITY}),
        tars.file(b"a", b"x"),
        tars.pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.user.overlay.opaque": b"y"}),
        tars.directory(b"d"),
    ),
    "gnu-long-names": (tars.long_name(b"n/" * 70 + b"f"), tars.file(b"n", b"x"), tars.symlink(b"l", b"t" * 150)),
    "more-directories-than-stay-open": tuple(
        tars.file(name * 100 + b"f") for name in (b"a/", b"b/", b"c/", b"d/", b"a/")
    ),
    "ustar-prefix": (tars.file(b"f", b"x", prefix=b"some/directory"),),
    "base-256": (
        tars.file(b"a", b"x", size=tars.base_256(1, 12), mtime=tars.base_256(-1, 12), uid=tars.base_256(70000, 8)),
    ),
    "size-lie": (tars.header(b"a", size=tars.base_256(2**62, 12)), b"x" * 512),
    "size-lie-in-pax": (tars.pax({b"size": b"9" * 18}), tars.file(b"a", b"x")),
    "sparse": (tars.pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"1000000000000"}), tars.file(b"a", b"x")),
    **{
        f"sparse-{form}": (sparse(b"f", 9000, [(512, 3), (8000, 2)], b"abcde"),) for form, sparse in tars.SPARSE.items()
    },
    "sparse-name-with-nul": (tars.pax({b"GNU.sparse.map": b"0,1", b"GNU.sparse.name": b"a\0b"}), tars.file(b"a", b"x")),
    "name-too-long-and-cut-off": (tars.long_name(b"n" * 256), tars.header(b"n", size=2000), b"x" * 600),
    "old-directory": (tars.file(b"a/", b"body", magic=bytes(8)), tars.file(b"a/f", b"x", magic=bytes(8))),
    "signed-checksum": (tars.with_checksum(tars.header("ä".encode(), magic=bytes(8)), signed=True),),
    "no-directory-mode": (tars.directory(b"a", mode=0), tars.file(b"a/f", b"x", mode=0)),
    "names-not-utf-8": (tars.file(b"\xff\xfe", b"x"), tars.symlink(b"\xe4", b"\xff")),
    "contiguous-file": (tars.header(b"a", b"7", size=1) + tars.padded(b"x"),),
}

BASE, TOP = layer({"etc/motd": b"hello"}), layer({"etc/motd": b"bye", "f": b""})


def config(*layers: bytes) -> bytes:
    return json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": list(map(diff_id, layers))}}).encode()


def manifest(*images: Mapping[str, object]) -> bytes:
    return tars.file(b"manifest.json", json.dumps(images).encode())


IMAGE = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}
MEMBERS = (
    tars.file(b"config.json", config(BASE, TOP)),
    tars.file(b"a/layer.tar", BASE),
    tars.file(b"b/layer.tar", TOP),
)
NAMED = f"{hashlib.sha256(config(BASE)).hexdigest()}.json"
LEGACY = (
    tars.file(f"{PARENT}/json".encode(), json.dumps({"id": PARENT, "created": "2020-01-01T00:00:00Z"}).encode()),
    tars.file(f"{PARENT}/layer.tar".encode(), BASE),
    tars.file(f"{ID}/json".encode(), json.dumps({"id": ID, "parent": PARENT, "config": {"Cmd": ["sh"]}}).encode()),
    tars.file(f"{ID}/layer.tar".encode(), TOP),
)

ARCHIVES = {
    "manifest": (manifest(IMAGE), *MEMBERS),
    "manifest-last": (*MEMBERS, manifest(IMAGE)),
    "two-images": (manifest(IMAGE, {**IMAGE, "RepoTags": None}), *MEMBERS),
    "config-named-by-its-digest": (
        tars.file(NAMED.encode(), config(BASE)),
        tars.file(b"layer.tar", BASE),
        manifest({"Config": NAMED, "RepoTags": ["app:1", "b/app:2"], "Layers": ["layer.tar"]}),
    ),
    "wrong-config-digest": (
        tars.file(NAMED.encode(), config(TOP)),
        manifest({"Config": NAMED, "RepoTags": [], "Layers": []}),
    ),
    "lower-case": (manifest({key.lower(): value for key, value in IMAGE.items()}), *MEMBERS),
    "linked-layer": (manifest(IMAGE), *MEMBERS[:2], tars.symlink(b"b/layer.tar", b"../a/layer.tar")),
    "hard-linked-layer": (manifest(IMAGE), *MEMBERS[:2], tars.hard_link(b"b/layer.tar", b"a/layer.tar")),
    "link-loop": (manifest(IMAGE), *MEMBERS[:2], tars.symlink(b"b/layer.tar", b"layer.tar")),
    "layer-out": (manifest({**IMAGE, "Layers": ["../secret"]}), *MEMBERS),
    "layer-cut-off": (manifest(IMAGE), *MEMBERS[:2], tars.header(b"b/layer.tar", size=tars.base_256(2**40, 12))),
    "legacy": (*LEGACY, tars.file(b"repositories", json.dumps({"app": {"1": ID}}).encode())),
    "legacy-without-names": LEGACY,
    "legacy-loop": (*LEGACY, tars.file(f"{PARENT}/json".encode(), json.dumps({"parent": ID}).encode())),
    "oci": (tars.file(b"index.json", b"{}"), tars.file(b"oci-layout", b"{}")),
    "no-json": (tars.file(b"manifest.json", b"[{,}]"), *MEMBERS),
    "nested-json": (tars.file(b"manifest.json", b"[" * 200 + b"]" * 200),),
    "pax-members": (tars.pax({b"path": b"manifest.json"}), manifest(IMAGE), *MEMBERS),
}


def write(corpus: str, seeds: dict[str, tuple[bytes, ...]]) -> None:
    directory = CORPUS / corpus
    directory.mkdir(parents=True, exist_ok=True)
    for name, parts in seeds.items():
        (directory / f"{name}.tar").write_bytes(tars.tar(*parts))
    for kind, compress in COMPRESS.items():
        (directory / f"first.{kind}").write_bytes(compress(tars.tar(*next(iter(seeds.values())))))


write("layers", LAYERS)
write("archives", ARCHIVES)
