"""Parses the command line, runs the verb, and turns an error into one sentence and an exit status."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from signal import SIGINT, Signals

from pykka_imagestore.cli.arguments import parse_arguments
from pykka_imagestore.cli.descriptors import shown_descriptor
from pykka_imagestore.cli.log import show_warnings
from pykka_imagestore.cli.output import OutputError, complain, flush_output, give_up_output
from pykka_imagestore.cli.stop_signals import StoppedError
from pykka_imagestore.errors import AmbiguousImageError, StoreError

# Named here, not imported: the runtime is slow to import, and the verbs that only read do not need it.
_RUNTIME_ERRORS = "pykka_imagestore.runtime.errors"


def run_command(arguments: Sequence[str] | None) -> int:
    """Run the command line; return its exit status."""
    try:
        _run(arguments)
    except StoppedError as error:
        return _stopped(error.signal_number)
    except KeyboardInterrupt:
        return _stopped(SIGINT)
    except OutputError as error:
        give_up_output()
        complain(str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - a user gets a sentence for every error
        complain(shown_descriptor(_sentence(error)))
        return 1
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    try:
        options = parse_arguments(arguments)
    except SystemExit:
        flush_output()  # of the help, whose reader may be gone
        raise
    show_warnings()
    importlib.import_module(f"pykka_imagestore.cli.verbs.{options.verb}").run(options)


def _stopped(signal_number: Signals) -> int:
    complain("interrupted" if signal_number == SIGINT else f"stopped by {signal_number.name}")
    return 128 + signal_number


def _sentence(error: Exception) -> str:
    if isinstance(error, AmbiguousImageError):
        return f"{error}; see --name and --select"
    if isinstance(error, StoreError | ImportError) or type(error).__module__ == _RUNTIME_ERRORS:
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"unexpected {type(error).__qualname__}: {error}"
