from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.rootfs.tickets import Tickets


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_each_number_is_drawn_once_in_order(directory):
    with closing(Tickets(directory, 0, 2)) as first, closing(Tickets(directory, 1, 2)) as second:
        assert [first.begin(), second.begin(), second.draw(), first.draw(), first.draw()] == [0, 1, 2, 3, 4]


def test_who_begins_again_has_the_number_that_was_drawn_last(directory):
    for expected in (0, 0):
        with closing(Tickets(directory, 0, 2)) as tickets:
            assert tickets.begin() == expected
    with closing(Tickets(directory, 1, 2)) as others:
        assert [others.begin(), others.draw()] == [1, 2]
    with closing(Tickets(directory, 0, 2)) as tickets:
        assert [tickets.begin(), tickets.draw()] == [0, 3]


def test_who_is_done_with_the_last_of_some_numbers_learns_that(directory):
    with closing(Tickets(directory, 0, 2)) as first, closing(Tickets(directory, 1, 2)) as second:
        assert not first.finish(5, range(4, 7))
        assert not first.finish(8, range(7, 9))
        assert not second.finish(6, range(4, 7))
        assert second.finish(4, range(4, 7))
        assert first.finish(5, range(4, 7))


def test_drawers_in_threads_exclude_each_other(directory):
    def draw(number):
        with closing(Tickets(directory, number, 4)) as tickets:
            numbers = [tickets.begin()]
            while numbers[-1] < 200:
                time.sleep(0)
                numbers.append(tickets.draw())
            return numbers[:-1]

    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(draw, range(4), timeout=TIMEOUT))

    assert sorted(number for numbers in drawn for number in numbers) == list(range(200))


def test_of_those_who_end_at_once_one_alone_learns_that_all_is_done(directory):
    count, together = 20_000, threading.Barrier(2)

    def finish(number):
        with closing(Tickets(directory, number, 2)) as tickets:
            learnt = []
            for first in range(0, 2 * count, 2):
                together.wait(TIMEOUT)
                learnt.append(tickets.finish(first + number, range(first, first + 2)))
            return learnt

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(finish, range(2), timeout=TIMEOUT)

    assert [one + other for one, other in zip(first, second, strict=True)] == [1] * count
