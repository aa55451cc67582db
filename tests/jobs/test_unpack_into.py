"""Unpacking into a directory that somebody named, where other users may be at work."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from support import seams, tars
from support.attributes import NOBODYS, acl
from support.layers import blob_of, request_into
from support.privileges import ORDINARY_USER, as_ordinary_user, with_umask
from support.processes import Program
from support.trees import describe, names

from pykka_imagestore.errors import InvalidInputError, LayerError, NotRemovedError, StateError
from pykka_imagestore.jobs.unpack import extractor
from pykka_imagestore.jobs.unpack.target import Target
from pykka_imagestore.jobs.unpack_into import unpack_into

PLAIN = tars.tar(tars.file(b"etc/passwd", b"x"))
HOSTILE = tars.tar(tars.file(b"etc/passwd", b"x"), tars.file(b"../outside", b"x"))
# user::rwx, user 1000:rwx, group::---, mask::rwx, other::---
ACL = acl((1, 7, NOBODYS), (2, 7, 1000), (4, 0, NOBODYS), (16, 7, NOBODYS), (32, 0, NOBODYS))
LETS_USER_IN = tars.pax({b"SCHILY.xattr.system.posix_acl_access": ACL})


def unpack(layer: bytes, directory: str | Path, beside: str | Path) -> None:
    """Unpack as the command does."""
    stored = blob_of(layer, beside)
    with Target(str(directory)) as target:
        try:
            target.finish(unpack_into(request_into(target, stored)).root_mode)
        except BaseException:
            target.undo()
            raise


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def layers(tmp_path):
    """Return a directory for layer files."""
    (tmp_path / "layers").mkdir()
    return tmp_path / "layers"


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "rootfs"


MANIFEST_JSON = b'[{"Config": "c.json", "RepoTags": null, "Layers": ["l.tar"]}]'
JIBS = b'[{"config": "c.json", "layers": []}]'


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"manifest.json": MANIFEST_JSON}, "manifest.json"),
        ({"manifest.json": JIBS}, "manifest.json"),
        ({"oci-layout": b"{}", "index.json": b"{}"}, "oci-layout"),
    ],
)
def test_whole_image_archive_is_no_layer(layers, directory, files, found):
    archive = tars.tar(*(tars.file(name.encode(), body) for name, body in files.items()))

    with pytest.raises(InvalidInputError, match=f"whole image archive: it has {found}"):
        unpack(archive, directory, layers)

    assert not directory.exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"1", b"null", b'{"name": "an app", "icons": []}', b'[{"layers": 1}]', b"[[1]]", b"\xff"],
)
def test_manifest_of_something_else_is_a_file_of_a_layer(layers, directory, body):
    unpack(tars.tar(tars.file(b"manifest.json", body), tars.file(b"index.json", b"{}")), directory, layers)

    assert (directory / "manifest.json").read_bytes() == body


def test_symlink_named_as_a_manifest_is_not_followed(layers, directory):
    (layers / "manifest.json").write_bytes(MANIFEST_JSON)

    unpack(tars.tar(tars.symlink(b"manifest.json", os.fsencode(layers / "manifest.json"))), directory, layers)

    assert (directory / "manifest.json").is_symlink()


def test_nothing_is_left_of_the_bookkeeping_of_aufs(layers, directory):
    aufs = tars.file(b".wh..wh.plnk/7.1", b"x") + tars.hard_link(b"a", b".wh..wh.plnk/7.1")

    unpack(tars.tar(aufs), directory, layers)

    assert names(directory) == [b"a"]
    assert (directory / "a").stat().st_nlink == 1
    with pytest.raises(LayerError):
        unpack(tars.tar(aufs, tars.file(b"../outside")), directory.with_name("refused"), layers)
    assert not directory.with_name("refused").exists()


# -- who may enter


@pytest.mark.parametrize(
    ("before", "root", "after"),
    [
        (0o700, None, 0o700),
        (0o700, 0o755, 0o700),
        (0o750, 0o777, 0o750),
        (0o755, None, 0o755),
        (0o755, 0o711, 0o711),
        (0o1777, 0o1777, 0o1777),
        (0o2775, 0o755, 0o755),
        (None, None, 0o755),
        (None, 0o700, 0o700),
        (None, 0o1777, 0o1777),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_directory_lets_in_nobody_whom_it_kept_out_before(layers, directory, before, root, after, first):
    if before is not None:
        directory.mkdir()
        directory.chmod(before)
    roots = [] if root is None else [tars.directory(b"./", mode=root, mtime=7)]
    files = [tars.file(b"su", b"x", mode=0o4755)]

    unpack(tars.tar(*(roots + files if first else files + roots)), directory, layers)

    assert mode_of(directory) == after
    assert mode_of(directory / "su") == 0o4755
    assert root is None or directory.stat().st_mtime == 7


@pytest.mark.root
@pytest.mark.parametrize("existed", [True, False])
def test_nobody_else_may_enter_before_all_is_there(layers, directory, monkeypatch, existed):
    if existed:
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
    root = tars.directory(b"./", mode=0o777, uid=1000, gid=1000)
    modes = []
    real = extractor.Extractor.extract

    def extract(self, entry, stream):
        real(self, entry, stream)
        modes.append((mode_of(directory), directory.stat().st_uid, os.listxattr(directory)))

    monkeypatch.setattr(seams.EXTRACT, extract)

    unpack(tars.tar(LETS_USER_IN, root, tars.file(b"su", b"x", mode=0o4755)), directory, layers)

    assert modes == [(0o700, 0, [])] * 2
    assert mode_of(directory) == 0o777
    assert directory.stat().st_uid == (0 if existed else 1000)
    assert os.listxattr(directory) == ([] if existed else ["system.posix_acl_access"])


@pytest.mark.root
def test_set_user_id_program_of_a_layer_is_nobody_elses_in_a_private_directory(users_directory, layers):
    users_directory.chmod(0o755)
    private = users_directory / "private"
    private.mkdir(mode=0o700)
    program = Path("/usr/bin/id").read_bytes()

    unpack(tars.tar(tars.directory(b"./"), tars.file(b"su", program, mode=0o4755)), private, layers)

    with pytest.raises(PermissionError):
        as_ordinary_user(subprocess.run, [str(private / "su")])


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_new_directory_has_the_mode_that_the_umask_allows_if_the_layer_says_nothing(layers, directory, umask):
    with_umask(umask, unpack, PLAIN, str(directory), str(layers))

    assert mode_of(directory) == 0o755 & ~umask


def test_user_whose_umask_takes_everything_unpacks_as_others_do(users_directory):
    assert as_ordinary_user(unpack_without_rights, str(users_directory)) == (0o700, b"x")


def unpack_without_rights(directory: str) -> tuple[int, bytes]:
    os.umask(0o777)
    Path(directory, "layer.tar").touch()
    Path(directory, "layer.tar").chmod(0o600)
    parts = [tars.directory(b"./", mode=0o700), tars.directory(b"a", mode=0o700), tars.file(b"a/b/c", b"x", mode=0o600)]
    unpack(tars.tar(*parts), Path(directory, "rootfs"), directory)
    return mode_of(Path(directory, "rootfs")), Path(directory, "rootfs/a/b/c").read_bytes()


# -- a refusal


@pytest.mark.parametrize("mode", [0o700, 0o1777, 0o2750])
def test_refusal_leaves_the_directory_as_it_was(layers, directory, mode):
    directory.mkdir()
    directory.chmod(mode)
    os.setxattr(directory, "system.posix_acl_default", ACL)
    if mode == 0o700:
        os.setxattr(directory, "system.posix_acl_access", ACL)
    os.utime(directory, ns=(1, 2))
    before = describe(directory)

    with pytest.raises(LayerError, match="outside"):
        unpack(tars.tar(tars.directory(b".", mode=0o755, uid=7, gid=7, mtime=9), HOSTILE), directory, layers)

    assert describe(directory) == before


def test_access_control_lists_are_there_again_afterwards_and_no_file_has_them(layers, directory):
    directory.mkdir()
    for key in ("system.posix_acl_default", "system.posix_acl_access"):
        os.setxattr(directory, key, ACL)

    unpack(tars.tar(tars.directory(b"bin"), tars.file(b"bin/su", b"x")), directory, layers)

    assert (
        os.getxattr(directory, "system.posix_acl_default") == os.getxattr(directory, "system.posix_acl_access") == ACL
    )
    assert os.listxattr(directory / "bin") == os.listxattr(directory / "bin/su") == []


def test_directory_that_holds_something_is_not_touched(directory):
    directory.mkdir()
    directory.chmod(0o751)
    (directory / "mine").touch()
    before = describe(directory), directory.stat().st_ctime_ns

    with pytest.raises(InvalidInputError, match="not empty"):
        Target(str(directory))

    assert (describe(directory), directory.stat().st_ctime_ns) == before


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_directory_of_another_user_is_refused_and_not_touched(directory, mode):
    directory.mkdir()
    directory.chmod(mode)
    os.chown(directory, 1000, 1000)
    before = directory.stat().st_ctime_ns

    with pytest.raises(
        InvalidInputError, match=r"rootfs belongs to user 1000, .* this is user 0\. Nothing was changed; "
    ):
        Target(str(directory))

    assert directory.stat().st_ctime_ns == before


def test_what_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError, match="file"):
        Target(str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError, match="file/below"):
        Target(str(tmp_path / "file" / "below"))
    with pytest.raises(FileNotFoundError, match="missing/below"):
        Target(str(tmp_path / "missing" / "below"))


# -- what others do meanwhile


@pytest.mark.root
@pytest.mark.parametrize("path", ["link", "link/", "link/below"])
def test_symlink_of_another_user_is_not_followed(tmp_path, path):
    (tmp_path / "victim" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("victim")
    os.chown(tmp_path / "link", 1000, 1000, follow_symlinks=False)

    with pytest.raises(
        InvalidInputError, match=r"'link' on the way is a symlink of user 1000, who could lead it anywhere"
    ):
        Target(str(tmp_path / path))

    assert names(tmp_path) == [b"link", b"victim", b"victim/below"]


@pytest.mark.parametrize("target", ["real", "../{name}/real/../real", "{path}/other/../real", "second"])
def test_symlink_of_ones_own_is_followed(tmp_path, layers, target):
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "second").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(target.format(path=tmp_path, name=tmp_path.name))

    unpack(PLAIN, f"{tmp_path}//./link/./new/", layers)

    assert (tmp_path / "real/new/etc/passwd").read_bytes() == b"x"


def test_symlinks_that_go_in_a_circle_are_refused(tmp_path):
    (tmp_path / "link").symlink_to("link")

    with pytest.raises(OSError, match="Too many levels"):
        Target(str(tmp_path / "link"))


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("other", ["directory", "symlink", "file", "nothing"])
def test_what_is_put_in_its_place_is_not_written_to_and_not_removed(tmp_path, layers, directory, existed, other):
    if existed:
        directory.mkdir(mode=0o750)
    moved, victim = tmp_path / "moved", tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").touch()
    stored = blob_of(PLAIN, layers)
    with Target(str(directory)) as target:
        request = request_into(target, stored)
        directory.rename(moved)
        if other == "directory":
            (directory / "secret").mkdir(parents=True)
        elif other == "symlink":
            directory.symlink_to("victim")
        elif other == "file":
            directory.touch()
        before = describe(tmp_path)

        with pytest.raises((StateError, OSError)):
            unpack_into(request)
        if existed or other == "nothing":
            target.undo()
        else:
            with pytest.raises(NotRemovedError, match=r"rootfs could not be removed: it was moved"):
                target.undo()

    after = describe(tmp_path)
    assert {path: node for path, node in after.items() if path and not path.startswith(b"moved")} == {
        path: node for path, node in before.items() if path and not path.startswith(b"moved")
    }
    assert mode_of(moved) == (0o750 if existed else 0o700)


def test_what_a_killed_worker_left_is_taken_back_where_it_was_moved_to(tmp_path, layers, directory):
    directory.mkdir(mode=0o750)
    stored = blob_of(PLAIN, layers)
    with Target(str(directory)) as target:
        unpack_into(request_into(target, stored))
        directory.rename(tmp_path / "moved")
        (directory / "of another").mkdir(parents=True)

        target.undo()
        target.undo()

    assert names(tmp_path / "moved") == []
    assert mode_of(tmp_path / "moved") == 0o750
    assert names(directory) == [b"of another"]


SWAPS = """
import os, sys
directory, victim = sys.argv[1:]
os.chdir(directory)
os.setgroups([]), os.setresgid(*[{user}] * 3), os.setresuid(*[{user}] * 3)
print("begun", flush=True)
while True:
    for change in (
        lambda: os.rename("rootfs", "moved"),
        lambda: os.symlink(victim, "rootfs"),
        lambda: os.unlink("rootfs"),
        lambda: os.mkfifo("rootfs"),
        lambda: os.unlink("rootfs"),
        lambda: os.mkdir("rootfs"),
        lambda: os.rmdir("rootfs"),
        lambda: os.rename("moved", "rootfs"),
        lambda: os.rmdir("moved"),
    ):
        try:
            change()
        except OSError:
            pass
"""


@pytest.mark.root
def test_directory_that_another_user_swaps_all_the_time_leads_nowhere(users_directory, tmp_path, layers):
    victim = tmp_path / "victim"
    (victim / "etc").mkdir(parents=True)
    (victim / "etc/passwd").write_bytes(b"root's")
    before = describe(victim)
    outcomes = set()

    with Program(SWAPS.format(user=ORDINARY_USER), users_directory, victim) as attacker:
        assert attacker.line() == "begun"
        for number in range(300):
            try:
                unpack(HOSTILE if number % 2 else PLAIN, users_directory / "rootfs", layers)
                outcomes.add("unpacked")
            except (StateError, InvalidInputError, LayerError, OSError) as error:
                outcomes.add(type(error).__name__)
        attacker.process.send_signal(signal.SIGKILL)

    assert describe(victim) == before
    assert "InvalidInputError" in outcomes
