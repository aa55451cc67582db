"""Images named by their config digest, or by the beginning of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore, ReferenceStore
from pykka_imagestore.cli.named import AmbiguousDigestError, find_names, find_only_name
from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.errors import NotFoundError

ONE, TWO = (Digest(f"sha256:{'a' * 12}{digit * 52}") for digit in "12")
OTHER = Digest(f"sha256:{'b' * 64}")
LAYER = DiffID(f"sha256:{'0' * 64}")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store of images, of which two have config digests that begin alike."""
    with ReferenceStore.start(tmp_path / "store") as references:
        for name, config in {"one": ONE, "two": TWO, "b": OTHER, "also-b": OTHER, "bbbbbbbbbbbbb": ONE}.items():
            references.put(name, [LAYER], config).get(timeout=TIMEOUT)
    return tmp_path / "store"


@pytest.mark.parametrize("text", [TWO, TWO[7:], TWO[:21], TWO[7:20]])
def test_config_digest_or_a_unique_beginning_names_an_image(store, text):
    assert find_names(store, text) == [find_only_name(store, text)] == ["two:latest"]


def test_config_digest_of_several_names_is_all_of_them_and_no_single_one(store):
    assert find_names(store, OTHER[7:19]) == ["also-b:latest", "b:latest"]
    words = f"{OTHER[7:19]} is the config digest of also-b:latest, b:latest; say which by its name"
    with pytest.raises(AmbiguousDigestError, match=words):
        find_only_name(store, OTHER[7:19])


@pytest.mark.parametrize("find", [find_names, find_only_name])
def test_beginning_of_several_config_digests_lists_them(store, find):
    with pytest.raises(AmbiguousDigestError) as caught:
        find(store, "a" * 12)

    assert str(caught.value) == (
        f"aaaaaaaaaaaa begins the config digests of bbbbbbbbbbbbb:latest ({ONE}), one:latest ({ONE}), "
        f"two:latest ({TWO}); write more digits"
    )


def test_name_comes_before_a_digest_that_begins_like_it(store):
    assert find_names(store, "b" * 13) == [find_only_name(store, "b" * 13)] == ["bbbbbbbbbbbbb:latest"]


@pytest.mark.parametrize("text", ["c" * 12, f"sha256:{'c' * 64}", "c" * 64])
def test_digest_of_no_image_is_not_found(store, text):
    with pytest.raises(NotFoundError, match=f"no image {text} is in the store"):
        find_names(store, text)


@pytest.mark.parametrize("text", ["aaaaaaaaaaa", "app:1", "A" * 12])
def test_what_is_no_digest_is_taken_as_a_name_and_looked_up_later(tmp_path, text):
    assert find_names(tmp_path / "none", text) == [find_only_name(tmp_path / "none", text)] == [text]


def test_verbs_take_digests(imagestore, tmp_path):
    for name in ("a", "b"):
        imagestore("put", docker_save(tmp_path / f"{name}.tar", {f"{name}:1": [layer({name: b""})]}, author=name))
    (a, b) = imagestore("ls", "--format", "{config_digest}").stdout.splitlines()

    assert json.loads(imagestore("get", "--json", a).stdout)["name"] == "a:1"
    assert imagestore("inspect", "--format", "{author}", a[7:19], b[7:]).stdout == "a\nb\n"
    assert imagestore("prune", "--budget", "0", "--keep", a[:19]).stdout.startswith("removed b:1\n")
    assert imagestore("rm", a[7:19]).stdout == "removed a:1\n"
    assert imagestore("rm", a[7:19]).stderr == f"imagestore: no image {a[7:19]} is in the store\n"


@pytest.mark.parametrize("verb", ["get", "inspect", "remove"])
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "app.tar",
            "no image app.tar:latest is in the store; but app.tar is here: put it first",
        ),
        ("layout", "no image layout:latest is in the store; but layout is here: put it first"),
        ("8a769d", "no image 8a769d:latest is in the store; if it begins a digest, write at least 12 digits"),
        ("sha256:8a769d", "no image sha256:8a769d is in the store; if it begins a digest, write at least 12 digits"),
        ("empty", "no image empty:latest is in the store\n"),
        ("app:2", "no image app:2 is in the store; there is app:1\n"),
        ("docker.io/library/app", "no image app:latest is in the store; there is app:1\n"),
        ("apq:1", "no image apq:1 is in the store; there is app:1\n"),
        ("x" * 128, f"no image {'x' * 128}:latest is in the store\n"),
    ],
)
def test_what_names_no_image_may_be_meant_otherwise(filled, tmp_path, verb, name, advice):
    for directory in ("layout", "empty"):
        (tmp_path / directory).mkdir()
    for file in ("app.tar", "layout/oci-layout"):
        (tmp_path / file).touch()

    done = filled(verb, name, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"imagestore: {advice}")


def test_images_are_alike_by_their_repositories_and_not_by_their_tags(filled, archive):
    filled("put", "--name", "busybox", archive)

    assert filled("get", "nope").stderr == "imagestore: no image nope:latest is in the store\n"
    assert filled("get", "busibox").stderr == (
        "imagestore: no image busibox:latest is in the store; there is busybox:latest\n"
    )


def test_prune_refuses_to_keep_what_too_few_digits_of_a_digest_would_not_keep(filled):
    digest = filled("list", "--format", "{config_digest}").stdout.strip()

    done = filled("prune", "--budget", "0", "--keep", digest[:14])

    assert (done.returncode, done.stdout) == (1, "")
    assert "write at least 12 digits" in done.stderr
    assert "app:1" in filled("list").stdout


def test_prune_keeps_an_image_whose_name_is_like_a_few_digits(filled, archive):
    filled("put", "--name", "cafe", archive)

    assert filled("prune", "-q", "--budget", "0", "--keep", "cafe", "--keep", "not-here").stdout == "app:1\n"


def test_path_that_is_no_name_is_put_first(filled, tmp_path):
    (tmp_path / "app.tar").touch()

    done = filled("get", "./app.tar", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("but ./app.tar is here: put it first, with imagestore put ./app.tar\n")


def test_incomplete_image_is_put_again_whatever_else_has_its_name(filled, tmp_path):
    filled("put", "--name", "app", docker_save(tmp_path / "a.tar", {"a:1": [layer({"new": b""})]}))
    path = Path(filled("get", "-q", "app").stdout.strip())
    path.parent.rename(tmp_path / "gone")
    (tmp_path / "app").touch()

    done = filled("get", "app", cwd=tmp_path)

    assert done.returncode == 1
    assert "is incomplete" in done.stderr
    assert "is here" not in done.stderr


def test_digest_of_two_names_is_got_and_not_removed(imagestore, tmp_path):
    archive = docker_save(tmp_path / "two.tar", {"a:1,b:1": [layer({"a": b""})]})
    digest = imagestore("put", "--name", "a:1", "--format", "{config_digest}", archive).stdout.strip()
    with LocalStore.start(imagestore.store) as store:
        store.put("b:1", archive, select=digest).get(timeout=TIMEOUT)

    assert imagestore("get", "--format", "{name}", digest).stdout == "a:1\n"
    removed = imagestore("rm", digest)
    assert (removed.returncode, removed.stdout) == (1, "")
    assert removed.stderr == f"imagestore: {digest} is the config digest of a:1, b:1; say which by its name\n"


def test_digest_where_there_is_no_store_makes_none(imagestore):
    for verb in ("get", "inspect", "remove"):
        assert "there is no image store" in imagestore(verb, "a" * 64).stderr
    assert not imagestore.store.exists()
