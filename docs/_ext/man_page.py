"""Prints the manual page of ``imagestore``, made from its parser; ``make man`` keeps it in docs/imagestore.1."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

from pykka_imagestore.cli.arguments import DESCRIPTION, EPILOG, make_parser
from pykka_imagestore.cli.completion import Argument, find_verbs

ENVIRONMENT = {
    "IMAGESTORE_DIR": "The store's directory, unless --store names another one.",
    "XDG_DATA_HOME": "Where the store lies by default, in imagestore; if it is unset, ~/.local/share.",
    "TERM": "If it is unset or dumb, no progress is shown.",
}


def page() -> str:
    """Return the page.

    Spec:
        man(7).
    """
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    parser = make_parser()
    yield '.\\" Made by docs/_ext/man_page.py: change the parser, and run "make man".'
    yield '.TH IMAGESTORE 1 "" "pykka-imagestore" "User commands"'
    yield from (".SH NAME", _text("imagestore - keep container images as directories"))
    yield from (".SH SYNOPSIS", "\\fBimagestore\\fR [\\fIoption\\fR ...] \\fIverb\\fR [\\fIoption\\fR ...] ...")
    yield from (".SH DESCRIPTION", _text(DESCRIPTION))
    yield from (".SH OPTIONS", "They may stand before the verb or after it.")
    common = {argument.options: argument for verb in find_verbs(parser)[:1] for argument in verb.options}
    shared = [options for options in common if all(_has(verb.options, options) for verb in find_verbs(parser))]
    for options in shared:
        yield from _argument(common[options])
    yield from _argument(Argument(("--version",), "", "text", (), "print the version", repeats=False))
    yield ".SH VERBS"
    for verb, each in zip(find_verbs(parser), _verb_parsers(parser), strict=True):
        yield f".SS {', '.join(verb.names)}"
        yield _text(each.description or "")
        for argument in verb.arguments:
            if argument.options not in shared:
                yield from _argument(argument)
    status, examples = EPILOG.split("examples:\n")
    yield ".SH EXIT STATUS"
    for number, meaning in re.findall(r"^  (\d+) +(.+)$", status, re.MULTILINE):
        yield from (".TP", number, _text(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT.items():
        yield from (".TP", f".B {name}", _text(meaning))
    yield from (".SH EXAMPLES", ".nf", *(_text(line.strip()) for line in examples.strip().splitlines()), ".fi")


def _verb_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    yield from dict.fromkeys(next(actions).choices.values())


def _has(arguments: tuple[Argument, ...], options: tuple[str, ...]) -> bool:
    return any(argument.options == options for argument in arguments)


def _argument(argument: Argument) -> Iterator[str]:
    value = f"\\fI{_text(argument.metavar)}\\fR{' ...' if argument.repeats and not argument.options else ''}"
    names = ", ".join(f"\\fB{_text(option)}\\fR" for option in argument.options)
    yield ".TP"
    yield " ".join(filter(None, [names, value if argument.metavar else ""]))
    yield _text(argument.help)


def _text(text: str) -> str:
    """Return a text for roff: no letter or line of it is taken for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join(f"\\&{line}" if line.startswith((".", "\\(aq")) else line for line in escaped.splitlines())


if __name__ == "__main__":
    sys.stdout.write(page())
