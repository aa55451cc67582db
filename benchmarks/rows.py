"""Measured rows, in a group for each input, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surroundings import machine, versions


@dataclass
class Row:
    """What was measured of one thing, round by round: seconds, and other figures by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> list[float]:
        return self.values["seconds"]

    def median(self, what: str = "seconds") -> float:
        return statistics.median(self.values[what])

    def percentile(self, percent: float, what: str = "seconds") -> float:
        return percentile(self.values[what], percent)

    def as_json(self) -> dict[str, object]:
        return {f"median_{what}": self.median(what) for what in self.values} | dict(self.values)


class Rows(dict[str, Row]):
    """Rows by name, in the order in which they were first measured."""

    def add(self, name: str, **values: float) -> None:
        row = self.setdefault(name, Row())
        for what, value in values.items():
            row.values.setdefault(what, []).append(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; where ``show`` raises KeyError, the cell stays empty."""

    title: str
    show: Callable[[Row], str]

    def cell(self, row: Row) -> str:
        try:
            return self.show(row)
        except KeyError:
            return ""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of all do not exceed; of fewer than 100 the 99th is the most."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


SECONDS = (
    Column("seconds, median", lambda row: f"{row.median():.3f}"),
    Column("least", lambda row: f"{min(row.seconds):.3f}"),
    Column("most", lambda row: f"{max(row.seconds):.3f}"),
)
PEAK = Column("peak MB", lambda row: f"{row.median('peak_bytes') / 1e6:.0f}")


def ratio_to(baseline: Row) -> Column:
    return Column("ratio", lambda row: f"{row.median() / baseline.median():.2f}")


def print_table(title: str, rows: Mapping[str, Row], columns: Sequence[Column], *, markdown: bool = False) -> None:
    """Print a table, as plain text or for a page of docs/."""
    cells = [[title, *(column.title for column in columns)]]
    cells += [[name, *(column.cell(row) for column in columns)] for name, row in rows.items()]
    if markdown:
        cells.insert(1, ["---", *("---:" for _ in columns)])
        print(*(f"| {' | '.join(line)} |" for line in cells), sep="\n", end="\n\n")
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}", *numbers, sep="  ")
    print()


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables for a page of docs/")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works")


def write_json(path: Path | None, groups: Mapping[str, Rows], tools: Sequence[str] = (), **facts: object) -> None:
    """Write what was measured, and with what, if a file is given."""
    if path is None:
        return
    results = {group: {name: row.as_json() for name, row in rows.items()} for group, rows in groups.items()}
    document = {**facts, "machine": machine(), "versions": versions(*tools), "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
