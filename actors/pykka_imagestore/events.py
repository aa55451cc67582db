"""What happens in a store, see core/events.py, which is imported with the first event that happens."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from pykka_imagestore.core.events import *  # noqa: F403 - each name here is one there


def __getattr__(name: str) -> object:
    from pykka_imagestore.core import events  # noqa: PLC0415

    return getattr(events, name)
