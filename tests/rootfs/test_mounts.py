"""The kernel's calls on mounts: their numbers, what they say when they fail, and what they leave open."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from support.processes import Program
from support.rootfs import descriptors_after, require_mounts

from pykka_imagestore.fs.open_directories import opened_directory
from pykka_imagestore.rootfs import mounts
from pykka_imagestore.rootfs.place import mount_entries
from pykka_imagestore.rootfs.system_calls import NUMBERS

HEADERS = Path("/usr/include")
LISTS = {  # of linux-libc-dev: x86-64 has a list of its own, arm64 and riscv64 have the one of all newer processors
    "x86-64": "x86_64-linux-gnu/asm/unistd_64.h",
    "arm64 and riscv64": "asm-generic/unistd.h",
}
OF_OTHERS = {
    **dict.fromkeys(("AT_EMPTY_PATH", "AT_NO_AUTOMOUNT", "AT_STATX_DONT_SYNC", "AT_SYMLINK_NOFOLLOW"), "linux/fcntl.h"),
    **dict.fromkeys(("MNT_DETACH", "UMOUNT_NOFOLLOW"), "sys/mount.h"),
    "STATX_MNT_ID": "linux/stat.h",
}


def definitions(name: str) -> dict[str, int]:
    """Return the numbers that a header defines, or an enumeration in it."""
    found = [path for path in (HEADERS / name, HEADERS / "x86_64-linux-gnu" / name) if path.exists()]
    if not found:
        pytest.skip(f"there is no {HEADERS / name}; linux-libc-dev and libc6-dev have it")
    pattern = r"^(?:#define\s+|\s*)(\w+)\s*=?\s*(0x[0-9a-fA-F]+|[1-9]\d*|0)U?\b"
    return {match[1]: int(match[2], 0) for match in re.finditer(pattern, found[0].read_text(), re.MULTILINE)}


@pytest.mark.parametrize("header", LISTS.values(), ids=LISTS)
def test_calls_have_the_numbers_of_the_kernels_header(header):
    defined = definitions(header)

    assert {name: defined[f"__NR_{name}"] for name in NUMBERS} == NUMBERS


def test_constants_are_those_of_the_kernels_header():
    ours = {
        name: value for name, value in vars(mounts).items() if re.match("(FS|MOVE_|OPEN_|MOUNT_|MS_)[A-Z_]+$", name)
    }
    defined = definitions("linux/mount.h") | {"OPEN_TREE_CLOEXEC": os.O_CLOEXEC}

    assert len(ours) == 16
    assert ours == {name: defined[name] for name in ours}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_constants_of_other_headers_are_theirs(name):
    assert getattr(mounts, name) == definitions(OF_OTHERS[name])[name]


ON_MIPS = """
import errno, os, types
os.uname = lambda: types.SimpleNamespace(machine="mips64")
from pykka_imagestore.rootfs.mounts import FileSystemContext
try:
    FileSystemContext("overlay")
except OSError as error:
    print(error.errno == errno.ENOSYS, error.strerror)
"""


def test_a_processor_that_counts_its_calls_otherwise_is_told_of():
    with Program(ON_MIPS) as program:
        assert program.lines() == ["True fsopen: its number on this processor is not known here"]


@pytest.mark.root
def test_an_error_names_the_call_and_the_parameter_and_has_what_the_kernel_says():
    require_mounts()

    with mounts.FileSystemContext("overlay") as context, pytest.raises(OSError, match="metacopy") as caught:
        context.set_string("metacopy", "maybe")

    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror == (
        "fsconfig: Invalid argument at metacopy; the kernel says: overlay: Bad value for 'metacopy'"
    )


@pytest.mark.root
def test_an_error_has_the_class_of_its_number():
    require_mounts()

    with mounts.FileSystemContext("overlay") as context, pytest.raises(FileNotFoundError):
        context.set_string("lowerdir+", "/nothing/is/here")


def test_a_file_system_that_is_not_known_is_refused():
    with pytest.raises(OSError, match=r"fsopen: (No such device|Operation not permitted)"):
        mounts.FileSystemContext("nonsense")


def test_options_that_the_kernel_would_cut_off_are_refused(tmp_path):
    with pytest.raises(OSError, match="the options take 4096 bytes, and the kernel reads 4095") as caught:
        mounts.mount("none", str(tmp_path), "overlay", 0, "x" * 4096)
    assert caught.value.errno == errno.E2BIG


def test_to_unmount_what_is_not_mounted_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"umount2: (Invalid argument|Operation not permitted)"):
        mounts.unmount(str(tmp_path))


@pytest.mark.root
def test_a_mount_is_gone_with_its_descriptor_and_nothing_stays_open(tmp_path):
    require_mounts()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def mount_and_fail():
        with mounts.FileSystemContext("overlay") as context:
            context.set_string("lowerdir+", str(tmp_path / "a"))
            context.set_string("lowerdir+", str(tmp_path / "b"))
            context.create()
            os.close(context.mount(mounts.MOUNT_ATTR_NODEV))
            with pytest.raises(OSError, match="fsmount"):
                context.mount(1 << 31)

    before, after = descriptors_after(200, mount_and_fail)

    assert before == after
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.root
def test_a_mount_has_the_number_that_it_is_listed_with_until_it_comes_off(tmp_path):
    require_mounts()
    (tmp_path / "place").mkdir()
    mounts.mount("none", str(tmp_path / "place"), "tmpfs", 0, "")
    try:
        listed = next(entry for entry in mount_entries().values() if entry.point == str(tmp_path / "place"))
        with opened_directory(str(tmp_path)) as above, opened_directory(str(tmp_path / "place")) as root:
            around = mounts.mount_number(above)
            assert (mounts.mount_number(root), mounts.mount_number(above, "place")) == (listed.number,) * 2
            assert around == listed.parent
    finally:
        mounts.unmount(str(tmp_path / "place"))

    with opened_directory(str(tmp_path)) as above:
        assert mounts.mount_number(above, "place") == around
        with pytest.raises(FileNotFoundError, match="statx"):
            mounts.mount_number(above, "nothing")


def test_a_symlink_is_in_the_mount_that_it_lies_in(tmp_path):
    (tmp_path / "link").symlink_to("/proc/self")

    with opened_directory(str(tmp_path)) as above:
        assert mounts.mount_number(above, "link") == mounts.mount_number(above)
