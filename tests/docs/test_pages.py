"""What the tutorial and the how-to guides have the reader type is typed here, and gives what they show.

All blocks of a page, in their order, in one directory:

- ``python`` whose first line is a comment with a file's name is saved under it; other ``python`` is run as a program.
- ``console`` is run command by command, and must print what is shown; ``...`` there stands for anything.
- ``sh`` needs a network, or a tool that may be missing. It is not run: bash looks at its syntax.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import tars
from support.images import docker_save, layer
from support.pages import DOCS, Block, blocks
from support.processes import SOURCES, TIMEOUT
from support.rootfs import require_mounts

TUTORIAL = DOCS / "tutorial.md"
GUIDES = sorted((DOCS / "howto").glob("*.md"))
PAGES = [TUTORIAL, *GUIDES, DOCS / "index.md"]
MOUNT = {"run-in-rootfs", "sandboxes"}  # they say that they are followed as root
KINDS = {"python", "console", "sh", "{toctree}"}

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


def file_name(block: Block) -> str | None:
    """Return under which name a block is to be saved."""
    found = re.match(r"# ([\w-]+\.py)\n", block.text)
    return found[1] if block.kind == "python" and found else None


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Return each command of a block, and what it is to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def pattern(output: str) -> str:
    return ".*".join(map(re.escape, output.split("...")))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what runs a command as a reader's shell would, whose PATH has ``python`` and ``imagestore``."""
    programs = {"python": "", "imagestore": "-m pykka_imagestore"}
    for name, options in programs.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    directory = tmp_path / "reader"
    directory.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("IMAGESTORE_DIR", "XDG_DATA_HOME")}
    environment |= {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCES[0]),
        "PYTHONWARNINGS": "error",
        "HOME": str(directory),
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    return run


@pytest.fixture
def directory(tmp_path: Path, run: Run) -> Path:
    """Return the reader's directory, which has what the tutorial made."""
    directory = tmp_path / "reader"
    script = next(block.text for block in blocks(TUTORIAL) if file_name(block) == "make_image.py")
    (directory / "make_image.py").write_text(script)
    assert run("python make_image.py").returncode == 0
    return directory


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_does_what_it_says(page: Path, directory: Path, run: Run) -> None:
    if page.stem in MOUNT:
        require_mounts()
    if page == TUTORIAL:
        (directory / "hello.tar").unlink()
    for block in blocks(page):
        name, where = file_name(block), f"{page.name}, line {block.line}"
        assert block.kind in KINDS, where
        if name is not None:
            (directory / name).write_text(block.text)
        elif block.kind == "python":
            (directory / "block.py").write_text(block.text)
            done = run("python block.py")
            assert done.returncode == 0, f"{where}: {done.stdout}"
        elif block.kind == "console":
            for command, output in commands(block):
                said = run(command).stdout
                assert re.fullmatch(pattern(output), said, re.DOTALL), f"{where}: {command} printed\n{said}"
        elif block.kind == "sh":
            assert subprocess.run(["bash", "-n", "-c", block.text], check=False).returncode == 0, where


def test_the_tutorials_reader_does_not_follow_a_link_out_of_the_layer(directory: Path, run: Run) -> None:
    secret = directory / "secret"
    secret.write_text("secret")
    links = tars.tar(tars.symlink(b"etc/motd", os.fsencode(secret)))
    docker_save(directory / "hello.tar", {"hello:1.0": [layer({"srv/data": b"in a lower layer"}), links]})
    for block in blocks(TUTORIAL):
        if file_name(block) in ("put_image.py", "read_file.py"):
            (directory / str(file_name(block))).write_text(block.text)
    assert run("python put_image.py").returncode == 0

    said = run(f"python read_file.py etc/motd; python read_file.py {secret}; python read_file.py ../../../../secret")

    assert said.stdout.count("FileNotFoundError: ") == 3
    assert run("python read_file.py srv/data").stdout == "in a lower layer"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_program_of_a_page_is_run_there(page: Path) -> None:
    all_blocks = list(blocks(page))

    for block in all_blocks:
        name = file_name(block)
        others = [other.text for other in all_blocks if other is not block]
        assert name is None or any(name in text for text in others), name
