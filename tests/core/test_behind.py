"""Behind works in order, passes errors on, and never leaves its thread or its giver waiting."""

from __future__ import annotations

import threading

import pytest

from wanreel.core.behind import Behind
from wanreel.core.errors import Cancelled


def test_everything_is_worked_on_in_order_by_the_end_of_the_block() -> None:
    done: list[int] = []
    with Behind(done.append) as behind:
        for number in range(50):
            behind.put(number)
    assert done == list(range(50))


def test_the_giver_goes_on_while_work_is_done() -> None:
    began, go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        began.set()
        assert go.wait(5)

    with Behind(work) as behind:
        behind.put(1)
        assert began.wait(5)
        behind.put(2)  # not held up by the first
        go.set()


def test_an_error_comes_out_and_ends_the_work() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise Cancelled("enough")
        done.append(number)

    with pytest.raises(Cancelled, match="enough"), Behind(work) as behind:
        for number in range(1000):
            behind.put(number)
    assert done == [0, 1, 2]


def test_an_error_in_the_last_piece_comes_out_too() -> None:
    def work(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="7"), Behind(work) as behind:
        behind.put(7)


def test_a_block_that_fails_waits_for_the_piece_at_hand_alone() -> None:
    began, go = threading.Event(), threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        began.set()
        assert go.wait(5)
        done.append(number)

    with pytest.raises(KeyError, match="left"), Behind(work, ahead=3) as behind:
        for number in range(3):
            behind.put(number)
        assert began.wait(5)
        threading.Timer(0.05, go.set).start()
        raise KeyError("left")
    assert done == [0]
    assert not any(thread.name.startswith("behind") for thread in threading.enumerate())
