"""The command ``imagestore``: one file for each verb. Only what a verb needs is imported when it runs."""

from pykka_imagestore.cli.entry import main

__all__ = ["main"]
