"""Parses the command line, runs the verb, and turns an error into one sentence and an exit status."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from signal import SIGINT, Signals

from pykka_imagestore.cli.arguments import parse_arguments
from pykka_imagestore.cli.log import show_log
from pykka_imagestore.cli.output import OutputError, complain, flush_output, give_up_output
from pykka_imagestore.cli.sentences import sentence_of
from pykka_imagestore.cli.stop_signals import StoppedError


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
        complain(sentence_of(error))
        return 1
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    try:
        options = parse_arguments(arguments)
        show_log(verbose=options.verbose)
        verb = importlib.import_module(f"pykka_imagestore.cli.verbs.{options.verb}")
    except SystemExit:
        flush_output()  # of the help, whose reader may be gone
        raise
    finally:
        gc.freeze()  # what was imported stays until the end; see main
        gc.enable()
    verb.run(options)


def _stopped(signal_number: Signals) -> int:
    complain("interrupted" if signal_number == SIGINT else f"stopped by {signal_number.name}")
    return 128 + signal_number
