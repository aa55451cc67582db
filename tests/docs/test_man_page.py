"""The manual page is what its generator makes of the parser, and is well-formed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from support.pages import DOCS
from support.processes import TIMEOUT

from pykka_imagestore.cli.arguments import make_parser
from pykka_imagestore.cli.completion import find_verbs

PAGE = DOCS / "imagestore.1"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_page_is_what_the_generator_makes():
    made = run(sys.executable, DOCS / "_ext/man_page.py")

    assert made.stderr == ""
    assert made.stdout == PAGE.read_text(), "run 'make man'"


def test_page_has_every_verb_and_option():
    page = PAGE.read_text().replace("\\-", "-")

    for verb in find_verbs(make_parser()):
        assert f".SS {', '.join(verb.names)}\n" in page
        assert all(option in page for argument in verb.options for option in argument.options)


@pytest.mark.parametrize("command", [["mandoc", "-T", "lint", "-W", "error"], ["groff", "-man", "-ww", "-z"]])
def test_page_is_rendered_without_a_warning(command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")

    done = run(*command, PAGE)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
