"""What the verbs about containers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pykka_imagestore.core.run_config import RunConfig

OWNER = "imagestore"  # whose containers these are; no agent's recovery looks at them


def run_config_document(config: RunConfig) -> dict[str, Any]:
    """Return the JSON document of what an image says of running it."""
    return {
        "entrypoint": list(config.entrypoint),
        "arguments": list(config.arguments),
        "environment": dict(config.environment),
        "user": config.user,
        "working_directory": config.working_directory,
        "labels": dict(config.labels),
        "exposed_ports": list(config.exposed_ports),
        "volumes": list(config.volumes),
        "stop_signal": config.stop_signal,
    }
