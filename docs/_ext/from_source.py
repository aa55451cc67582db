"""What of the reference is made from the sources, beside the docstrings.

``{errors} MODULE``: a module's errors; when they come, and what to do, is taken from the drawing in its docstring.
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
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from pykka_imagestore.cli.arguments import make_parser

# A name, when it is raised, and after a colon what to do.
_DRAWN = re.compile(r"(?P<indent> *)(?P<name>\w+(?:Error|Failure))(?:  +(?P<when>[^:]+)(?:: (?P<remedy>.+))?)?")

# Nobody but the package calls these classes.
_NOT_CALLED = {
    *("LocalStore", "LocalStoreActor", "LeasedImage", "ReferenceStore", "ReferenceStoreActor", "Future"),
    *("Provisioner", "ProvisionerActor", "Rootfs"),
}


def drawn(module: str) -> list[re.Match[str]]:
    """Return the lines of a module's drawing of its errors."""
    drawing = importlib.import_module(module).__doc__ or ""
    return list(filter(None, map(_DRAWN.fullmatch, drawing.splitlines())))


def remedy(error: type[BaseException]) -> str | None:
    """Return what to do about an error: what the drawing says of it, or of the error that it is a kind of."""
    known = {line["name"]: line["remedy"] for line in drawn(error.__module__) if line["remedy"]}
    return next((known[each.__name__] for each in error.__mro__ if each.__name__ in known), None)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb."""
    actions = make_parser()._actions
    return dict(next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices)


class Errors(SphinxDirective):
    """The drawing of a module's errors as a list, and their docstrings in the same order."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both; an error is shown under the package that callers import it from."""
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(str(module.__file__))
        public = importlib.import_module(module.__name__.removesuffix(".errors"))
        overview, details = [], []
        for line in drawn(module.__name__):
            home = public if line["name"] in public.__all__ else module
            name = f"{home.__name__}.{line['name']}"
            when = "" if line["when"] is None else f": {line['when'].strip()}"
            todo = "" if line["remedy"] is None else f" → *{line['remedy']}*"
            overview.append(f"{line['indent']}- {{py:exc}}`~{name}`{when}{todo}")
            details += [f".. autoexception:: {name}", "   :show-inheritance:", ""]
        page = "\n".join([*overview, "", "```{eval-rst}", *details, "```"])
        return self.parse_text_to_nodes(page)


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


def _use_signatures_of_pages(app: Sphinx) -> None:
    """Show two functions as the page has it: Sphinx cannot show the types of ``*args: P.args`` in an overload."""
    analyzer = ModuleAnalyzer.for_module("pykka_imagestore.runtime.actor")
    analyzer.analyze()
    for name in ("dispatch", "defer"):
        del analyzer.overloads[name]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("errors", Errors)
    app.add_directive("command-help", CommandHelp)
    app.connect("builder-inited", _use_signatures_of_pages)
    app.connect("autodoc-process-docstring", _add_remedy)
    app.connect("autodoc-process-signature", _hide_signature)
    return {"parallel_read_safe": True}
