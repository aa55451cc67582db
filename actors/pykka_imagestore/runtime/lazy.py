"""Modules whose names are imported when they are first used: a worker process, and each verb, need few of them."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(module: str, package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a ``__getattr__`` for a module.

    Args:
        module: The module's ``__name__``.
        package: What the homes are relative to.
        homes: The module that defines each name.
    """

    def import_name(name: str) -> object:
        if name not in homes:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg)
        import importlib  # noqa: PLC0415 - what a worker process imports needs nothing of this
        import sys  # noqa: PLC0415

        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[module], name, value)  # so the next use finds it without a call
        return value

    return import_name
