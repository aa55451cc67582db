from __future__ import annotations

from pykka_imagestore.fs.unset_attributes import Unset, UnsetLog


def test_what_could_not_be_set_is_listed_up_to_a_length_and_counted():
    log = UnsetLog()

    for number in range(100):
        log.add(b"%d" % number, "x" * 100_000)
    unset = log.take()

    assert (len(unset.listed), unset.count) == (10, 100)


def test_what_could_not_be_set_is_listed_up_to_a_number_and_counted():
    log = UnsetLog()

    for number in range(1100):
        log.add(b"%d" % number, "owner")
    unset = log.take()

    assert (len(unset.listed), unset.count) == (1000, 1100)


def test_what_was_taken_leaves_room_for_more():
    log = UnsetLog()

    for _ in range(20):
        log.add(b"f", "x" * 100_000)
        assert log.take() == Unset(((b"f", "x" * 100_000),), 1)


def test_nothing_is_taken_twice():
    log = UnsetLog()
    log.add(b"f", "owner")
    log.take()

    assert log.take() == Unset()


def test_what_two_logs_collected_is_counted_once_and_listed_up_to_the_same_number():
    first, second, both = UnsetLog(), UnsetLog(), UnsetLog()
    for number in range(1100):
        first.add(b"a%d" % number, "owner")
    second.add(b"b", "mode")

    both.add_all(second.take())
    both.add_all(first.take())
    unset = both.take()

    assert unset.listed[:2] == ((b"b", "mode"), (b"a0", "owner"))
    assert (len(unset.listed), unset.count) == (1000, 1101)
