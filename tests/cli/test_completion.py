"""The completion scripts: shells take them, and complete with them."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.cli.arguments import make_parser
from pykka_imagestore.cli.completion import find_verbs, make_script
from pykka_imagestore.cli.verb_arguments import SHELLS


def require(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def run(shell: str, program: str, environment: dict[str, str]) -> list[str]:
    bare = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *bare, "-c", program], capture_output=True, text=True, env=environment, timeout=TIMEOUT, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def complete_in_bash(imagestore, line: str) -> list[str]:
    command = " ".join(map(shlex.quote, imagestore.command))
    script = make_script(make_parser(), "bash")
    program = f"""{script}
compopt() {{ echo "$2"; }}
imagestore() {{ {command} "$@"; }}
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
_imagestore
[[ ${{#COMPREPLY[@]}} == 0 ]] || printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return run("bash", program, imagestore.environment)


def complete_in_fish(imagestore, line: str) -> list[str]:
    command = " ".join(map(shlex.quote, imagestore.command))
    script = make_script(make_parser(), "fish")
    program = f"{script}\nfunction imagestore; {command} $argv; end\ncomplete -C {shlex.quote(line)}\n"
    return [found.partition("\t")[0] for found in run("fish", program, imagestore.environment)]


@pytest.mark.parametrize("shell", SHELLS)
def test_shell_takes_the_script(imagestore, tmp_path, shell):
    require(shell)
    script = tmp_path / "script"
    done = imagestore("completion", shell)
    script.write_text(done.stdout)

    checked = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=TIMEOUT, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_script_has_every_verb_and_every_long_option(shell):
    script = make_script(make_parser(), shell)

    for verb in find_verbs(make_parser()):
        assert all(name in script for name in verb.names)
        options = {option for argument in verb.options for option in argument.options if option.startswith("--")}
        assert all((f"-l {option[2:]}" if shell == "fish" else option) in script for option in options)


CASES = [
    ("imagestore pru", ["prune"]),
    ("imagestore l", ["load", "list", "ls"]),
    ("imagestore prune --bud", ["--budget", "--budget-inodes"]),
    ("imagestore rm --js", ["--json"]),
    ("imagestore get a", ["app:1"]),
    ("imagestore rm x ", ["app:1"]),
    ("imagestore prune --keep a", ["app:1"]),
    ("imagestore completion z", ["zsh"]),
    ("imagestore prune --budget ", []),
    ("imagestore provision --backend c", ["copy"]),
    ("imagestore provision c9 a", ["app:1"]),
    ("imagestore provision --upper 1G --read-only c9 a", ["app:1"]),
]


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_completes(filled, line, words):
    require("bash")

    assert complete_in_bash(filled, line) == words


def test_bash_completes_behind_a_colon_and_with_a_store(filled):
    require("bash")
    elsewhere = f"imagestore --store {filled.store}/none get "

    assert complete_in_bash(filled, "imagestore get app:") == ["1"]
    assert complete_in_bash(filled, elsewhere) == []
    assert complete_in_bash(filled, elsewhere.replace("/none", "")) == ["app:1"]


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("imagestore put ", "default"),
        ("imagestore --store ", "dirnames"),
        ("imagestore put --sandbox ", "dirnames"),
        ("imagestore unpack x", "default"),
    ],
)
def test_bash_completes_files_by_itself(filled, line, how):
    require("bash")

    assert complete_in_bash(filled, line) == [how]


def test_bash_completes_an_id_by_no_other_and_each_argument_by_its_kind(filled):
    require("bash")
    filled("provision", "box", "app:1", "--backend", "copy")

    assert complete_in_bash(filled, "imagestore provision ") == []
    assert complete_in_bash(filled, "imagestore provision new ") == ["app:1"]
    assert complete_in_bash(filled, "imagestore destroy x ") == ["box"]
    assert complete_in_bash(filled, "imagestore unpack layer.tar ") == ["dirnames"]
    filled("destroy", "box")


@pytest.mark.parametrize(("line", "words"), CASES)
def test_fish_completes(filled, line, words):
    require("fish")

    assert sorted(complete_in_fish(filled, line)) == sorted(words)
