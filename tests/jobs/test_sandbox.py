from __future__ import annotations

import pytest

from pykka_imagestore.jobs.sandbox import Sandbox


def test_lines_are_added_to_what_is_there(tmp_path):
    for line in ("first", "second"):
        with Sandbox(str(tmp_path / "made" / "for it")) as sandbox:
            sandbox.say(line)

    assert (tmp_path / "made" / "for it" / "stdout").read_text() == "first\nsecond\n"


def test_error_is_written_down_and_goes_on(tmp_path):
    with pytest.raises(ValueError, match="it broke"), Sandbox(str(tmp_path)):
        raise ValueError("it broke")

    assert (tmp_path / "stderr").read_text() == "it broke\n"


def test_error_without_a_text_is_written_by_its_name(tmp_path):
    with pytest.raises(KeyError), Sandbox(str(tmp_path)):
        raise KeyError

    assert (tmp_path / "stderr").read_text() == "KeyError()\n"


def test_any_text_can_be_written(tmp_path):
    with Sandbox(str(tmp_path)) as sandbox:
        sandbox.say("größe \udcff")

    assert (tmp_path / "stdout").read_bytes() == "größe \\udcff\n".encode()


def test_no_sandbox_says_nothing_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with Sandbox(None) as sandbox:
        sandbox.say("nothing")

    assert list(tmp_path.iterdir()) == []
