"""The command ``imagestore``: one module for each verb, imported when the verb runs."""

from pykka_imagestore.cli.entry import main

__all__ = ["main"]
