"""``imagestore put -``: whatever standard input is, it is read like a pipe."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import threading

import pytest
from support.images import docker_save, long_layer
from support.processes import TIMEOUT, names, session_processes, wait_for

# Nobody but an owner with permissions may open it again; root may, unless he lacks the privilege.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.fixture
def unprivileged(imagestore):
    if os.geteuid() == 0:
        imagestore.command = [*UNPRIVILEGED, *imagestore.command]
    return imagestore


def assert_put(imagestore, stdin, path="-"):
    done = imagestore("put", "--json", path, stdin=stdin)

    assert (done.returncode, done.stderr) == (0, "")
    assert [image["name"] for image in json.loads(done.stdout)] == ["app:1"]
    assert names(imagestore.store / "staging") == []


def write_behind(write, close, data):
    def run():
        view = memoryview(data)
        while view:
            view = view[write(view) :]
        close()

    threading.Thread(target=run).start()


@pytest.mark.parametrize("path", ["-", "/dev/stdin"])
def test_pipe_that_cannot_be_opened_again(unprivileged, archive, path):
    ours, theirs = os.pipe()
    os.fchmod(ours, 0)
    write_behind(lambda data: os.write(theirs, data), lambda: os.close(theirs), archive.read_bytes())

    assert_put(unprivileged, ours, path)

    os.close(ours)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("kind", ["pair", "tcp"])
def test_socket(imagestore, archive, kind, blocking):
    theirs, ours = socket.socketpair() if kind == "pair" else connected()
    with ours, theirs:
        theirs.setblocking(blocking)
        write_behind(ours.send, lambda: ours.shutdown(socket.SHUT_WR), archive.read_bytes())

        assert_put(imagestore, theirs)


def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def test_file_that_cannot_be_opened_again(unprivileged, archive):
    with archive.open("rb") as file:
        archive.chmod(0)

        assert_put(unprivileged, file)


def test_file_that_was_deleted(imagestore, archive):
    with archive.open("rb") as file:
        archive.unlink()

        assert_put(imagestore, file)


def test_file_without_a_name(imagestore, archive):
    file = os.memfd_create("archive")
    os.write(file, archive.read_bytes())
    os.lseek(file, 0, os.SEEK_SET)

    assert_put(imagestore, file)

    os.close(file)


def test_file_that_was_read_in_part_is_read_on(imagestore, archive, tmp_path):
    longer = tmp_path / "longer"
    longer.write_bytes(b"a line for somebody else\n" + archive.read_bytes())
    with longer.open("rb", buffering=0) as file:
        file.read(25)

        assert_put(imagestore, file)


def test_socket_that_breaks_is_told_as_such(imagestore, archive):
    theirs, ours = connected()
    with theirs:
        ours.send(archive.read_bytes()[:5000])
        run = imagestore.start("put", "-", stdin=theirs)
        wait_for(lambda: any(imagestore.store.glob("staging/*/archive.tar")))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()

        output, errors = run.communicate(timeout=TIMEOUT)

    assert (run.returncode, output) == (1, b"")
    assert errors == b"imagestore: standard input: Connection reset by peer\n"
    assert names(imagestore.store / "staging") == []


def test_interrupt_while_nothing_comes_through_a_socket_leaves_nothing(imagestore, archive):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(archive.read_bytes()[:5000])
        run = imagestore.start("put", "-", stdin=theirs)
        wait_for(lambda: any(imagestore.store.glob("staging/*/archive.tar")))

        os.killpg(run.pid, signal.SIGINT)

        output, errors = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, output, errors) == (130, b"", b"imagestore: interrupted\n")
    assert names(imagestore.store / "staging") == []
    wait_for(lambda: session_processes(run.pid) == [])


def test_much_through_a_socket(imagestore, tmp_path):
    archive = docker_save(tmp_path / "app.tar", {"app:1": [long_layer(20_000)]})
    theirs, ours = socket.socketpair()
    with ours, theirs:
        write_behind(ours.send, lambda: ours.shutdown(socket.SHUT_WR), archive.read_bytes())

        assert_put(imagestore, theirs)


def test_socket_that_is_no_archive_is_shown_as_users_know_it(imagestore):
    theirs, ours = socket.socketpair()
    with theirs:
        ours.send(b"?" * 1000)
        ours.close()

        done = imagestore("put", "-", stdin=theirs)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("imagestore: /dev/fd/0: is no image archive")


def test_other_descriptor(imagestore, archive):
    theirs, ours = socket.socketpair()
    with ours, theirs:
        write_behind(ours.send, lambda: ours.shutdown(socket.SHUT_WR), archive.read_bytes())

        done = imagestore("put", f"/dev/fd/{theirs.fileno()}", pass_fds=[theirs.fileno()])

    assert done.returncode == 0


def test_descriptor_that_is_not_open_is_one_sentence(imagestore):
    done = imagestore("put", "/dev/fd/77")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "imagestore: /dev/fd/77 is closed; an archive should come through it\n"


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0"])
def test_unpack_of_standard_input_that_is_a_file(imagestore, tmp_path, path):
    layer_file = tmp_path / "layer.tar"
    layer_file.write_bytes(long_layer(3))

    with layer_file.open("rb") as file:
        done = imagestore("unpack", path, tmp_path / "rootfs", stdin=file)

    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path / "rootfs") == ["f"]


@pytest.mark.root
def test_root_gives_a_pipe_to_another_user(imagestore, archive):
    ours, theirs = os.pipe()
    os.fchown(ours, 65534, 65534)
    write_behind(lambda data: os.write(theirs, data), lambda: os.close(theirs), archive.read_bytes())

    done = subprocess.run(
        [*UNPRIVILEGED, *imagestore.command, "put", "-"],
        stdin=ours,
        capture_output=True,
        env=imagestore.environment,
        timeout=TIMEOUT,
        check=False,
    )

    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")
