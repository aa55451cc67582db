"""What an image says of how to run it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How an image wants to be run. It says so itself: none of it is more than a wish.

    Attributes:
        entrypoint: The program and its first arguments; empty if the image leaves it to ``arguments``.
        arguments: What comes after the entrypoint, unless something else is asked for; the image's ``Cmd``.
        environment: Names and values, each name once; ``dict(environment)`` is what ``subprocess`` takes.
        user: Who runs it, as the image says it: ``name``, ``uid``, ``name:group``, ``uid:gid``; empty for root.
        working_directory: An absolute path, ``/`` if the image names none. What is there, only its tree can tell.
        labels: Names and values, each name once.
        exposed_ports: As the image says it: ``80/tcp``, ``53``.
        volumes: Paths that are to outlive a container.
        stop_signal: As the image says it: ``SIGQUIT``, ``3``; empty for SIGTERM.
    """

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_directory: str = "/"
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """What to run: the entrypoint, then the arguments; empty if the image says neither."""
        return self.entrypoint + self.arguments
