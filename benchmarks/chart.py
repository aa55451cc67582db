"""Draw the seconds of a result as bars, into an SVG file.

    chart.py RESULT.json CHART.svg [--only REGEX] [--group REGEX] [--until PERCENT] [--title TEXT]

There is a panel for each group. Each bar is a median, and the line across its end goes from the least to the most, or
to what --until of 100 values do not exceed. The colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from rows import percentile

SVG = "http://www.w3.org/2000/svg"
WIDTH, MARGIN = 840, 16
LABELS, NUMBERS = 330, 90  # room for names on the left, for the number on the right
LINE, BAR, TITLE = 26, 16, 34
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .group { font-weight: 600 }
    .bar { fill: #8c959f }
    .ours { fill: #1a7f37 }
    .spread { stroke: #1f2328; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .bar { fill: #6e7681 }
      .ours { fill: #3fb950 }
      .spread { stroke: #e6edf3 }
    }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that was measured, in seconds."""

    name: str
    median: float
    least: float
    most: float

    @property
    def number(self) -> str:
        return f"{self.median:.2f} s" if self.median >= 0.1 else f"{self.median * 1000:.1f} ms"


def bars_of(rows: Mapping[str, Mapping[str, object]], only: str, until: float) -> list[Bar]:
    """Return the selected rows that have seconds, the shortest first."""
    bars = []
    for name, row in rows.items():
        seconds = row.get("seconds")
        if isinstance(seconds, list) and re.search(only, name):
            bars.append(Bar(name, float(str(row["median_seconds"])), min(seconds), percentile(seconds, until)))
    return sorted(bars, key=lambda bar: bar.median)


def draw(title: str, groups: Mapping[str, list[Bar]]) -> str:
    """Return the chart as SVG."""
    groups = {name: bars for name, bars in groups.items() if bars}
    height = MARGIN * 2 + TITLE + sum(TITLE + LINE * len(bars) for bars in groups.values())
    said = "; ".join(f"{name}: {', '.join(f'{b.name} {b.number}' for b in bars)}" for name, bars in groups.items())
    parts = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="desc">{escape(said)}</desc>',
        f"  <style>{STYLE}  </style>",
        _text(MARGIN, MARGIN + 16, title, "title"),
    ]
    top = MARGIN + TITLE
    for name, bars in groups.items():
        parts += _panel(name, bars, top)
        top += TITLE + LINE * len(bars)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(name: str, bars: list[Bar], top: int) -> Iterator[str]:
    yield _text(MARGIN, top + 20, name, "group")
    left = MARGIN + LABELS
    scale = (WIDTH - left - NUMBERS - MARGIN) / max(bar.most for bar in bars)
    for number, bar in enumerate(bars):
        y = top + TITLE + LINE * number
        middle, end = y + BAR / 2, left + bar.most * scale
        kind = "bar ours" if bar.name.startswith("ours") else "bar"
        yield _text(left - 8, y + 13, bar.name, "name", "end")
        yield f'  <rect class="{kind}" x="{left}" y="{y}" width="{bar.median * scale:.1f}" height="{BAR}"/>'
        yield f'  <path class="spread" d="M{left + bar.least * scale:.1f} {middle}H{end:.1f}"/>'
        yield _text(end + 8, y + 13, bar.number, "number")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'  <text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("chart", type=Path)
    parser.add_argument("--only", default="", metavar="REGEX", help="only rows whose name matches")
    parser.add_argument("--group", default="", metavar="REGEX", help="only groups whose name matches")
    parser.add_argument("--until", type=float, default=100, metavar="PERCENT", help="where lines end (default: 100)")
    parser.add_argument("--title", help="default: the result's")
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text())
    groups = {
        name: bars_of(rows, arguments.only, arguments.until)
        for name, rows in result["results"].items()
        if re.search(arguments.group, name)
    }
    if not any(groups.values()):
        parser.error(f"{arguments.result} has no such rows")
    arguments.chart.write_text(draw(arguments.title or result["title"], groups))


if __name__ == "__main__":
    main()
