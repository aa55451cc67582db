"""Wrong usage: exit status 2, the usage of the verb, one sentence, and nothing else happens."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest

from pykka_imagestore.cli.arguments import parse_arguments
from pykka_imagestore.cli.verb_advice import advice_on
from pykka_imagestore.cli.verb_arguments import VERBS as WORDS

WRONG = {
    "no verb": ([], "name a VERB; imagestore help lists them"),
    "no verb after an option": (["--json"], "name a VERB; imagestore help lists them"),
    "no such verb": (["colour"], "'colour' is no verb: the verbs are put, load, get,"),
    "a verb of docker": (["images", "-a"], "'images' is no verb: write list"),
    "a verb of podman after an option": (["--store", "x", "rmi", "app:1"], "'rmi' is no verb: write remove"),
    "what is not done here": (["pull", "app:1"], "skopeo copy docker://NAME oci-archive:image.tar does, and put that"),
    "a verb with a slip": (["chek", "--deep"], "'chek' is no verb: write check"),
    "no such option before the verb": (["--stor", "x", "list"], "unrecognized arguments: --stor"),
    "no store": (["--store"], "--store: expected one argument"),
}
WRONG_OF_A_VERB = {
    "too many arguments": (["get", "a", "b"], "unrecognized arguments: b"),
    "no such option": (["list", "--colour"], "unrecognized arguments: --colour"),
    "an abbreviated option": (["prune", "--dry"], "unrecognized arguments: --dry"),
    "an abbreviated common option": (["list", "--js"], "unrecognized arguments: --js"),
    "a name for several archives": (["put", "--name", "a", "a.tar", "b.tar"], "--name: puts one image"),
    "no archive": (["put"], "name an ARCHIVE, or let one come through standard input"),
    "a name twice": (["put", "--name", "a", "--name", "b", "a.tar"], "--name: may be given only once"),
    "a name for several inputs": (["put", "--name", "a", "-i", "a.tar", "b.tar"], "--name: puts one image"),
    "an archive as skopeo names it": (["put", "docker-archive:a.tar:app:1"], "write a.tar --select app:1"),
    "a layout as skopeo names it": (["load", "-i", "oci:dir"], "write dir"),
    "an image of a registry": (["put", "docker://app:1"], "skopeo copy docker://app:1 oci-archive:image.tar"),
    "an image in place of an archive": (["put", "app:1"], "skopeo copy docker://app:1 oci-archive:image.tar"),
    "an image behind its archive": (["put", "/dev/null", "app:1"], "or, as a name, write --name app:1"),
    "a template of Go": (["inspect", "-f", "{{.Config.Env}}", "app:1"], "a field is in single braces, such as {name}"),
    "all of docker's": (["prune", "--all"], "unrecognized arguments: --all; --budget 0 removes all images"),
    "all containers": (["destroy", "-a"], "required: ID; name each; imagestore containers --quiet lists the ids"),
    "force": (["remove", "-f", "app:1"], "unrecognized arguments: -f; nothing asks back here"),
    "a file for a tar": (["export", "app:1", "a.tar"], "arguments: a.tar; a file is named with --output a.tar"),
    "an image before the id": (["provision", "app:1", "box"], "'app:1' is no id; the id comes first, then the image"),
    "no id of a container": (["destroy", "../x"], "'../x' is no id: at most 128 letters"),
    "no verb to help with": (["help", "fetch"], "VERB: invalid choice: 'fetch'"),
    "no number of workers": (["put", "--workers", "0", "a.tar"], "--workers: '0' is no positive number"),
    "no name to get": (["get", "Not A Name"], "'Not A Name' is not an image name"),
    "no name to inspect": (["inspect", "a:"], "'a:' is not an image name"),
    "no name to remove": (["remove", ""], "'' is not an image name"),
    "no name to put under": (["put", "--name", "A B", "a.tar"], "--name: 'A B' is not an image name"),
    "no platform": (["put", "--platform", "s390x", "a.tar"], "--platform: 's390x' is no platform"),
    "no name to keep": (["prune", "--keep", "A B"], "--keep: 'A B' is not an image name"),
    "no size": (["prune", "--budget", "much"], "--budget: 'much' is no size"),
    "a duration like an option": (["prune", "--unused-for", "-1"], "--unused-for"),
    "no duration": (["prune", "--unused-for", "long"], "--unused-for: 'long' is no duration"),
    "no number of inodes": (["prune", "--budget-inodes", "x"], "--budget-inodes: 'x' is no number from 0 up"),
    "a negative number of inodes": (["prune", "--budget-inodes=-1"], "--budget-inodes: '-1' is no number from 0 up"),
    "no field of a document": (["list", "--format", "{size}"], "no field 'size', but name, config_digest, layers"),
    "a brace alone": (["get", "--format", "{name", "app:1"], "'{name' has a brace without its other one"),
    "two forms of output": (["list", "--json", "--format", "{name}"], "--format: not allowed with argument --json"),
    "no shell": (["completion", "tcsh"], "SHELL: invalid choice: 'tcsh'"),
    "no archive's path": (["put", ""], "ARCHIVE: the path is empty"),
    "no sandbox": (["put", "--sandbox", "", "a.tar"], "--sandbox: the path is empty"),
    "no directory": (["unpack", "layer.tar", ""], "DIRECTORY: the path is empty"),
}


@pytest.mark.parametrize("case", [*WRONG, *WRONG_OF_A_VERB])
def test_wrong_usage_has_exit_status_2_and_changes_nothing(filled, case):
    arguments, words = (WRONG | WRONG_OF_A_VERB)[case]

    done = filled(*arguments, stdin=subprocess.DEVNULL)

    verb = {"load": "put"}.get(*arguments[:1], *arguments[:1]) if arguments else ""
    program = f"imagestore {verb}" if case in WRONG_OF_A_VERB else "imagestore"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {program} [")
    assert done.stderr.splitlines()[-1].startswith(f"{program}: error: ")
    assert words in done.stderr.splitlines()[-1]
    assert "app:1" in filled("list").stdout


def test_wrong_usage_of_another_name_shows_the_usage_of_its_verb(filled):
    done = filled("ls", "--colour")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: imagestore list [")


def test_abbreviated_option_before_the_verb_is_refused(filled):
    assert filled("--js", "list").returncode == 2


VERBS = [
    ["put", "a.tar"],
    ["get", "app:1"],
    ["list"],
    ["inspect", "app:1"],
    ["remove", "app:1"],
    ["prune"],
    ["du"],
    ["check"],
    ["repair"],
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_empty_store_option_is_refused_and_does_not_mean_the_default_store(filled, verb):
    for arguments in ([*verb, "--store", ""], ["--store=", *verb]):
        done = filled(*arguments)

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith(": error: argument --store: the path is empty\n")
    assert "app:1" in filled("list").stdout


def test_put_without_an_archive_does_not_wait_for_a_terminal(filled):
    ours, theirs = pty.openpty()

    done = filled("put", stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert (done.returncode, "name an ARCHIVE" in done.stderr) == (2, True)


@pytest.mark.parametrize("names", [[], ["put"], ["ls"], ["help"]], ids=str)
def test_help_is_a_verb_and_an_option(imagestore, names):
    helped = imagestore("help", *names)

    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout == imagestore(*names, "--help").stdout


def test_help_knows_every_word_for_a_verb():
    for word in WORDS:
        with pytest.raises(SystemExit, match="0"):
            parse_arguments(["help", word])


def test_no_verb_is_taken_for_a_word_that_is_none():
    assert all(advice_on(word, WORDS).startswith(f"write {word}") for word in WORDS)
