"""Images that lay traps where their users are looked up. None may lead out, hang, or cost much."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from pykka_imagestore.core.user import User
from pykka_imagestore.errors import ImageUserError
from pykka_imagestore.rootfs.user import MAX_FILE_BYTES, resolve_user

HOSTS = "app:x:666:666::/outside:\n"  # what must never be read


@pytest.fixture
def tree(tmp_path):
    """Return a tree without accounts, beside accounts that are not its own."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(HOSTS)
    (tmp_path / "etc" / "group").write_text("app:x:666:\n")
    (tmp_path / "accounts").write_text(HOSTS)
    (tmp_path / "root" / "etc").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def _ends_soon():
    """Fail what hangs: nothing here takes longer than a moment."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def resolve(tree, user="app"):
    top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    try:
        return resolve_user(top, user)
    finally:
        assert os.listdir("/proc/self/fd") == before
        os.close(top)


def refusal(tree, user="app"):
    with pytest.raises(ImageUserError) as raised:
        resolve(tree, user)
    text = str(raised.value)
    assert text.startswith(f"nothing can be run as user {user!r} of the image: ")
    return text


def write(tree, passwd, group=""):
    (tree / "etc" / "passwd").write_text(passwd)
    (tree / "etc" / "group").write_text(group)


def test_user_is_found_in_the_tree(tree):
    write(tree, "app:x:7:8::/srv:\n", "www:x:9:app\n")

    assert resolve(tree) == User(7, 8, (8, 9), "/srv", "app")
    assert resolve(tree, "app:www") == User(7, 9, (9,), "/srv", "app")


@pytest.mark.parametrize("missing", [["etc/passwd", "etc/group"], ["etc"]])
def test_tree_without_accounts_has_numbers_only(tree, missing):
    write(tree, "")
    for path in missing:
        (tree / path).rename(tree / f"{os.path.basename(path)}-away")

    assert resolve(tree, "7:8") == User(7, 8, (8,))
    assert resolve(tree, "") == User(0, 0, (0,))
    assert "/etc/passwd has no user 'app'" in refusal(tree)


@pytest.mark.parametrize(
    "target", ["/etc/accounts", "accounts", "../../../../../../etc/accounts", "/link/accounts", "../link/./accounts"]
)
def test_symlinked_accounts_are_found_inside(tree, target):
    (tree / "link").symlink_to("/etc")
    (tree / "etc" / "accounts").write_text("app:x:7:8::/srv:\n")
    (tree / "etc" / "passwd").symlink_to(target)

    assert resolve(tree).uid == 7


@pytest.mark.parametrize(
    "target", ["{}/etc/passwd", "../../accounts", "../../../../../../../{}/etc/passwd", "/etc/group"]
)
def test_symlink_to_accounts_outside_finds_none(tree, target):
    (tree / "etc" / "passwd").symlink_to(target.format(tree.parent))

    assert "has no user 'app'" in refusal(tree)


@pytest.mark.parametrize("target", ["/etc", "{}/etc", "../etc", "/proc/self/root/etc", "/proc/1/root/etc"])
def test_etc_that_leads_out_finds_none(tree, target):
    (tree / "etc").rmdir()
    (tree / "etc").symlink_to(target.format(tree.parent))

    text = refusal(tree)

    assert "has no user 'app'" in text or "cannot be read: more than 40 symlinks" in text


def test_etc_that_is_a_file_finds_none(tree):
    (tree / "etc").rmdir()
    (tree / "etc").write_text(HOSTS)

    assert "has no user 'app'" in refusal(tree)


@pytest.mark.parametrize("path", ["etc/passwd", "etc/group"])
def test_symlinks_that_lead_in_a_circle_are_told(tree, path):
    write(tree, "app:x:7:8::/srv:\n")
    (tree / path).unlink()
    (tree / path).symlink_to(os.path.basename(path))

    assert f"/{path} cannot be read: more than 40 symlinks" in refusal(tree)


def make_directory(path):
    path.mkdir()


def make_endless_device(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def make_disk(path):
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 0))


NO_FILES = [
    (os.mkfifo, "it is a fifo"),
    (make_directory, "it is a directory"),
    pytest.param(make_endless_device, "it is a device", marks=pytest.mark.root),
    pytest.param(make_disk, "it is a device", marks=pytest.mark.root),
]


@pytest.mark.parametrize(("make", "reason"), NO_FILES)
@pytest.mark.parametrize("path", ["etc/passwd", "etc/group"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_told_and_never_opened(tree, make, reason, path, linked):
    write(tree, "app:x:7:8::/srv:\n")
    (tree / path).unlink()
    if linked:
        (tree / path).symlink_to("/trap")
    make(tree / "trap" if linked else tree / path)

    for user in ("app", "7:8", ""):
        assert f"/{path} cannot be read: {reason}" in refusal(tree, user)


def test_large_accounts_are_read_to_their_bound_and_not_beyond(tree):
    line = "app:x:7:8::/srv:\n"
    write(tree, "x\n" * ((MAX_FILE_BYTES - len(line)) // 2) + "\n" + line)
    assert os.stat(tree / "etc" / "passwd").st_size == MAX_FILE_BYTES
    assert resolve(tree).uid == 7

    os.truncate(tree / "etc" / "passwd", MAX_FILE_BYTES + 1)
    assert f"it has more than {MAX_FILE_BYTES} bytes" in refusal(tree)

    os.truncate(tree / "etc" / "passwd", 1 << 40)
    assert f"it has more than {MAX_FILE_BYTES} bytes" in refusal(tree)


def test_first_of_two_lines_counts(tree):
    write(tree, "app:x:7:8::/first:\napp:x:0:0::/second:\n", "www:x:9:\nwww:x:0:\n")

    assert resolve(tree, "app:www") == User(7, 9, (9,), "/first", "app")
