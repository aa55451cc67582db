from __future__ import annotations

import pytest

from pykka_imagestore.runtime import InFlight, Promise, ready


@pytest.fixture
def promises():
    return [Promise(), Promise()]


@pytest.fixture
def pending(promises):
    pending = InFlight()
    for promise in promises:
        assert pending.add(promise.future) is promise.future
    return pending


def test_future_is_kept_until_it_is_final(pending, promises):
    assert set(pending) == {promise.future for promise in promises}

    promises[0].fail(LookupError())
    assert list(pending) == [promises[1].future]
    promises[1].set(1)
    assert list(pending) == []


def test_future_that_is_final_is_not_kept(pending):
    assert pending.add(ready(1)).get(timeout=0) == 1

    assert len(list(pending)) == 2


def test_ended_waits_for_those_that_are_pending_now_however_they_end(pending, promises):
    ended, later = pending.ended(), Promise()
    pending.add(later.future)

    promises[0].fail(LookupError())
    assert ended.is_pending()
    promises[1].discard()

    assert ended.get(timeout=0) is None
    assert list(pending) == [later.future]


def test_nothing_has_ended():
    assert InFlight().ended().is_ready()


def test_discard_asks_all_of_them(pending, promises):
    pending.discard()

    assert all(promise.future.has_discard() for promise in promises)
    assert len(list(pending)) == 2


def test_discard_of_the_future_of_ended_stops_nothing(pending, promises):
    pending.ended().discard()

    assert not any(promise.future.has_discard() for promise in promises)
