"""What of the reference is made from the sources, beside the docstrings.

``{errors} MODULE``: the drawing of a module's errors, and each of them; what to do about it is taken from the drawing.
``{command-help} VERB``: what ``imagestore VERB --help`` prints; without VERB, what ``imagestore --help`` does.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pykka_imagestore.cli.arguments import make_parser

# A name, when it is raised, and after a colon what to do.
_DRAWN = re.compile(r" *(?P<name>\w+(?:Error|Failure))(?:  +(?P<when>[^:]+)(?:: (?P<remedy>.+))?)?")

# Nobody but the package calls these classes.
_NOT_CALLED = {"LocalStore", "LocalStoreActor", "LeasedImage", "ReferenceStore", "ReferenceStoreActor", "Future"}


def remedies(module: str) -> dict[str, str]:
    """Return what to do about those errors of a module that its drawing says it of."""
    drawing = importlib.import_module(module).__doc__ or ""
    lines = filter(None, map(_DRAWN.fullmatch, drawing.splitlines()))
    return {line["name"]: line["remedy"] for line in lines if line["remedy"]}


def remedy(error: type[BaseException]) -> str | None:
    """Return what to do about an error: what the drawing says of it, or of the error that it is a kind of."""
    known = remedies(error.__module__)
    return next((known[each.__name__] for each in error.__mro__ if each.__name__ in known), None)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb."""
    actions = make_parser()._actions
    return dict(next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices)


class Errors(SphinxDirective):
    """The drawing of a module's errors, and their docstrings in the order of the drawing."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both; an error is shown under the package that callers import it from."""
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(str(module.__file__))
        tree = (inspect.getdoc(module) or "").partition("\n\n")[2]
        public = importlib.import_module(self.arguments[0].removesuffix(".errors"))
        lines = []
        for line in filter(None, map(_DRAWN.fullmatch, tree.splitlines())):
            home = public if line["name"] in public.__all__ else module
            lines += [f".. autoexception:: {home.__name__}.{line['name']}", "   :show-inheritance:", ""]
        page = "\n".join(["```{eval-rst}", *lines, "```"])
        return [nodes.literal_block(tree, tree, language="text"), *self.parse_text_to_nodes(page)]


class CommandHelp(SphinxDirective):
    """What the command prints as its help."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the help, as wide as the page."""
        os.environ["COLUMNS"] = "90"
        self.env.note_dependency(str(inspect.getsourcefile(make_parser)))
        parser = verbs()[self.arguments[0]] if self.arguments else make_parser()
        text = parser.format_help()
        return [nodes.literal_block(text, text, language="text")]


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def _add_remedy(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    if _is_error(value):
        text = remedy(value)
        if text is not None:
            end = lines.index("") if "" in lines else len(lines)
            lines[end:end] = ["", f"**What to do**: {text}."]


def _hide_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    hidden = _is_error(value) or (inspect.isclass(value) and value.__name__ in _NOT_CALLED)
    return ("", None) if hidden and signature else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("errors", Errors)
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-docstring", _add_remedy)
    app.connect("autodoc-process-signature", _hide_signature)
    return {"parallel_read_safe": True}
