from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.privileges import ORDINARY_USER, as_ordinary_user, with_umask
from support.trees import describe, names

from pykka_imagestore.jobs.unpack.sandbox import MAX_LINE, Sandbox

ANOTHER = 1000


def say(directory: str | Path, *lines: str) -> None:
    with Sandbox(str(directory)) as sandbox:
        for line in lines:
            sandbox.say(line)


@pytest.fixture
def anothers(tmp_path):
    """Return a sandbox that another user owns, as a task's is, beside a file of this user's."""
    (tmp_path / "crontab").write_text("# mine alone\n")
    (tmp_path / "crontab").chmod(0o600)
    (tmp_path / "sandbox").mkdir()
    os.chown(tmp_path / "sandbox", ANOTHER, ANOTHER)
    yield tmp_path / "sandbox"
    assert (tmp_path / "crontab").read_text() == "# mine alone\n"


def test_lines_are_added_to_what_is_there(tmp_path):
    for line in ("first", "second"):
        say(tmp_path / "made" / "for it", line)

    assert (tmp_path / "made" / "for it" / "stdout").read_text() == "first\nsecond\n"


def test_error_is_written_down_and_goes_on(tmp_path):
    with pytest.raises(ValueError, match="it broke"), Sandbox(str(tmp_path)):
        raise ValueError("it broke")

    assert (tmp_path / "stderr").read_text() == "it broke\n"


def test_error_without_a_text_is_written_by_its_name(tmp_path):
    with pytest.raises(KeyError), Sandbox(str(tmp_path)):
        raise KeyError

    assert (tmp_path / "stderr").read_text() == "KeyError()\n"


def test_no_sandbox_says_nothing_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with Sandbox(None) as sandbox:
        sandbox.say("nothing")

    assert list(tmp_path.iterdir()) == []


# -- what is written


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("größe \udcff", "größe \\udcff"),
        ("a\n* * * * * root id>/owned\n#", "a\\n* * * * * root id>/owned\\n#"),
        ("\x1b]0;title\x07\x9b2J\r\x7f", "\\x1b]0;title\\x07\\x9b2J\\r\\x7f"),
        ("safe\u202egpj.exe\u2028", "safe\\u202egpj.exe\\u2028"),
    ],
)
def test_what_is_said_is_one_line_that_acts_on_nothing(tmp_path, said, written):
    say(tmp_path, said)
    with pytest.raises(ValueError, match="a"), Sandbox(str(tmp_path)):
        raise ValueError(said + "a")

    assert (tmp_path / "stdout").read_bytes() == written.encode() + b"\n"
    assert (tmp_path / "stderr").read_bytes() == written.encode() + b"a\n"


def test_a_long_line_is_cut(tmp_path):
    say(tmp_path, "\x00" * 10_000_000, "next")

    assert (tmp_path / "stdout").read_text() == "\\x00" * MAX_LINE + "…\nnext\n"


def test_workers_that_begin_at_once_say_all_they_have_to(tmp_path):
    os.chown(tmp_path, ANOTHER if os.geteuid() == 0 else -1, -1)
    together = threading.Barrier(8)

    def begin(number: int) -> None:
        together.wait()
        say(tmp_path, f"worker {number}")

    for _ in range(20):
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(begin, range(8)))

        assert sorted((tmp_path / "stdout").read_text().splitlines()) == [f"worker {number}" for number in range(8)]
        (tmp_path / "stdout").unlink()


# -- where it is written


@pytest.mark.root
def test_file_in_another_users_sandbox_is_that_users(anothers):
    say(anothers, "first")
    say(anothers, "second")

    status = (anothers / "stdout").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (ANOTHER, ANOTHER, 0o644)
    assert (anothers / "stdout").read_text() == "first\nsecond\n"


@pytest.mark.root
def test_file_that_the_sandboxs_owner_made_is_written_to(anothers):
    (anothers / "stdout").write_text("his\n")
    os.chown(anothers / "stdout", ANOTHER, ANOTHER)

    say(anothers, "ours")

    assert (anothers / "stdout").read_text() == "his\nours\n"


def plant_symlink(sandbox: Path) -> None:
    (sandbox / "stdout").symlink_to("../crontab")


def plant_dangling_symlink(sandbox: Path) -> None:
    (sandbox / "stdout").symlink_to("../made")


def plant_hard_link(sandbox: Path) -> None:
    os.link(sandbox / "../crontab", sandbox / "stdout")


def plant_file_of_ours(sandbox: Path) -> None:
    (sandbox / "stdout").touch()


def plant_file_of_a_third(sandbox: Path) -> None:
    (sandbox / "stdout").touch()
    os.chown(sandbox / "stdout", ORDINARY_USER, ORDINARY_USER)


def plant_fifo(sandbox: Path) -> None:
    os.mkfifo(sandbox / "stdout")


def plant_directory(sandbox: Path) -> None:
    (sandbox / "stdout").mkdir()


def plant_device(sandbox: Path) -> None:
    os.mknod(sandbox / "stdout", stat.S_IFCHR | 0o666, os.makedev(1, 7))


@pytest.mark.root
@pytest.mark.parametrize(
    "plant",
    [
        plant_symlink,
        plant_dangling_symlink,
        plant_hard_link,
        plant_file_of_ours,
        plant_file_of_a_third,
        plant_fifo,
        plant_directory,
        plant_device,
    ],
)
def test_what_another_user_planted_is_neither_followed_nor_waited_on_nor_fails_the_work(anothers, plant):
    plant(anothers)
    before = describe(anothers.parent)

    say(anothers, "line")

    assert describe(anothers.parent) == before


def test_fifo_that_somebody_reads_gets_nothing(tmp_path):
    os.mkfifo(tmp_path / "stdout")
    reader = os.open(tmp_path / "stdout", os.O_RDONLY | os.O_NONBLOCK)

    say(tmp_path, "line")

    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.root
@pytest.mark.parametrize("path", ["link", "link/below"])
def test_sandbox_behind_another_users_symlink_is_left_alone(tmp_path, path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "link").symlink_to("victim")
    os.chown(tmp_path / "link", ANOTHER, ANOTHER, follow_symlinks=False)

    say(tmp_path / path, "line")

    assert names(tmp_path) == [b"link", b"victim"]


@pytest.mark.parametrize("path", ["file", "file/below", "dangling"])
def test_sandbox_that_cannot_be_made_fails_nothing(tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("dangling")

    with pytest.raises(ValueError, match="the work's own"), Sandbox(str(tmp_path / path)):
        raise ValueError("the work's own")

    assert names(tmp_path) == [b"dangling", b"file"]


@pytest.mark.root
def test_sandbox_in_which_an_ordinary_user_may_not_write_fails_nothing(users_directory):
    (users_directory / "roots").mkdir(mode=0o755)
    os.chown(users_directory / "roots", 0, 0)

    as_ordinary_user(say, str(users_directory / "roots"), "line")
    as_ordinary_user(say, str(users_directory / "roots/below"), "line")

    assert names(users_directory) == [b"roots"]


@pytest.mark.root
def test_ordinary_users_file_in_anothers_sandbox_is_written_to_again(users_directory):
    (users_directory / "shared").mkdir()
    (users_directory / "shared").chmod(0o777)
    os.chown(users_directory / "shared", ANOTHER, ANOTHER)

    for line in ("first", "second"):
        as_ordinary_user(say, str(users_directory / "shared"), line)

    assert (users_directory / "shared/stdout").read_text() == "first\nsecond\n"
    assert (users_directory / "shared/stdout").stat().st_uid == ORDINARY_USER


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_umask_makes_it_neither_open_nor_useless(tmp_path, umask):
    with_umask(umask, say, str(tmp_path / "made/for it"), "line")

    modes = {path: node.mode for path, node in describe(tmp_path / "made").items()}
    directories = 0o755 & ~umask | 0o700
    assert modes == {b"": directories, b"for it": directories, b"for it/stdout": 0o644}


def test_file_system_without_nameless_files_gets_named_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # as it looks to one that has none

    say(tmp_path, "first", "second")

    assert (tmp_path / "stdout").read_text() == "first\nsecond\n"
