"""Options that a verb does not have: what to write instead, for who knows them from docker or podman."""

from __future__ import annotations

from collections.abc import Sequence

_UNASKED = "nothing asks back here, so that none is needed"
_ALL_LISTED = "all are listed"
_UNUSED = "--budget 0 removes all images that nothing keeps, --unused-for 7d those not used for a week"
_EACH_ID = "name each; imagestore containers --quiet lists the ids"
_HELD = "one of a program that is running is never removed; end that program"
_KNOWN_ELSEWHERE = {
    "prune": {"-a": _UNUSED, "--all": _UNUSED, "-f": _UNASKED, "--force": _UNASKED},
    "remove": {
        "-a": f"name each image, or prune: {_UNUSED}",
        "--all": f"name each image, or prune: {_UNUSED}",
        "-f": _UNASKED,
        "--force": _UNASKED,
    },
    "destroy": {"-a": _EACH_ID, "--all": _EACH_ID, "-f": _HELD, "--force": _HELD},
    "list": {"-a": _ALL_LISTED, "--all": _ALL_LISTED},
    "containers": {"-a": _ALL_LISTED, "--all": _ALL_LISTED},
    "provision": {"--name": "write the id in front of the image, without an option"},
}


def advice_on_options(verb: str, words: Sequence[str]) -> str:
    """Return what to write instead of an option of a verb, as the end of a sentence; empty if nothing is known.

    Args:
        words: The command line.
    """
    known = _KNOWN_ELSEWHERE.get(verb, {})
    return next((f"; {known[word]}" for word in words if word in known), "")
