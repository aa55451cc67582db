"""Those who make root file systems: each gives a tree that can be written, and takes it away again, with what it kept.

A contestant has a directory of its own, or shares one with others of its kind, and brings the image into it first. It
makes and removes any number at once, and tells of each how long its caller waited. Programs run as many at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ours import TIMEOUT, put_in_new_process
from processes import ProgramFailedError

from pykka_imagestore import LocalStore

IMAGE = "bench"
DAEMON_START = 10  # seconds


@dataclass(frozen=True, slots=True)
class Image:
    """What all make root file systems of.

    Attributes:
        archive: A docker-archive of this one image.
        layout: The same as an OCI layout, of layers in gzip, named ``bench``; None without skopeo.
    """

    archive: Path
    layout: Path | None


class Contestant:
    """One of those who take turns. Close it at the end.

    Attributes:
        tool: The program that has to be installed; None if none has.
        place: Those of one place share a directory, and what they bring into it.
        copies: Whether each container is a copy, of a size that nobody makes 50 of at once.
        at_rest: How many to make one at a time in a round.
    """

    name: ClassVar[str]
    tool: ClassVar[str | None] = None
    place: ClassVar[str]
    copies: ClassVar[bool] = False
    at_rest: ClassVar[int] = 10

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, image: Image) -> None:
        """Bring the image in, as fast as this contestant can: nothing is synced that it does not sync itself."""
        raise NotImplementedError

    def make(self, containers: Sequence[str]) -> list[float]:
        """Make containers, all at once; return how long after the call each was there, in seconds."""
        raise NotImplementedError

    def remove(self, containers: Sequence[str]) -> list[float]:
        """Remove containers, all at once; return how long after the call each caller could go on, in seconds."""
        raise NotImplementedError

    def tree(self, container: str) -> Path:
        """Return where a container's tree is."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait for what goes on in the background."""

    def close(self) -> None:
        """End what runs for this contestant alone."""


class Program(Contestant):
    """A contestant that is a program, started anew for each step."""

    def make(self, containers: Sequence[str]) -> list[float]:
        return at_once(self.make_one, containers)

    def remove(self, containers: Sequence[str]) -> list[float]:
        return at_once(self.remove_one, containers)

    def make_one(self, container: str) -> None:
        raise NotImplementedError

    def remove_one(self, container: str) -> None:
        raise NotImplementedError


class OfContainersStorage(Program):
    """podman or buildah, with a store in the directory.

    Attributes:
        places: The options that name where it keeps something.
    """

    tool: ClassVar[str]
    at_rest = 5
    places: ClassVar[tuple[str, ...]] = ("root", "runroot")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._trees: dict[str, Path] = {}
        self._image = ""
        temporary = directory / "temporary"
        temporary.mkdir(exist_ok=True)
        self._environment = {**os.environ, "TMPDIR": str(temporary)}

    def make_one(self, container: str) -> None:
        self._create(container)
        self._trees[container] = Path(self._run("mount", container))

    def remove_one(self, container: str) -> None:
        self._run("umount", container)
        self._run("rm", container)

    def tree(self, container: str) -> Path:
        return self._trees[container]

    def _create(self, container: str) -> None:
        raise NotImplementedError

    def _run(self, *arguments: object) -> str:
        places = [f"--{place}={self.directory / place}" for place in self.places]
        return said(self.tool, *places, "--storage-driver", "overlay", *arguments, env=self._environment)


class Podman(OfContainersStorage):
    name, tool, place = "podman create, mount (overlay)", "podman", "podman"
    places = (*OfContainersStorage.places, "tmpdir")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # Else locks lie in /dev/shm, for all of podman's stores together, and stay there.
        settings = directory / "containers.conf"
        settings.write_text('[engine]\nlock_type = "file"\nnum_locks = 4096\n')
        self._environment["CONTAINERS_CONF"] = str(settings)

    def load(self, image: Image) -> None:
        self._image = self._run("load", "--quiet", "-i", image.archive).splitlines()[-1].partition(": ")[2]

    def _create(self, container: str) -> None:
        self._run("create", "--pull", "never", "--name", container, self._image, "true")


class Buildah(OfContainersStorage):
    name, tool, place = "buildah from, mount (overlay)", "buildah", "buildah"

    def load(self, image: Image) -> None:
        self._image = self._run("pull", "--quiet", f"docker-archive:{image.archive}").splitlines()[-1]

    def _create(self, container: str) -> None:
        self._run("from", "--pull-never", "--name", container, self._image)


class Ctr(Program):
    """containerd's client, of a daemon that is started for it, and keeps all it has in the directory."""

    name, tool, place = "ctr images mount --rw (overlay)", "ctr", "containerd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._socket = directory / "socket"
        self._image = ""
        log = (directory / "log").open("wb")
        with log:
            try:
                self._daemon = subprocess.Popen(["containerd", "--config", self._settings()], stdout=log, stderr=log)
            except FileNotFoundError:
                raise ProgramFailedError("containerd is not installed") from None
        self._await_answer()

    def load(self, image: Image) -> None:
        self._ctr("images", "import", image.archive)
        self._image = self._ctr("images", "list", "--quiet").splitlines()[-1]

    def make_one(self, container: str) -> None:
        self.tree(container).mkdir()
        self._ctr("images", "mount", "--rw", self._image, self.tree(container))

    def remove_one(self, container: str) -> None:
        self._ctr("images", "unmount", "--rm", self.tree(container))
        self.tree(container).rmdir()

    def tree(self, container: str) -> Path:
        return self.directory / container

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(TIMEOUT)

    def _settings(self) -> Path:
        # Without what serves Kubernetes, which wants a network, and what writes to /opt.
        lines = [
            "version = 2",
            f'root = "{self.directory / "root"}"',
            f'state = "{self.directory / "state"}"',
            f'temp = "{self.directory / "temporary"}"',
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
            "[grpc]",
            f'address = "{self._socket}"',
        ]
        file = self.directory / "config.toml"
        file.write_text("\n".join(lines) + "\n")
        return file

    def _await_answer(self) -> None:
        end = time.monotonic() + DAEMON_START
        while True:
            try:
                self._ctr("version")
                return
            except ProgramFailedError:
                if time.monotonic() > end or self._daemon.poll() is not None:
                    self.close()
                    raise ProgramFailedError("containerd does not answer") from None
                time.sleep(0.05)

    def _ctr(self, *arguments: object) -> str:
        return said("ctr", "--address", self._socket, "--namespace", "bench", *arguments)


class OfOurStore(Program):
    """A program that makes do with the layers of one of our stores; our own code only puts the image."""

    place = "ours"

    def load(self, image: Image) -> None:
        if not (self.directory / "store").exists():
            put_in_new_process(image.archive, self.directory / "store", None)
        with LocalStore.start(self.directory / "store") as store:
            found = store.list().get(timeout=TIMEOUT)[0]
        self.layers = [layer.path for layer in found.layers]


class BareMount(OfOurStore):
    """The least that can be done: nothing is recorded, and no other than the caller knows what there is."""

    name, tool = "mkdir, mount; umount, rm (overlay, bare)", "mount"

    def make_one(self, container: str) -> None:
        directory = self.directory / container
        directory.mkdir()
        for part in ("upper", "work", "tree"):
            (directory / part).mkdir()
        lower = ":".join(map(str, reversed(self.layers)))
        options = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
        said("mount", "-t", "overlay", "overlay", "-o", options, self.tree(container))

    def remove_one(self, container: str) -> None:
        said("umount", self.tree(container))
        said("rm", "-rf", self.directory / container)

    def tree(self, container: str) -> Path:
        return self.directory / container / "tree"


class CopyTree(OfOurStore):
    """Copies a directory that somebody flattened before."""

    name, tool, copies = "cp -a; rm -rf", "cp", True

    def load(self, image: Image) -> None:
        super().load(image)
        if self._flat.exists():
            return
        merged = self.directory / "merged"
        merged.mkdir()
        lower = ":".join(map(str, reversed(self.layers)))
        said("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", merged)
        said("cp", "-a", merged, self._flat)
        said("umount", merged)

    def make_one(self, container: str) -> None:
        said("cp", "-a", "--reflink=auto", self._flat, self.tree(container))

    def remove_one(self, container: str) -> None:
        said("rm", "-rf", self.tree(container))

    def tree(self, container: str) -> Path:
        return self.directory / container

    @property
    def _flat(self) -> Path:
        return self.directory / "flat"


class Umoci(Program):
    name, tool, place, copies = "umoci unpack; rm -rf", "umoci", "umoci", True

    def load(self, image: Image) -> None:
        if image.layout is None:
            raise ProgramFailedError("it needs an OCI layout, and skopeo to make one")
        self._image = f"{image.layout}:{IMAGE}"

    def make_one(self, container: str) -> None:
        said("umoci", "unpack", "--image", self._image, self.directory / container)

    def remove_one(self, container: str) -> None:
        said("rm", "-rf", self.directory / container)

    def tree(self, container: str) -> Path:
        return self.directory / container / "rootfs"


PEERS: tuple[type[Contestant], ...] = (Podman, Buildah, Ctr, BareMount, CopyTree, Umoci)


def at_once(act: Callable[[str], None], containers: Sequence[str]) -> list[float]:
    """Act on all of some containers at the same time; return when each was done, in seconds after the call."""
    begin = time.perf_counter()

    def timed(container: str) -> float:
        act(container)
        return time.perf_counter() - begin

    if len(containers) == 1:
        return [timed(containers[0])]
    with ThreadPoolExecutor(len(containers)) as threads:
        return list(threads.map(timed, containers))


def said(*command: object, env: dict[str, str] | None = None) -> str:
    """Run a program; return what it printed, without the end of the line.

    Raises:
        ProgramFailedError: It failed.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise ProgramFailedError(f"{command[0]}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return done.stdout.strip()


def layout_of(archive: Path, layout: Path) -> Path | None:
    """Make an OCI layout of a docker-archive; return None if there is no skopeo to make it."""
    if shutil.which("skopeo") is None:
        return None
    fast = ("--dest-compress-format", "gzip", "--dest-compress-level", 1)  # umoci takes no plain layers
    said(
        "skopeo",
        "--tmpdir",
        layout.parent,
        "--insecure-policy",
        "copy",
        "--quiet",
        *fast,
        f"docker-archive:{archive}:@0",
        f"oci:{layout}:{IMAGE}",
    )
    return layout
