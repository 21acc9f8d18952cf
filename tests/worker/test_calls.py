"""A job that is called out to many idle workers is looked for by a few of them, and by nobody who is not meant."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

from wanreel.jobs.policy import COURTESY
from wanreel.worker.calls import Calls

ANSWER = 0.02  # seconds until a look has claimed the job and the others have heard of that


class Crowd:
    """Idle workers, of whom the first ones hold model a, with a clock that is moved by hand."""

    def __init__(self, count: int, holders: int, chance: Callable[[], float]) -> None:
        self.now = 0.0
        self.workers = [
            Calls(lambda model, _, number=number: number < holders and model == "a", lambda: self.now, chance)
            for number in range(count)
        ]
        for worker in self.workers:
            worker.listen()

    def say(self, *word: object) -> None:
        for worker in self.workers:
            worker.heard(json.dumps(word))

    def looks(self) -> list[tuple[int, float]]:
        """Who looks, and when, if the first one to look takes the job."""
        due = sorted((self.now + worker.left(), number) for number, worker in enumerate(self.workers))
        heard = due[0][0] + ANSWER
        self.now = heard
        self.say("job")
        assert all(worker.left() in (0.0, math.inf) for worker in self.workers)
        return [(number, at) for at, number in due if at <= heard]


def test_a_job_costs_a_few_looks_and_not_one_of_each_idle_worker() -> None:
    crowd = Crowd(2000, 0, random.Random(1).random)
    crowd.say("job", 2000, "b", "")
    looks = crowd.looks()
    assert 1 <= len(looks) < 100
    assert COURTESY <= looks[0][1] < COURTESY + 0.05


def test_who_holds_what_is_needed_looks_first() -> None:
    crowd = Crowd(100, 3, random.Random(2).random)
    crowd.say("job", 100, "a", "")
    looks = crowd.looks()
    assert {number for number, _ in looks} <= {0, 1, 2} and looks[0][1] < COURTESY / 2


def test_who_alone_is_idle_does_not_wait_for_others() -> None:
    crowd = Crowd(1, 0, lambda: 1.0)
    crowd.say("job", 1, "b", "")
    assert crowd.workers[0].left() <= 0.01


def test_each_job_is_waited_for_by_itself() -> None:
    crowd = Crowd(1, 1, lambda: 0.5)
    crowd.say("first", 40, "a", "")
    crowd.say("second", 40, "b", "")
    (worker,) = crowd.workers
    first = worker.left()
    crowd.say("first")
    assert first < worker.left() < math.inf


def test_who_is_busy_or_does_not_make_it_hears_nothing_and_an_empty_word_is_for_all() -> None:
    worker = Calls(lambda model, _: None if model == "x" else False, lambda: 0.0, lambda: 0.0)
    assert not worker.heard("") and worker.left() == math.inf
    worker.listen()
    assert not worker.heard(json.dumps(["job", 9, "x", ""])) and worker.left() == math.inf
    assert worker.heard(json.dumps(["job", 9, "y", ""])) and worker.left() == COURTESY
    assert worker.had_news() and not worker.had_news()
    assert worker.heard("") and worker.left() == 0.0
    worker.stop()
    assert worker.left() == math.inf
