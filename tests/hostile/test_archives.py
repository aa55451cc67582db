"""Image archives that lie, loop, or reach outside: each is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import seams, tars
from support.compressions import COMPRESS
from support.images import diff_id, docker_save, layer
from support.processes import TIMEOUT

from pykka_imagestore import LimitError, LocalStore
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.errors import ArchiveError, StoreError, UnsupportedArchiveError
from pykka_imagestore.jobs.archive.json_reader import MAX_JSON_BYTES
from pykka_imagestore.jobs.hash_layer import hash_layer
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

LAYER = layer({"etc/motd": b"hello"})
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id(LAYER)]}}).encode()
ID = "1" * 64


def manifest(config="config.json", layers=("layer.tar",), **others):
    return tars.file(
        b"manifest.json", json.dumps([{"Config": config, "RepoTags": ["app:1"], "Layers": layers, **others}]).encode()
    )


SOUND = [manifest(), tars.file(b"config.json", CONFIG), tars.file(b"layer.tar", LAYER)]


class Indexer:
    """Indexes archives in a directory that holds a secret beside them."""

    def __init__(self, directory):
        self._directory = directory
        self.path = directory / "image.tar"
        (directory / "secret").write_bytes(LAYER)

    def index(self, data, limits=DEFAULT_LIMITS):
        self.path.write_bytes(data)
        return untar_image(UntarImage(str(self.path), str(self._directory / "inflated.tar"), limits=limits))

    def refuse(self, *parts, match, error=ArchiveError, limits=DEFAULT_LIMITS):
        with pytest.raises(error, match=match) as caught:
            self.index(tars.tar(*parts), limits)
        assert str(caught.value).startswith(f"{self.path}: ")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.fixture
def indexer(tmp_path):
    return Indexer(tmp_path)


# -- members that are not what they seem


@pytest.mark.parametrize("form", tars.SPARSE)
def test_layer_that_is_a_sparse_member_is_not_read_as_if_it_had_no_holes(indexer, form):
    sparse = tars.SPARSE[form](b"layer.tar", 1 << 20, [(0, len(LAYER))], LAYER)

    indexer.refuse(*SOUND[:2], sparse, match=r"its member 2 'layer.tar' is sparse, so it has to be packed again")


# -- names that lead out


@pytest.mark.parametrize("name", ["../secret", "../../etc/passwd", "..", "a/../../secret", "/../secret"])
def test_layer_outside_of_the_archive(indexer, name):
    indexer.refuse(*SOUND[1:], manifest(layers=[name]), match=r"it names a member '.*' that points outside")


@pytest.mark.parametrize("name", ["../secret", "../../etc/passwd", "..", "a/../../secret"])
def test_config_outside_of_the_archive(indexer, name):
    indexer.refuse(*SOUND[1:], manifest(config=name), match=r"it names a member '.*' that points outside")


@pytest.mark.parametrize("name", ["/etc/passwd", "etc/passwd", "secret", "./secret", "", ".", "/", "layer.tar/x"])
def test_layer_that_is_no_member(indexer, name):
    indexer.refuse(*SOUND[1:], manifest(layers=[name]), match=r"it has no member '")


def test_absolute_path_of_a_file_beside_the_archive(indexer, tmp_path):
    indexer.refuse(*SOUND[1:], manifest(layers=[str(tmp_path / "secret")]), match=r"it has no member '")


@pytest.mark.parametrize("name", ["\0", "layer.tar\0", "\ud800", "x" * 5000, "a/" * 5000])
def test_layer_whose_name_is_none(indexer, name):
    indexer.refuse(*SOUND[1:], manifest(layers=[name]), match=r"it (names a|has no) member '")


@pytest.mark.parametrize("name", [b"../layer.tar", b"..", b"a/../../layer.tar"])
def test_member_that_leads_out(indexer, name):
    match = rf"its member 3 '{re.escape(name.decode())}' points outside the archive"
    indexer.refuse(*SOUND, tars.file(name, LAYER), match=match)


def test_legacy_id_that_leads_out(indexer):
    for leaf in ("..", "../" * 21 + "x", "/" + ID[1:]):
        indexer.refuse(
            tars.file(b"repositories", json.dumps({"app": {"1": leaf}}).encode()), match=r"should be a layer's id of 64"
        )


def test_legacy_parent_that_leads_out(indexer):
    indexer.refuse(
        tars.file(b"repositories", json.dumps({"app": {"1": ID}}).encode()),
        tars.file(f"{ID}/json".encode(), json.dumps({"parent": "../../secret"}).encode()),
        tars.file(f"{ID}/layer.tar".encode(), LAYER),
        match=rf"'{ID}/json', parent should be a layer's id of 64 hex digits",
    )


# -- links

LINK_OUT = r"its member 2 'layer.tar', a link to '.*' points outside the archive"


@pytest.mark.parametrize("target", [b"../secret", b"../../etc/passwd", b"a/../../secret", b".."])
def test_symlinked_member_that_leads_out(indexer, target):
    indexer.refuse(*SOUND[:2], tars.symlink(b"layer.tar", target), match=LINK_OUT)


@pytest.mark.parametrize("target", [b"../secret", b"/../secret"])
def test_hard_linked_member_that_leads_out(indexer, target):
    indexer.refuse(*SOUND[:2], tars.hard_link(b"layer.tar", target), match=LINK_OUT)


@pytest.mark.parametrize("make", [tars.symlink, tars.hard_link])
@pytest.mark.parametrize("target", [b"/etc/passwd", b"secret", b"/proc/self/exe", b"directory", b""])
def test_linked_member_that_leads_to_no_member(indexer, make, target):
    indexer.refuse(
        *SOUND[:2], tars.directory(b"directory"), make(b"layer.tar", target), match=r"it has no member 'layer.tar'"
    )


@pytest.mark.parametrize("make", [tars.symlink, tars.hard_link])
def test_linked_members_in_a_loop(indexer, make):
    indexer.refuse(*SOUND[:2], make(b"layer.tar", b"layer.tar"), match=r"'layer.tar' is a link that leads nowhere")
    indexer.refuse(
        *SOUND[:2],
        make(b"layer.tar", b"b"),
        make(b"b", b"layer.tar"),
        match=r"'layer.tar' is a link that leads nowhere",
    )


def test_linked_members_in_a_long_chain(indexer):
    chain = [tars.symlink(b"%d" % number, b"%d" % (number + 1)) for number in range(1000)]

    indexer.refuse(*SOUND[:2], manifest(layers=["0"]), *chain, match=r"'0' is a link that leads nowhere")


def test_manifest_that_is_a_link_to_itself(indexer):
    indexer.refuse(*SOUND[1:], tars.symlink(b"manifest.json", b"manifest.json"), match=r"is a link that leads nowhere")


@pytest.mark.parametrize("kind", [tars.DIRECTORY, tars.FIFO, tars.CHARACTER_DEVICE])
def test_layer_that_is_no_file(indexer, kind):
    indexer.refuse(*SOUND[:2], tars.header(b"layer.tar", kind, major=1, minor=5), match=r"it has no member 'layer.tar'")


# -- lies and bombs


def test_size_of_a_member_beyond_the_end(indexer):
    for size in (len(LAYER) + 5000, 2**40, 2**62):
        indexer.refuse(
            *SOUND[:2],
            tars.header(b"layer.tar", size=tars.base_256(size, 12)),
            LAYER,
            match=r"its member 2 'layer.tar' is cut off",
        )


@pytest.mark.parametrize("size", [b"9" * 19, b"%d" % 2**63, b"%d" % (2**63 - 1)])
@pytest.mark.parametrize("name", [b"layer.tar", b"directory/"])
def test_size_that_no_file_has(indexer, name, size):
    data = tars.tar(*SOUND, tars.pax({b"size": size}), tars.header(name))

    try:
        indexer.index(data)
    except ArchiveError as error:
        assert "cut off" in str(error)  # noqa: PT017 - either answer will do
    else:
        assert name.endswith(b"/")


def test_archive_cut_off_anywhere(indexer):
    whole = tars.tar(tars.pax({b"path": b"manifest.json"}), *SOUND)

    for size in range(0, len(whole) - 1024 - 500, 100):
        with pytest.raises(ArchiveError):
            indexer.index(whole[:size])


@pytest.mark.parametrize("first", [tars.file(b"manifest.json", LAYER), tars.pax({b"path": b"x" * 200})])
def test_archive_cut_off_in_its_first_member_is_called_that(indexer, first):
    whole = tars.tar(first)

    for size in (300, 600):
        with pytest.raises(ArchiveError, match=r"image.tar: its (first )?member.*(cut off|ends inside)") as caught:
            indexer.index(whole[:size])

        assert not isinstance(caught.value, UnsupportedArchiveError)


def test_damage_is_told_by_the_member_before_it(indexer):
    damaged = b"x" + tars.header(b"layer.tar")[1:]

    indexer.refuse(
        *SOUND[:2],
        damaged,
        match=r"what follows its member 1 'config.json' is damaged, or no tar",
    )


def test_archive_damaged_in_any_header(indexer):
    whole = tars.tar(*SOUND)

    for position in range(0, 157, 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        with pytest.raises(ArchiveError):
            indexer.index(bytes(damaged))


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
@pytest.mark.parametrize("name", [b"manifest.json", b"config.json"])
def test_json_that_nests_deep(indexer, name, bracket):
    bomb = tars.file(name, bracket * 140_000)

    indexer.refuse(*SOUND, bomb, match=rf"'{name.decode()}' is no JSON|nested more than")


def test_json_that_is_large(indexer):
    large = tars.file(b"manifest.json", b" " * (MAX_JSON_BYTES + 1))

    indexer.refuse(*SOUND[1:], large, match=rf"has {MAX_JSON_BYTES + 1} bytes; {MAX_JSON_BYTES} is the limit for JSON")


def test_json_that_is_large_all_together(indexer):
    # One config of a megabyte, named by a thousand images.
    config = CONFIG + b" " * 1_000_000
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}
    bomb = tars.tar(
        tars.file(b"manifest.json", json.dumps([entry] * 1000).encode()), tars.file(b"config.json", config), SOUND[2]
    )

    indexer.refuse(bomb, match=r"bytes of configs, names and layers; 25165824 is the limit")
    indexer.refuse(bomb, match=r"bytes of JSON; 67108864 is the limit", limits=Limits(index_bytes=1 << 30))


def test_legacy_images_that_share_a_long_chain_have_it_parsed_once(indexer, monkeypatch):
    ids = [f"{number:064x}" for number in range(50)]
    chain = [
        tars.file(f"{layer}/json".encode(), json.dumps({"parent": parent, "comment": "x" * 100_000}).encode())
        + tars.file(f"{layer}/layer.tar".encode())
        for layer, parent in zip(ids, [*ids[1:], None], strict=True)
    ]
    names = {"app": {str(number): layer for number, layer in enumerate(ids)}}

    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text, **how: (parsed.append(text), loads(text, **how))[1])

    index = indexer.index(tars.tar(tars.file(b"repositories", json.dumps(names).encode()), *chain))

    assert [len(image.layers) for image in index.images] == list(range(50, 0, -1))
    assert len(parsed) == 1 + len(ids)


def test_more_members_than_an_image_has(indexer):
    members = [tars.file(b"%d" % number) for number in range(51)]

    indexer.refuse(*members, match=r"it has 51 members; 50 is the limit", limits=Limits(members=50))


def entries_of(count, **fields):
    return tars.file(
        b"manifest.json", json.dumps([{"Config": "config.json", "Layers": ["layer.tar"], **fields}] * count).encode()
    )


ASKS_FOR_MUCH = {
    "members": ([tars.file(b"%d" % number) for number in range(8)], Limits(members=10), "it has 11 members; 10"),
    "directories": (
        [tars.directory(b"%d" % number) for number in range(8)],
        Limits(members=10),
        "it has 11 members; 10",
    ),
    "long names": ([tars.file(b"x" * 900)], Limits(member_name_bytes=900), "it has 933 bytes of members' names; 900"),
    "long links": (
        [tars.symlink(b"l", b"x" * 900)],
        Limits(member_name_bytes=900),
        "it has 934 bytes of members' names",
    ),
    "hard links": (
        [tars.hard_link(b"l", b"x" * 900)],
        Limits(member_name_bytes=900),
        "it has 934 bytes of members' na",
    ),
    "global header": (
        [tars.pax({b"mtime": b"1" * 90}, tars.PAX_GLOBAL)],
        Limits(global_bytes=90),
        "say 95 bytes of each",
    ),
    "images": ([entries_of(5)], Limits(images=4), "it has 5 images; 4"),
    "names": ([entries_of(2, RepoTags=["a", "b"])], Limits(names=3), "it has 4 names and tags; 3"),
    "layers": ([manifest(layers=["layer.tar"] * 5)], Limits(layers=4), "image 0 has 5 layers; 4"),
    "JSON": ([tars.file(b"config.json", CONFIG + b" " * 900)], Limits(json_bytes=900), "bytes of JSON; 900"),
    "index": ([manifest(RepoTags=["é" * 100])], Limits(index_bytes=900), "bytes of configs, names and layers; 900"),
    "values": ([tars.file(b"config.json", CONFIG[:-1] + b',"a":[[],{},"",0]}')], Limits(json_values=10), "more values"),
}
LIMIT_OF = {
    "directories": "members",
    "long names": "member_name_bytes",
    "JSON": "json_bytes",
    "global header": "global_bytes",
}
LIMIT_OF |= {
    "long links": "member_name_bytes",
    "hard links": "member_name_bytes",
    "values": "json_values",
    "index": "index_bytes",
}


@pytest.mark.parametrize("attack", ASKS_FOR_MUCH)
def test_archive_past_a_limit(indexer, attack):
    parts, limits, sentence = ASKS_FOR_MUCH[attack]

    indexer.refuse(*SOUND, *parts, match=re.escape(sentence), error=LimitError, limits=limits)

    name = LIMIT_OF.get(attack, attack)
    with pytest.raises(ArchiveError, match=rf"is the limit. Nothing of it was kept; .* a larger Limits.{name}$"):
        indexer.index(tars.tar(*SOUND, *parts), limits)


@pytest.mark.parametrize("text", [b'"a,b:c[d{e"', b'"\\",{,[:"', b'"\\\\"', b'"' + b'\\"' * 99 + b'"'])
def test_what_stands_in_texts_of_json_is_no_value(indexer, text):
    config = CONFIG[:-1] + b',"a":[' + b",".join([text] * 100) + b"]}"
    soundly = [*SOUND, tars.file(b"config.json", config)]

    assert indexer.index(tars.tar(*soundly), Limits(json_values=120)).images

    indexer.refuse(*soundly, match=r"has more values of JSON; 100 is the limit", limits=Limits(json_values=100))


@pytest.mark.parametrize("text", [b'"' * 100_001, b'"' + b'\\"' * 100_000, b"\\" * 100_001, b'"\\'])
def test_texts_that_do_not_end_are_gone_through_once(indexer, text):
    started = time.thread_time()

    indexer.refuse(*SOUND, tars.file(b"config.json", b"," * 100 + text), match="is", limits=Limits(json_values=90))
    indexer.refuse(
        *SOUND,
        tars.file(b"config.json", b"," * 80 + b'"' + b":" * 90 + text),
        match="is no JSON",
        limits=Limits(json_values=90),
    )

    assert time.thread_time() - started < 20  # each by itself to the end would be minutes


def test_one_layer_under_many_spellings_is_looked_at_once(indexer):
    big = layer({"big": bytes(4 << 20)})
    spellings = ["./" * number + "layer.tar" for number in range(500)]
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(big)] * 500}}).encode()
    before = bytes_read()

    index = indexer.index(
        tars.tar(manifest(layers=spellings), tars.file(b"config.json", config), tars.file(b"layer.tar", big))
    )

    assert len({layer.location for layer in index.images[0].layers}) == 1
    assert bytes_read() - before < 20 << 20  # 500 samples have hundreds of megabytes


def bytes_read():
    """Return how much this process has read of files so far."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def test_members_of_one_name_are_the_last_one(indexer):
    index = indexer.index(tars.tar(tars.file(b"layer.tar", b"old"), *SOUND))

    assert index.images[0].layers[0].size == len(LAYER)


# -- no archive


@pytest.mark.parametrize("data", [b"", b"\0" * 10240, b"text", b"text" * 1000, b"PK\3\4" * 1000, b"\x7fELF" * 1000])
def test_file_that_is_no_archive(indexer, data):
    indexer.path.write_bytes(data)

    with pytest.raises(UnsupportedArchiveError, match=r"image.tar: is no image archive: "):
        indexer.index(data)


def test_directory_that_is_no_archive(tmp_path):
    with pytest.raises(UnsupportedArchiveError, match=r"has none of manifest.json, index.json and"):
        untar_image(UntarImage(str(tmp_path), str(tmp_path / "inflated")))


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_file_that_would_be_waited_for(tmp_path, monkeypatch, kind):
    path = str(tmp_path / "image.tar")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(tmp_path)  # a socket's path is short
            listener.bind("image.tar")
    else:
        path = "/dev/zero"

    with pytest.raises((UnsupportedArchiveError, OSError)):
        untar_image(UntarImage(path, str(tmp_path / "inflated")))


# -- compressed as a whole


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_archive_is_read_and_only_its_copy_holds_layers(indexer, tmp_path, compression):
    index = indexer.index(COMPRESS[compression](tars.tar(*SOUND)))

    assert index.path == str(indexer.path)
    assert index.images[0].layers[0].location.path == str(tmp_path / "inflated.tar")
    assert index.images[0].layers[0].origin == str(indexer.path)
    assert sha256(index.images[0].config) == sha256(CONFIG)


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_archive_cut_off_anywhere(indexer, compression):
    compressed = COMPRESS[compression](tars.tar(*SOUND, tars.file(b"rest", os.urandom(2000))))

    for size in range(1, len(compressed) - 9, 97):
        with pytest.raises(ArchiveError) as caught:
            indexer.index(compressed[:size])

        assert str(caught.value).startswith(f"{indexer.path}: ")


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_archive_damaged_anywhere(indexer, compression):
    compressed = COMPRESS[compression](tars.tar(*SOUND, tars.file(b"rest", os.urandom(500))))

    for position in range(0, len(compressed), 11):
        damaged = bytearray(compressed)
        damaged[position] ^= 0x55
        try:
            indexer.index(bytes(damaged))
        except ArchiveError as error:
            assert str(error).startswith(f"{indexer.path}: ")  # noqa: PT017 - what is not noticed here, a digest tells


def test_archive_compressed_twice_is_no_archive(indexer):
    twice = gzip.compress(gzip.compress(tars.tar(*SOUND)))

    with pytest.raises(UnsupportedArchiveError, match=r"is no image archive"):
        indexer.index(twice)


# -- through the whole store


def other_layer():
    forged = tars.file(b"layer.tar", layer({"etc/motd": b"forged"}))
    return tars.tar(*SOUND[:2], forged)


def escaping_layer():
    bad = tars.tar(tars.file(b"good", b"x"), tars.file(b"../../../escaped", b"x"))
    config = json.dumps({"rootfs": {"diff_ids": [diff_id(LAYER), diff_id(bad)]}}).encode()
    both = manifest(layers=["layer.tar", "bad.tar"])
    return tars.tar(both, tars.file(b"config.json", config), SOUND[2], tars.file(b"bad.tar", bad))


def legacy_config_that_nests(depth):
    leaf = b'{"config":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    return tars.tar(
        tars.file(b"repositories", json.dumps({"app": {"1": ID}}).encode()),
        tars.file(f"{ID}/json".encode(), leaf),
        tars.file(f"{ID}/layer.tar".encode(), LAYER),
    )


HOSTILE: dict[str, Callable[[], bytes]] = {
    "layer outside": lambda: tars.tar(*SOUND[1:], manifest(layers=["../../secret"])),
    "other layer": other_layer,
    "escaping layer": escaping_layer,
    "escaping layer in a compressed archive": lambda: gzip.compress(escaping_layer()),
    "symlinks in a loop": lambda: tars.tar(*SOUND[:2], tars.symlink(b"layer.tar", b"layer.tar")),
    "layer is no tar": lambda: tars.tar(*SOUND[:2], tars.file(b"layer.tar", b"?" * 1000)),
    "damaged gzip": lambda: gzip.compress(tars.tar(*SOUND))[:-100],
    "no archive": lambda: b"?" * 1000,
    **{f"nested {depth}": partial(legacy_config_that_nests, depth) for depth in (101, 900, 940, 960, 980)},
}


def assert_refuses_and_goes_on(store, tmp_path, attack):
    archive, good = tmp_path / "hostile.tar", docker_save(tmp_path / "good.tar", {"good": [LAYER]})
    archive.write_bytes(HOSTILE[attack]())

    with pytest.raises(StoreError) as caught:
        store.put("app", archive).get(timeout=TIMEOUT)

    assert str(archive) in str(caught.value)
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path / "store" / "staging") == []
    assert store.list().get(timeout=TIMEOUT) == ()
    assert store.put("good", good).get(timeout=TIMEOUT).name == "good:latest"
    assert not (tmp_path / "escaped").exists()


def test_legacy_layers_that_are_links_to_one_member_are_read_once_for_a_put(store, tmp_path, monkeypatch):
    ids = [f"{number:064x}" for number in range(30)]
    chain = [
        tars.file(f"{layer}/json".encode(), json.dumps({"parent": parent}).encode())
        + tars.hard_link(f"{layer}/layer.tar".encode(), b"layer.tar")
        for layer, parent in zip(ids, [*ids[1:], None], strict=True)
    ]
    names = tars.file(b"repositories", json.dumps({"a": {"1": ids[0]}, "b": {"1": ids[1]}}).encode())
    (tmp_path / "old.tar").write_bytes(tars.tar(tars.file(b"layer.tar", LAYER), *chain, names))
    hashed = []
    monkeypatch.setattr(seams.HASH_LAYER, lambda layer, limits: (hashed.append(layer), hash_layer(layer, limits))[1])

    images = store.load(tmp_path / "old.tar").get(timeout=TIMEOUT)

    assert [len(image.layers) for image in images] == [30, 29]
    assert {layer.diff_id for image in images for layer in image.layers} == {diff_id(LAYER)}
    assert len(hashed) == 1


@pytest.mark.parametrize("attack", HOSTILE)
def test_store_refuses_and_goes_on_as_if_nothing_had_been(store, tmp_path, attack):
    assert_refuses_and_goes_on(store, tmp_path, attack)


def test_refusal_comes_back_from_a_worker_process_as_it_is(tmp_path):
    with LocalStore.start(tmp_path / "store", workers=1) as store:
        assert_refuses_and_goes_on(store, tmp_path, "escaping layer")
