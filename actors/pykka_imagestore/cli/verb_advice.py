"""Words that are no verb here: what to write instead, for who knows them from docker, podman, skopeo or pip."""

from __future__ import annotations

from collections.abc import Sequence

_RUN = "nothing is run here; provision makes a root file system, and doctor lists what runs a program in one"
_PULL = "nothing is pulled; have it copied, as skopeo copy docker://NAME oci-archive:image.tar does, and put that"
_KNOWN_ELSEWHERE = {
    "images": "write list",
    "image": "write list, inspect, remove or prune",
    "rmi": "write remove",
    "delete": "write remove, or destroy for a container",
    "import": "write put, or unpack for a bare layer",
    "add": "write put",
    "copy": "write put",
    "install": "write put",
    "show": "write inspect",
    "history": "write inspect --format '{history}'",
    "ps": "write containers",
    "container": "write containers, provision or destroy",
    "create": "write provision",
    "mount": "write provision",
    "umount": "write destroy",
    "unmount": "write destroy",
    "df": "write du",
    "system": "write du, prune or doctor",
    "gc": "write prune",
    "info": "write doctor",
    "version": "write --version",
    "tag": "an image has another name once it is put again, with put --name",
    "save": "archives are not kept, only what was in them",
    "push": "nothing is pushed",
    "run": _RUN,
    "exec": _RUN,
    "start": _RUN,
    "pull": _PULL,
    "fetch": _PULL,
    "download": _PULL,
    "login": _PULL,
}


def advice_on(word: str, verbs: Sequence[str]) -> str:
    """Return what to write instead of a word that is no verb, as the end of a sentence."""
    if word in _KNOWN_ELSEWHERE:
        return _KNOWN_ELSEWHERE[word]
    import difflib  # noqa: PLC0415 - slow, and seldom needed

    similar = difflib.get_close_matches(word, verbs)
    return f"write {' or '.join(similar)}" if similar else f"the verbs are {', '.join(verbs)}"
