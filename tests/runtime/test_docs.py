"""docs/runtime.md names a test for each row, each test of a row belongs to one of its rows, and its example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import TIMEOUT

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "runtime.md").read_text()
NAMED = dict(re.findall(r"^- \*\*(.+?)\*\*: [^*]+\n  Test: `(test_\w+)`\.$", PAGE, re.MULTILINE))


def rows_of_tests():
    for file in ("test_rows_futures.py", "test_rows_processes.py"):
        row = None
        for line in (HERE / file).read_text().splitlines():
            if line.startswith("# Row "):
                row = line[len('# Row "') : -len('".')]
            elif line.startswith("def test_"):
                yield line.removeprefix("def ").partition("(")[0], row


ROWS = dict(rows_of_tests())


@pytest.mark.parametrize("row", NAMED)
def test_the_page_names_a_test_of_the_row(row):
    assert ROWS[NAMED[row]] == row


def test_no_row_is_missing():
    assert set(ROWS.values()) == set(NAMED)
    assert len(NAMED) == 42


def test_the_pages_example_runs(tmp_path):
    (tmp_path / "example.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0])

    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("[2053932785, 298486374]\n", "")
