from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat

import pytest
from support.privileges import as_ordinary_user

from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.errors import ArchiveChangedError, ArchiveError, LayerError
from pykka_imagestore.jobs.archive.opening import open_for_reading, require_same, unchanged


class RefusedError(Exception):
    pass


@pytest.fixture
def file(tmp_path):
    """Return a file's path, and it open."""
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    descriptor = os.open(path, os.O_RDONLY)
    yield path, descriptor
    os.close(descriptor)


def identity(descriptor):
    return FileIdentity.of(os.fstat(descriptor))


def test_file_is_opened_through_links(tmp_path, file):
    path, _ = file
    (tmp_path / "link").symlink_to(path)

    descriptor = open_for_reading(str(tmp_path / "link"), RefusedError, stat.S_IFREG)

    assert os.read(descriptor, 10) == b"hello"
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "device"])
def test_what_is_of_another_kind_is_refused_by_its_name(tmp_path, monkeypatch, kind):
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(kind)

    with pytest.raises(RefusedError, match=f"^a {kind}$"):
        open_for_reading(str(path), RefusedError, stat.S_IFREG)


@pytest.mark.root
def test_a_device_is_not_even_opened(tmp_path):
    os.mknod(tmp_path / "watchdog", 0o20600, os.makedev(10, 130))  # opening it starts it

    with pytest.raises(RefusedError, match="a device"):
        open_for_reading(str(tmp_path / "watchdog"), RefusedError, stat.S_IFREG)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    os.close(open_for_reading(str(tmp_path / "pipe"), RefusedError, stat.S_IFIFO))


def test_a_file_without_leave_to_read_is_told_by_its_path(users_directory):
    path = users_directory / "file"
    path.write_bytes(b"")
    path.chmod(0)

    with pytest.raises(PermissionError) as caught:
        as_ordinary_user(open_for_reading, str(path), RefusedError, stat.S_IFREG)

    assert caught.value.filename == str(path)


def read_as_file(path):
    descriptor = open_for_reading(path, RefusedError, stat.S_IFREG)
    return os.read(descriptor, 10)


def test_a_process_whose_proc_is_hidden_from_it_reads_the_file_all_the_same(users_directory):
    path = users_directory / "file"
    path.write_bytes(b"hello")
    path.chmod(0o644)

    # A process that changed its user without another program is shown nothing of itself.
    assert as_ordinary_user(read_as_file, str(path)) == b"hello"


def test_a_file_on_which_somebody_holds_a_lease_is_not_waited_for(file):
    path, _ = file
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # what asks the holder to let go
    holder = os.open(path.with_name("leased"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)

        with pytest.raises(BlockingIOError) as caught:
            open_for_reading(str(path.with_name("leased")), RefusedError, stat.S_IFREG)

        assert caught.value.filename == str(path.with_name("leased"))
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_without_proc_the_path_is_opened_once_more_and_must_lead_to_the_same(file, monkeypatch, is_replaced):
    path, _ = file
    real_open = os.open

    def open_without_proc(name, *arguments):
        if str(name).startswith("/proc"):
            if is_replaced:
                path.rename(path.with_name("aside"))
                path.write_bytes(b"other")
            raise FileNotFoundError(errno.ENOENT, "", name)
        return real_open(name, *arguments)

    monkeypatch.setattr(os, "open", open_without_proc)
    if is_replaced:
        with pytest.raises(FileNotFoundError, match="file"):
            read_as_file(str(path))
    else:
        assert read_as_file(str(path)) == b"hello"


def test_a_path_that_leads_nowhere_is_told(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        open_for_reading(str(tmp_path / "gone"), RefusedError, stat.S_IFREG)

    assert caught.value.filename == str(tmp_path / "gone")


def test_the_same_file_is_the_same_whatever_its_mode_and_links_become(file):
    path, descriptor = file
    before = identity(descriptor)

    path.chmod(0o600)
    os.link(path, path.with_name("other"))
    path.unlink()

    require_same("image.tar", descriptor, before)
    require_same("image.tar", descriptor, None)


@pytest.mark.parametrize("change", ["grown", "cut", "written", "touched"])
def test_a_file_that_was_written_to_is_told(file, change):
    path, descriptor = file
    os.utime(path, (1, 1))
    before = identity(descriptor)

    {
        "grown": lambda: os.truncate(path, 6),
        "cut": lambda: os.truncate(path, 4),
        "written": lambda: path.write_bytes(b"HELLO"),
        "touched": lambda: os.utime(path),
    }[change]()

    with pytest.raises(ArchiveChangedError, match=r"image.tar: it changed while it was read: it was inode .* and is "):
        require_same("image.tar", descriptor, before)


def test_a_writer_who_sets_the_time_back_is_told_by_the_ctime_alone(file):
    path, descriptor = file
    before = identity(descriptor)

    path.write_bytes(b"HELLO")
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))

    require_same("image.tar", descriptor, before)
    with pytest.raises(ArchiveChangedError):
        require_same("image.tar", descriptor, before, with_ctime=True)


def test_another_file_with_the_same_bytes_is_another(tmp_path, file):
    path, descriptor = file
    (tmp_path / "copy").write_bytes(path.read_bytes())
    copy = os.open(tmp_path / "copy", os.O_RDONLY)

    with pytest.raises(ArchiveChangedError, match=r"its layer changed"):
        require_same("image.tar", copy, identity(descriptor), what="its layer")
    os.close(copy)


def test_what_no_digest_tells_must_be_unchanged_in_the_end(file):
    path, descriptor = file

    with pytest.raises(ArchiveChangedError), unchanged("image.tar", descriptor, identity(descriptor)):
        path.write_bytes(b"HELLO!")


def test_what_a_digest_tells_may_change_once_it_was_read(file):
    path, descriptor = file

    with unchanged("image.tar", descriptor, identity(descriptor), is_verified=True):
        path.write_bytes(b"HELLO!")


def test_bytes_that_are_refused_since_they_changed_are_told_as_changed(file):
    path, descriptor = file
    refusal = LayerError("image.tar", "layer.tar", 0, b"f", "is cut off")

    def read():
        with unchanged("image.tar", descriptor, identity(descriptor), is_verified=True):
            path.write_bytes(b"HELLO!")
            raise refusal

    with pytest.raises(ArchiveChangedError) as caught:
        read()
    assert caught.value.__context__ is refusal


def test_bytes_that_are_refused_and_did_not_change_are_told_as_they_are(file):
    _, descriptor = file

    with (
        pytest.raises(ArchiveError, match="is bad"),
        unchanged("image.tar", descriptor, identity(descriptor), is_verified=True),
    ):
        raise ArchiveError("image.tar", "is bad")
