"""``imagestore put`` of layouts, and of what comes through descriptors of its own."""

from __future__ import annotations

import gzip
import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from support.commands import assert_refused
from support.images import diff_id, docker_save, layer
from support.layouts import AMD64, ARM64, Layout
from support.processes import TIMEOUT

BASE, APP = layer({"etc/os-release": b"ID=test\n"}), layer({"app/main": b"x"})


def put(imagestore, *arguments, **options):
    done = imagestore("put", "--json", "--not-durable", *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return [(image["name"], image["layers"][0]["diff_id"]) for image in json.loads(done.stdout)]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def two_platforms(directory: Path) -> Path:
    layout = Layout()
    amd = layout.manifest(BASE, config=layout.config(BASE), platform=AMD64)
    arm = layout.manifest(APP, config=layout.config(APP, **ARM64), platform=ARM64)
    layout.name(layout.index(amd, arm), "app:1")
    return layout.write_directory(directory / "layout")


@pytest.mark.parametrize(("platform", "found"), [("linux/amd64", BASE), ("linux/aarch64", APP)])
def test_put_of_a_layout_chooses_the_platform(imagestore, tmp_path, platform, found):
    assert put(imagestore, two_platforms(tmp_path), "--platform", platform) == [("app:1", diff_id(found))]


def test_put_follows_links_if_asked_to(imagestore, tmp_path):
    layout = two_platforms(tmp_path)
    (layout / "blobs").rename(tmp_path / "moved")
    (layout / "blobs").symlink_to(tmp_path / "moved")

    assert put(imagestore, layout, "--follow-links", "--platform", "linux/amd64") == [("app:1", diff_id(BASE))]
    refused = imagestore("put", layout)
    assert (refused.returncode, "--follow-links" in refused.stderr) == (1, True)


def test_put_for_a_platform_that_is_not_there(imagestore, tmp_path):
    words = "holds no image for linux/s390x, but for linux/amd64, linux/arm64; ask for one"

    assert_refused(imagestore("put", two_platforms(tmp_path), "--platform", "linux/s390x"), words)


def test_put_of_a_layout_selected_by_a_tag(imagestore, tmp_path):
    layout = Layout()
    for tag, data in (("one", BASE), ("two", APP)):
        layout.name(layout.manifest(data), tag)
    layout.write_directory(tmp_path / "layout")

    assert [found for _, found in put(imagestore, tmp_path / "layout")] == [diff_id(BASE), diff_id(APP)]
    refused = imagestore("put", tmp_path / "layout", "--name", "app:2")
    assert_refused(refused, "which of its 2 images app:2 is", "it holds one, two", "--select")
    assert put(imagestore, tmp_path / "layout", "--name", "app:2", "--select", "two") == [("app:2", diff_id(APP))]


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_put_from_standard_input(imagestore, archive, name, compress):
    done = imagestore("put", "--json", name, input=compress(archive.read_bytes()), text=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert [image["name"] for image in json.loads(done.stdout)] == ["app:1"]
    assert names(imagestore.store / "staging") == []


def test_put_without_an_archive_reads_standard_input(imagestore, archive):
    done = imagestore("load", "-q", input=archive.read_bytes(), text=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"app:1\n", b"")
    with archive.open("rb") as file:
        assert [name for name, _ in put(imagestore, stdin=file)] == ["app:1"]


@pytest.mark.parametrize("option", ["-i", "--input"])
def test_put_takes_archives_as_docker_load_does(imagestore, archive, tmp_path, option):
    other = docker_save(tmp_path / "b.tar", {"b:1": [BASE]})

    assert [name for name, _ in put(imagestore, option, archive)] == ["app:1"]
    assert [name for name, _ in put(imagestore, option, archive, other)] == ["app:1", "b:1"]


def test_file_that_is_named_as_skopeo_names_an_archive_is_put(imagestore, archive):
    archive.rename(archive.with_name("docker-archive:app.tar"))

    assert [name for name, _ in put(imagestore, "docker-archive:app.tar", cwd=archive.parent)] == ["app:1"]


def test_put_from_standard_input_that_is_a_file(imagestore, archive):
    with archive.open("rb") as file:
        assert [name for name, _ in put(imagestore, "-", stdin=file)] == ["app:1"]


def test_put_from_a_fifo(imagestore, archive, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    writer = subprocess.Popen(["sh", "-c", 'exec cat "$0" > "$1"', archive, tmp_path / "fifo"])
    # A reader that is held open keeps the writer from ending before the worker reads.
    held = os.open(tmp_path / "fifo", os.O_RDONLY)

    assert [name for name, _ in put(imagestore, tmp_path / "fifo")] == ["app:1"]

    os.close(held)
    assert writer.wait(timeout=TIMEOUT) == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, for <(...)")
def test_put_from_a_shells_process_substitution(imagestore, archive):
    command = ["bash", "-c", '"$@" put --json <(gzip -c "$0")', archive, *imagestore.command]

    done = subprocess.run(command, capture_output=True, env=imagestore.environment, check=True, timeout=TIMEOUT)

    assert [image["name"] for image in json.loads(done.stdout)] == ["app:1"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "/dev/fd/0: is a pipe through which nothing came"),
        (b"?" * 1000, "/dev/fd/0: is no image archive"),
        (gzip.compress(b"?" * 100_000)[:-10], "/dev/fd/0: it cannot be inflated"),
    ],
)
def test_standard_input_that_is_no_archive(imagestore, data, words):
    done = imagestore("put", "-", input=data, text=False)

    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"imagestore: {words}")
    assert names(imagestore.store / "staging") == []


def test_standard_input_that_is_a_terminal_is_not_waited_for(imagestore):
    ours, theirs = pty.openpty()

    done = imagestore("put", "-", stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert_refused(done, "standard input is a terminal")


def test_interrupt_while_an_archive_comes_leaves_nothing(imagestore, archive):
    run = imagestore.start("put", "-", stdin=subprocess.PIPE)
    run.stdin.write(archive.read_bytes()[:5000])
    run.stdin.flush()
    wait_for(lambda: any(imagestore.store.glob("staging/*/archive.tar")))

    os.killpg(run.pid, signal.SIGINT)

    output, errors = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, output, errors) == (130, b"", b"imagestore: interrupted\n")
    assert names(imagestore.store / "staging") == names(imagestore.store / "layers") == []


def wait_for(condition) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # another process' files: there is nothing to wait on


# -- layouts and archives as other tools write them

TOOLS = {
    "skopeo oci:": ["skopeo", "copy", "-q", "docker-archive:app.tar", "oci:layout:example.com/app:1"],
    "skopeo oci-archive:": ["skopeo", "copy", "-q", "docker-archive:app.tar", "oci-archive:layout:example.com/app:1"],
    "skopeo with zstd": [
        *["skopeo", "copy", "-q", "--dest-compress-format", "zstd"],
        *["docker-archive:app.tar", "oci-archive:layout:example.com/app:1"],
    ],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_other_tools_write_is_put(imagestore, tmp_path, tool):
    if shutil.which(TOOLS[tool][0]) is None:
        pytest.skip(f"{TOOLS[tool][0]} is not installed")
    docker_save(tmp_path / "app.tar", {"app:1": [BASE, APP]}, architecture="amd64")
    subprocess.run(TOOLS[tool], cwd=tmp_path, check=True, timeout=TIMEOUT)

    assert put(imagestore, tmp_path / "layout") == [("example.com/app:1", diff_id(BASE))]


@pytest.mark.skipif(None in (shutil.which("skopeo"), shutil.which("umoci")), reason="needs skopeo and umoci")
def test_layout_that_umoci_has_changed_is_put(imagestore, tmp_path):
    docker_save(tmp_path / "app.tar", {"app:1": [BASE]}, architecture="amd64")
    (tmp_path / "more").write_bytes(b"more")
    for line in (
        "skopeo copy -q docker-archive:app.tar oci:layout:one",
        "umoci insert --image layout:one --tag two more /more",
    ):
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)

    assert put(imagestore, tmp_path / "layout", "--name", "a:2", "--select", "two") == [("a:2", diff_id(BASE))]
    document = json.loads(imagestore("get", "--json", "a:2").stdout)
    assert Path(document["layers"][1]["path"], "more").read_bytes() == b"more"


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman")
def test_what_podman_saves_as_an_oci_archive_is_put(imagestore, tmp_path):
    docker_save(tmp_path / "app.tar", {"example.com/app:1": [BASE, APP]}, architecture="amd64")
    root = tempfile.mkdtemp(prefix="podman-", dir="/tmp")  # it takes no long path
    podman = ["podman", "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs"]
    try:
        subprocess.run(
            [*podman, "load", "-qi", "app.tar"], cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT
        )
        save = [*podman, "save", "-q", "--format", "oci-archive", "-o", "saved.tar", "example.com/app:1"]
        subprocess.run(save, cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"podman does not work here: {error.stderr[-200:]!r}")
    finally:
        shutil.rmtree(root, ignore_errors=True)

    assert put(imagestore, tmp_path / "saved.tar") == [("example.com/app:1", diff_id(BASE))]
