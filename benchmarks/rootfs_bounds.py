"""What we want to hold of root file systems, and whether it does, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rows import Row, Rows

AFTER_PUT, COPIES, SANDBOXES = "right after a put", "copies, 1 at a time", "sandboxes"
API, API_NOT_DURABLE, COMMAND, COPY = "ours, API", "ours, API, not durable", "ours, command", "ours, API, copy"


def quiet(at_once: int) -> str:
    return f"{at_once} at a time, beside 1"


def crowded(at_once: int, others: int) -> str:
    return f"{at_once} at a time, beside {others:,}"


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that is to hold.

    Attributes:
        holds: None if it was not measured.
    """

    what: str
    wanted: str
    found: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What there is to compare: the groups, how many were made at once, and what was left of the sandboxes."""

    groups: Mapping[str, Rows]
    at_once: int
    left: Mapping[str, int]

    def median(self, act: str, situation: str, name: str, what: str = "seconds") -> float | None:
        """Return a median of a row, which may be named by the beginning of its name; None if it was not measured."""
        row = self._row(act, situation, name)
        return None if row is None else row.median(what)

    def p99(self, act: str, situation: str, name: str) -> float | None:
        row = self._row(act, situation, name)
        return None if row is None else row.percentile(99)

    def _row(self, act: str, situation: str, name: str) -> Row | None:
        rows = self.groups.get(f"{act}, {situation}", {})
        return rows.get(name) or next((row for other, row in rows.items() if other.startswith(name)), None)


def bounds(measured: Measured) -> Iterator[Bound]:
    """Yield all that we want to hold."""
    yield no_more_than(f"{API}: provision, p50", measured.median("provision", quiet(1), API), 0.002)
    yield no_more_than(f"{API}: provision, p99", measured.p99("provision", quiet(1), API), 0.008)
    not_durable = measured.median("provision", quiet(1), API_NOT_DURABLE)
    yield no_more_than(f"{API_NOT_DURABLE}: provision, p50", not_durable, 0.001)
    for situation in (quiet(1), AFTER_PUT):
        for name in (API, API_NOT_DURABLE):
            gone = measured.median("destroy", situation, name)
            yield no_more_than(f"{name}: destroy, {situation}, p50", gone, 0.002)
    for act in ("provision", "destroy"):
        ours, theirs = (measured.median(act, quiet(1), name) for name in (COMMAND, "podman"))
        yield times(f"podman's {act} / our command's, p50", theirs, ours, 1)
    for situation in (quiet(1), quiet(measured.at_once)):
        for peer, wanted in (("podman", 20), ("ctr", 8)):
            ours, theirs = (measured.median("provision", situation, name, "a_second") for name in (API, peer))
            yield times(f"{API}: made and removed a second, {situation}, / {peer}'s", ours, theirs, wanted)
    copied, cp = (measured.median("provision", COPIES, name) for name in (COPY, "cp -a"))
    yield times("cp -a / our copy, p50", cp, copied, 1.8)
    sandboxes = measured.median("provision", SANDBOXES, API, "a_second")
    yield at_least("sandboxes made and removed, a second", sandboxes, 300)
    leftovers = {what: number for what, number in measured.left.items() if number > 0}
    found = ", ".join(f"{number} {what}" for what, number in leftovers.items()) or "nothing"
    yield Bound("left of the sandboxes", "nothing", found, not leftovers if measured.left else None)


def no_more_than(what: str, seconds: float | None, bound: float) -> Bound:
    found = "" if seconds is None else f"{seconds * 1000:.2f} ms"
    return Bound(what, f"< {bound * 1000:g} ms", found, None if seconds is None else seconds < bound)


def times(what: str, more: float | None, less: float | None, bound: float) -> Bound:
    return at_least(what, None if more is None or less is None else more / less, bound)


def at_least(what: str, number: float | None, bound: float) -> Bound:
    found = "" if number is None else f"{number:,.1f}"
    return Bound(what, f">= {bound:g}", found, None if number is None else number >= bound)


def print_bounds(held: Sequence[Bound]) -> None:
    verdicts = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}
    for bound in held:
        print(f"{verdicts[bound.holds]:<14} {bound.what}: {bound.wanted}; found: {bound.found}")
