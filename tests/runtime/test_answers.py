"""What workers may send, and what becomes of those that send something else."""

from __future__ import annotations

import builtins
import contextlib
import enum
import importlib
import json
import math
import os
import pickle
import queue
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import worker_functions as work
from support.processes import TIMEOUT

from pykka_imagestore import errors
from pykka_imagestore.jobs.answers import allowlist
from pykka_imagestore.jobs.answers.allowlist import ANSWERS
from pykka_imagestore.runtime import PlainAnswers, WorkerAnswerError, WorkerPool
from pykka_imagestore.runtime.wire import (
    HEADER_BYTES,
    PACKET_BYTES,
    REPORT,
    RESULT,
    MalformedError,
    Reassembler,
    message,
    packets,
)
from pykka_imagestore.runtime.worker import dump_error, load_error


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: object


class Colour(enum.Enum):
    RED = "red"


class OddError(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


TYPES = (Point, Colour, OddError, Path, type(Path()), OSError, FileNotFoundError, ValueError)
answers = PlainAnswers(TYPES, 1 << 20)
ANNOUNCING = RESULT + (1).to_bytes(8)  # a header, but for the size of the body
small_integers = st.integers(1 - (1 << 60), (1 << 60) - 1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | small_integers | st.binary(), inner)
        | st.frozensets(small_integers | st.text())
        | st.sets(st.binary())
        | st.builds(Point, st.integers(), inner)
    ),
)


@given(plain)
def test_a_plain_value_comes_back_as_it_was(value):
    copy = answers.load(answers.dump(value))

    assert copy == value
    assert type(copy) is type(value)


@pytest.mark.parametrize("value", [Colour.RED, Path("/a/b"), math.inf, "\udcff", [b"\xff"], Point(1, Colour.RED)])
def test_odd_values_come_back_as_they_were(value):
    assert answers.load(answers.dump(value)) == value


def test_an_error_comes_back_with_what_it_was_made_with_and_its_attributes():
    error: Any = FileNotFoundError(2, "not there", "/x")
    error.more = (1, "two")

    copy = answers.load(answers.dump(error))

    assert (type(copy), copy.args, copy.filename, copy.more) == (FileNotFoundError, error.args, "/x", (1, "two"))


@pytest.mark.parametrize("value", [object(), int, len, work.RunsCode("x"), [Exception()], Point(1, KeyError())])
def test_a_value_of_another_type_is_not_sent(value):
    with pytest.raises(TypeError, match="is no type that may be sent"):
        answers.dump(value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"{}", b"[]", b"[1]", b'["pickle"]', b'["object"]', b'["object",0,1,2]', b'["object",99,[],{}]',
        b'["object",0,["tuple",1],["dict"]]', b'["dict",1]', b'["dict",[["list"],1]]', b'["bytes","\\u1234"]',
        b'["bytes",1]', b'["object",2,["tuple","x"],["dict",["__class__",1]]]', b'["set",["list"]]', b"[" * 100_000,
        b'["object",2,["tuple","x"],["dict",["with_traceback",1]]]', b'["set",0.5]', b'["set",["tuple",1]]',
        b'["dict",[["tuple","x"],1]]', b'["frozenset",%d]' % (1 << 61), b'["dict",[-%d,1]]' % (1 << 61),
        b'["object",1,["tuple","blue"],["dict"]]', b"\x80\x04N.", b"1" * 5000, pickle.dumps(work.RunsCode("x")),
        b'["new"]', b'["new",0,1]', b'["new",99,1,2]', b'["new",1,"blue"]', b'["new",2,"x",1]',
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(data):
    with pytest.raises(MalformedError, match="no answer"):
        answers.load(data)


def test_an_answer_that_would_take_much_more_memory_than_it_has_bytes_is_refused():
    for many in (b'["set"]', b"{}", b'{"":0}'):
        with pytest.raises(MalformedError, match=r"an object|too many arrays"):
            answers.load(b'["list",' + b",".join([many] * 600_000) + b"]")


def test_numbers_that_all_have_the_same_hash_are_refused_before_they_are_compared():
    same = [number * ((1 << 61) - 1) for number in range(1, 100_000)]

    with pytest.raises(MalformedError):
        answers.load(json.dumps(["set", *same]).encode())
    with pytest.raises(TypeError, match="a dict's key or a set's member"):
        answers.dump({same[0]: 1})


@given(st.binary(max_size=200))
def test_random_bytes_are_a_value_or_refused(data):
    with contextlib.suppress(MalformedError):
        answers.load(data)


ARGUMENTS = {
    UnicodeDecodeError: ("ascii", b"\xff", 0, 1, "why"),
    UnicodeEncodeError: ("ascii", "\udcff", 0, 1, "why"),
    UnicodeTranslateError: ("\udcff", 0, 1, "why"),
    ExceptionGroup: ("several", [ValueError("one"), OSError(2, "two")]),
}


@pytest.mark.parametrize(
    "kind",
    [each for each in vars(builtins).values() if isinstance(each, type) and issubclass(each, Exception)],
    ids=lambda kind: kind.__name__,
)
def test_a_store_lets_its_workers_send_pythons_own_errors(kind):
    error = kind(*ARGUMENTS.get(kind, (5, "what") if issubclass(kind, OSError) else ("what",)))

    copy = load_error(ANSWERS, dump_error(ANSWERS, error))

    assert (type(copy), str(copy)) == (kind, str(error))


def test_a_store_lets_its_workers_send_its_errors():
    error = errors.NoSpaceError("store/staging/1", 2000, 1000)

    copy = load_error(ANSWERS, dump_error(ANSWERS, error))

    assert (type(copy), str(copy), vars(copy)["__notes__"]) == (type(error), str(error), copy.__notes__)


@pytest.mark.parametrize(("module", "names"), allowlist.NAMES.items())
def test_what_a_store_lets_its_workers_send_is_there(module, names):
    found = importlib.import_module(f"pykka_imagestore.{module}")

    assert [getattr(found, name).__qualname__ for name in names] == [*names]
    assert all(getattr(found, name).__module__ == found.__name__ for name in names)


def test_an_error_that_may_not_be_sent_says_the_same():
    copy = load_error(answers, dump_error(answers, KeyError("which")))

    assert repr(copy) == """RuntimeError("KeyError: 'which'")"""


@given(st.integers(0, 3), st.integers(-2, 2))
def test_messages_of_any_size_go_through_in_packets(times, more):
    body = bytes(max(0, times * PACKET_BYTES + more - HEADER_BYTES))
    reassembler = Reassembler(1 << 30)

    *before, last = [reassembler.add(bytes(packet)) for packet in packets(message(RESULT, 7, body))]

    assert before == [None] * len(before)
    assert last == (RESULT, 7, body)


# -- workers that were taken over


@pytest.fixture
def distrustful():
    with WorkerPool(2, name="test-worker", answers=answers) as pool:
        yield pool


def test_a_distrustful_pool_runs_tasks_and_passes_reports_on(distrustful):
    reports = queue.SimpleQueue()
    with work.Rendezvous() as rendezvous:
        task = distrustful.run(work.report_all_then_wait, ([1, "b"], rendezvous.address), on_report=reports.put)
        with rendezvous.next() as worker:
            assert [reports.get(timeout=TIMEOUT), reports.get(timeout=TIMEOUT)] == [1, "b"]
            worker.answer("done")
        assert task.get(timeout=TIMEOUT) == "done"
    with pytest.raises(ValueError, match="no"):
        distrustful.run(work.fail_with, ValueError("no")).get(timeout=TIMEOUT)


def test_a_pickle_is_never_loaded(distrustful, tmp_path):
    directory = str(tmp_path / "made")

    with pytest.raises(RuntimeError, match="RunsCode is no type that may be sent"):
        distrustful.run(work.answer_with_code, directory).get(timeout=TIMEOUT)
    evil = message(RESULT, 0, pickle.dumps(work.RunsCode(directory)))
    for number in range(10):  # one of these is the task's own
        task = distrustful.run(work.send_packets, [evil[:1] + number.to_bytes(8) + evil[9:]])
        task.recover(lambda future: future.error()).get(timeout=TIMEOUT)

    assert not os.path.exists(directory)


@pytest.mark.parametrize(
    "packets",
    [
        [b"\0\0\0\0"], [b"x"], [RESULT], [message(RESULT, 0, b"1")], [message(REPORT, 0, b"1")],
        [ANNOUNCING + (1 << 40).to_bytes(8)], [ANNOUNCING + (1).to_bytes(8)], [ANNOUNCING + (0).to_bytes(8) + b"1"],
        [ANNOUNCING + b"\xff" * 60_000], [ANNOUNCING],
        [ANNOUNCING + (PACKET_BYTES + 1).to_bytes(8), bytes(10), bytes(60_000), bytes(60_000)],
        [ANNOUNCING + (PACKET_BYTES + 1).to_bytes(8) + bytes(PACKET_BYTES - HEADER_BYTES), bytes(60_000)],
    ],
)  # fmt: skip
def test_a_worker_that_sends_what_none_sends_is_killed_and_costs_nobody_else(distrustful, packets):
    reports = queue.SimpleQueue()
    with work.Rendezvous() as rendezvous:
        other = distrustful.run(work.report_all_then_wait, ([1], rendezvous.address), on_report=reports.put)
        with rendezvous.next() as worker:
            with pytest.raises(WorkerAnswerError, match="distrust its input"):
                distrustful.run(work.send_packets, packets).get(timeout=TIMEOUT)
            assert reports.get(timeout=TIMEOUT) == 1
            worker.answer("unharmed")
        assert other.get(timeout=TIMEOUT) == "unharmed"
    assert distrustful.run(work.double, 4).get(timeout=TIMEOUT) == 8


@pytest.mark.parametrize("children", [0, 3])
def test_a_worker_that_reports_without_end_holds_up_nobody(distrustful, children):
    body = answers.dump([[] for _ in range(400)])  # which takes longer to read than to send
    endless = distrustful.run(work.send_without_end, (message(REPORT, 1, body), children))  # it is the first task
    time.sleep(0.3)  # more waits than is ever read

    assert distrustful.run(work.double, 21).get(timeout=60) == 42
    endless.discard()
    assert endless.recover(lambda _: None).get(timeout=60) is None
    assert endless.is_discarded()


def test_an_answer_larger_than_may_be_is_not_taken(distrustful):
    with pytest.raises(WorkerAnswerError, match="1048576 are the most"):
        distrustful.run(bytes, 2 << 20).get(timeout=TIMEOUT)


def test_an_error_survives_with_where_it_was(distrustful):
    error = distrustful.run(work.fail_with, OddError("odd")).recover(lambda future: future.error()).get(timeout=TIMEOUT)

    assert "in fail_with" in error.__notes__[0]
