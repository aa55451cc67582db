"""The progress bar: its text, and what a terminal gets to see of it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.images import diff_id, docker_save, layer, long_layer

from pykka_imagestore.cli import progress_bar, status_line
from pykka_imagestore.cli.bar_text import Reading, bar_text
from pykka_imagestore.cli.output import complain

GIB = 1 << 30
PUT = Reading("app:1", GIB // 4, GIB, None, "3 of 5 layers, 12,345 entries")


@given(
    st.builds(
        Reading,
        st.text(max_size=60),
        st.integers(0, 1 << 50),
        st.integers(0, 1 << 50),
        st.sampled_from([None, "layer"]),
        st.text("ab 1,", max_size=60),
    ),
    st.integers(1, 200),
    st.floats(0, 1e7),
    st.floats(0, 1e12),
)
@example(Reading("", 0, 1, None), 1, 0.0, 5e-324)
def test_text_is_ascii_and_never_wider_than_the_terminal(reading, width, seconds, rate):
    text = bar_text(reading, width, seconds, rate)

    assert len(text) <= width
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize(
    ("reading", "width", "text"),
    [
        (PUT, 39, "app:1 [##......] 25% 10 MiB/s 1:16 left"),
        (PUT, 79, "app:1 [#######........................] 25% 256 MiB of 1 GiB 10 MiB/s 1:16 left"),
        (
            PUT,
            99,
            "app:1 [#####................] 25% 256 MiB of 1 GiB 10 MiB/s 1:16 left 3 of 5 layers, 12,345 entries",
        ),
        (Reading("removing", 3, 5, "layer"), 39, "removing [########......] 60% 0:00 left"),
        (Reading("removing", 0, 1, "layer"), 52, "removing [..............]  0% 0 of 1 layer 0:00 left"),
        (Reading("reading the archive"), 39, "reading the archive 0:05"),
        (Reading("\x1b\u4e16"), 39, "?? 0:05"),
    ],
)
def test_text_has_what_fits(reading, width, text):
    assert bar_text(reading, width, 5, 10 << 20) == text


def test_time_left_is_not_told_before_anything_is_done():
    assert bar_text(Reading("app:1", 0, 10), 39, 5, 0).endswith("-:-- left")


def frames(shown: str) -> list[str]:
    """Return what was on the line, each time that it was drawn."""
    return [frame for frame in re.split("\r\x1b\\[K", shown) if frame]


@pytest.mark.parametrize("columns", [40, 80])
def test_put_prune_and_check_show_bars_that_fit(imagestore, tmp_path, columns):
    layers = [long_layer(30_000, seed) for seed in "abc"]
    put, _ = imagestore.on_terminal("put", docker_save(tmp_path / "l.tar", {"long:1": layers}), columns=columns)
    check, _ = imagestore.on_terminal("check", "--deep", columns=columns)
    prune, removed = imagestore.on_terminal("prune", "--budget", "0", columns=columns)

    assert removed.startswith(b"removed long:1\n")
    for title, shown in (("long:1", put), ("checking", check), ("removing", prune)):
        assert any(frame.startswith(title) for frame in frames(shown))
        assert max(map(len, frames(shown))) < columns
        assert shown.endswith("\r\x1b[K")
        assert re.search(r"\x1b(?!\[K)", shown) is None  # nothing else that a terminal acts on, such as a colour
    assert any(re.search(r"[0-9]% .*MiB/s [0-9]:[0-9]+ left", frame) for frame in frames(put))


def test_width_of_a_terminal_that_does_not_say_it_is_80(imagestore, long_archive):
    shown, output = imagestore.on_terminal("put", long_archive)

    assert 40 < max(map(len, frames(shown))) < 80
    assert output.splitlines()[1].startswith(b"long:1")


@pytest.mark.parametrize("terminal", ["dumb", None])
def test_no_progress_is_shown_where_it_cannot_be(imagestore, archive, terminal):
    if terminal is None:
        imagestore.environment.pop("TERM", None)

    shown, _ = imagestore.on_terminal("put", archive, terminal=terminal)

    assert shown == ""


class Terminal:
    """Takes what is written to it, and says that it is a terminal."""

    def __init__(self) -> None:
        self.shown = ""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError

    def write(self, text: str) -> None:
        self.shown += text

    def flush(self) -> None: ...


def terminal_in_place_of_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """For a test itself to call: what a fixture does to stderr, pytest undoes."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_sentence_takes_the_place_of_the_bar(monkeypatch):
    terminal = terminal_in_place_of_stderr(monkeypatch)

    status_line.draw("[##...]")
    complain("something is wrong")
    status_line.draw("[###..]")
    status_line.erase()

    lines = terminal.shown.split("\n")
    assert frames(lines[0]) == ["[##...]", "imagestore: something is wrong"]
    assert frames(lines[1]) == ["[###..]"]


def test_bar_goes_on_while_nothing_is_told(monkeypatch):
    terminal = terminal_in_place_of_stderr(monkeypatch)

    with progress_bar.progress_bar(quiet=False):
        deadline = time.monotonic() + 60
        while terminal.shown.count("reading the archive") < 3 and time.monotonic() < deadline:
            time.sleep(0.05)

    assert terminal.shown.count("reading the archive") >= 3


def test_terminal_that_is_gone_ends_nothing(monkeypatch):
    terminal = terminal_in_place_of_stderr(monkeypatch)

    def fail(_: str) -> None:
        raise OSError

    monkeypatch.setattr(terminal, "write", fail)

    with progress_bar.progress_bar(quiet=False):
        complain("nobody reads this")


def test_deep_check_tells_what_it_read(imagestore, tmp_path):
    data = [layer({"a": bytes(1 << 20)}), layer({"b": bytes(1 << 20)})]
    imagestore("put", docker_save(tmp_path / "a.tar", {"a:1": data}))
    sound, quick = imagestore("check", "--deep"), imagestore("check", "--json")
    (imagestore.store / "layers" / diff_id(data[0]).replace(":", "-") / "rootfs/a").write_bytes(b"x")

    damaged = imagestore("check", "--deep", "--json")

    assert re.fullmatch(r"1 image, 2 layers, 1 config: 0 faults; 2 MiB read in [0-9.]+ s\n", sound.stdout)
    assert '"read_bytes":0}' in quick.stdout
    assert f'"read_bytes":{len(data[1])}}}' in damaged.stdout
