"""What this machine can do for root file systems: tried out, since neither a version nor a setting tells.

A trial does the thing itself, in a directory on the store's file system, and leaves nothing: a mount is attached
nowhere, and gone with its descriptor. What does not work is told with what stands in its way, and who can change that.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pykka_imagestore.fs.open_directories import pinned_directory
from pykka_imagestore.rootfs.namespace import Namespace, NamespaceError
from pykka_imagestore.rootfs.namespace_refusal import Obstacle
from pykka_imagestore.rootfs.namespace_wire import pack_trial, parse_error
from pykka_imagestore.rootfs.overlay_trial import Trial, try_overlay
from pykka_imagestore.rootfs.overlay_ways import NO_UUID, PINNED, VOLATILE, by_descriptors, by_options, by_paths
from pykka_imagestore.rootfs.place import mount_of
from pykka_imagestore.rootfs.quota import quota_refusal

FICLONE = 0x40049409  # linux/fs.h
LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
_LOOP_CONTROL = "/dev/loop-control"

_Try = Callable[[Trial], None]


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a machine can do, or not.

    Attributes:
        name: What.
        tried: How that was found.
        obstacle: What stands in its way, and who can change that; None if it works.
    """

    name: str
    tried: str
    obstacle: Obstacle | None = None

    @property
    def works(self) -> bool:
        """Whether the machine can do it."""
        return self.obstacle is None


def find_abilities(directory: str, namespace: Namespace) -> tuple[Ability, ...]:
    """Return what this process can do for root file systems, on the file system of a directory.

    Takes some milliseconds, and some hundred if the namespace's process has to be started.

    Args:
        directory: Empty, and this user's own; it is empty afterwards.
        namespace: Where an ordinary user mounts.
    """
    return (*_of_overlays(directory, namespace), *_of_files(directory), _quotas(directory), _loop_devices())


# -- overlays


def _of_overlays(directory: str, namespace: Namespace) -> Iterator[Ability]:
    place = f"{directory}/trial"

    def try_there(trial: Trial) -> None:
        answer, *_ = namespace.ask({"do": "try", "trial": pack_trial(trial)})
        if "error" in answer:
            raise parse_error(answer["error"])

    here = _overlay("overlays", "mounted one of two directories", Trial(place, writes=False), try_overlay)
    there = _overlay(
        "overlays in a user namespace",
        "started a process that made a user and a mount namespace, and mounted an overlay there",
        Trial(place, writes=False),
        try_there,
    )
    yield from (here, there)
    attempt = try_overlay if here.works or not there.works else try_there
    for name, trial in _details(place):
        yield _overlay(f"overlays: {name}", "mounted one", trial, attempt)
    yield _upper(directory, Trial(place, options=PINNED), attempt, works_unwritten=here.works or there.works)


def _details(place: str) -> Iterator[tuple[str, Trial]]:
    yield "layers told by descriptor", Trial(place, by_descriptors.__name__, writes=False)
    yield "layers told one by one, by path", Trial(place, by_paths.__name__, writes=False)
    yield "layers told in a page of options", Trial(place, by_options.__name__, writes=False)
    for option in (VOLATILE, NO_UUID):
        yield f"the option {option}", Trial(place, options=(option,))


def _overlay(name: str, tried: str, trial: Trial, attempt: _Try) -> Ability:
    try:
        attempt(trial)
    except NamespaceError as error:
        return Ability(name, tried, error.obstacle)
    except OSError as error:
        return Ability(name, tried, _why_no_mount(error))
    return Ability(name, tried)


def _why_no_mount(error: OSError) -> Obstacle:
    reason = error.strerror or str(error)
    if error.errno == errno.EPERM:
        remedy = "Root can, and a process with CAP_SYS_ADMIN, unless a filter of system calls forbids it"
        return Obstacle(f"this process may not mount ({reason})", remedy)
    if error.errno == errno.ENODEV:
        remedy = "Root can load it with modprobe overlay, if the kernel was built with it"
        return Obstacle("the kernel has no file system overlay", remedy)
    return Obstacle(f"the kernel refuses ({reason})", "Another kernel may take it; what else there is, is used instead")


def _upper(directory: str, trial: Trial, attempt: _Try, *, works_unwritten: bool) -> Ability:
    """Tell whether what is written to an overlay can lie on the store's file system.

    Args:
        works_unwritten: Whether an overlay that is not written to can be mounted.
    """
    kind, point = _file_system(directory)
    found = _overlay("overlays: written to", f"mounted one that writes to the {kind} at {point}", trial, attempt)
    if found.obstacle is None or not works_unwritten:
        return found
    reason = f"an overlay cannot keep what is written to it on the {kind} that is mounted at {point}"
    remedy = "Move the store to a file system such as ext4, XFS, btrfs or tmpfs, or take the backend 'copy'"
    return Ability(found.name, found.tried, Obstacle(f"{reason} ({found.obstacle.reason})", remedy))


# -- files


def _of_files(directory: str) -> Iterator[Ability]:
    kind, point = _file_system(directory)
    where = f"the {kind} that is mounted at {point}"
    source, target = (f"{directory}/{name}" for name in ("trial", "copy"))
    for name, tried, act, remedy in (
        ("reflinks", "had a file share the blocks of another", _reflink, "Move the store to XFS or btrfs"),
        ("hard links", "gave a file a second name", os.link, "Move the store to a file system that has them"),
    ):
        try:
            with open(source, "xb") as file:
                file.write(b"\0" * 4096)
            act(source, target)
        except OSError as error:
            yield Ability(name, tried, Obstacle(f"{where} has none ({error.strerror})", remedy))
        else:
            yield Ability(name, tried)
        finally:
            for path in (source, target):
                if os.path.lexists(path):
                    os.unlink(path)


def _reflink(source: str, target: str) -> None:
    with open(source, "rb") as given, open(target, "xb") as made:
        fcntl.ioctl(made, FICLONE, given.fileno())


def _quotas(directory: str) -> Ability:
    refusal = quota_refusal(directory)
    obstacle = None if refusal is None else Obstacle(refusal, "")
    return Ability("bounds on what is written", "asked the file system for project quotas", obstacle)


def _loop_devices() -> Ability:
    tried = f"asked {_LOOP_CONTROL} for one"
    try:
        with open(_LOOP_CONTROL, "rb") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        os.close(os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = f"none is free, or this process may not use it ({error.strerror}: {error.filename or _LOOP_CONTROL})"
        return Ability("a loop device that is free", tried, Obstacle(reason, "Root can use them, and load the module"))
    return Ability("a loop device that is free", tried)


def _file_system(directory: str) -> tuple[str, str]:
    """Return the type of a directory's file system, and where that is mounted."""
    with pinned_directory(directory) as pin:
        found = mount_of(pin)
    return ("file system", "an unknown place") if found is None else (found.kind, found.point)
