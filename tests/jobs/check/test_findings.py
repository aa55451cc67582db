"""What a check says of an error of the system."""

from __future__ import annotations

import os

import pytest

from pykka_imagestore.jobs.check.findings import Findings, LayerCheck

root = pytest.mark.root
SOUND = LayerCheck()


def test_findings_say_whose_fault_an_error_is():
    findings = Findings()
    for number in (2, 5, 13, 24):
        findings.add_error(b"\xff", OSError(number, os.strerror(number)))

    assert findings.result() == LayerCheck(
        ("lacks '\\\\xff'", "has '\\\\xff', which cannot be read: Input/output error"),
        (
            "has '\\\\xff', which cannot be read: Permission denied",
            "has '\\\\xff', which cannot be read: Too many open files",
        ),
    )
