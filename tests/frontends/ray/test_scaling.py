"""How pools grow, shrink, change over and make room for each other, without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanreel.core.catalog import Catalog
from wanreel.core.errors import SettingsError
from wanreel.frontends.ray.plan import I2V_MODEL, T2V_MODEL, Pace, Plan, Pool, defaults_for, dual
from wanreel.frontends.ray.scaling import Demand, Member, State, moves

CATALOG = Catalog()
PACE = Pace(target=100.0, idle=60.0, turn=50.0)
A, B = Pool("a", ("t2v-1.3b",), most=4), Pool("b", ("i2v-14b-480p",), most=4)


def member(
    name: str, state: State, pool: str = "a", *, generation: int = 1, since: float = 0.0, age: float = 0.0
) -> Member:
    return Member(name, pool, state, generation, since, age)


def test_a_pool_has_the_workers_that_finish_its_line_in_time() -> None:
    assert moves([A], [], {"a": Demand(10, 250.0)}, 1, PACE).start == ("a",) * 3
    assert moves([A], [], {"a": Demand(10, 5000.0)}, 1, PACE).start == ("a",) * 4, "no more than allowed"
    assert moves([A], [], {"a": Demand(2, 5000.0)}, 1, PACE).start == ("a",) * 2, "no more than jobs"
    assert moves([A], [], {"a": Demand(2, None)}, 1, PACE).start == ("a",) * 2, "of unknown length: one each"
    busy = [member("x", "busy"), member("y", "busy")]
    assert moves([A], busy, {"a": Demand(1, 10.0)}, 1, PACE).start == ("a",)
    assert moves([A], [*busy, member("z", "idle")], {"a": Demand(1, 10.0)}, 1, PACE).start == ()
    assert moves([replace(A, least=2)], [], {}, 1, PACE).start == ("a",) * 2


def test_idle_workers_leave_after_a_while_and_busy_ones_stay() -> None:
    members = [member("x", "idle", since=61.0), member("y", "idle", since=5.0), member("z", "busy", since=900.0)]
    assert moves([A], members, {}, 1, PACE).retire == ("x",)
    assert moves([replace(A, least=3)], members, {}, 1, PACE).retire == ()
    assert moves([A], members, {"a": Demand(5, 900.0)}, 1, PACE).retire == (), "there is work"


def test_what_waits_for_a_place_in_vain_is_taken_back() -> None:
    assert moves([A], [member("x", "waiting"), member("y", "gone")], {}, 1, PACE).remove == ("y", "x")


def test_an_update_first_shows_that_the_new_one_works() -> None:
    old = [member("old", "busy"), member("older", "idle")]
    first = moves([A], old, {"a": Demand(1, 1.0)}, 2, PACE)
    assert first.start and not first.retire
    starting = [*old, member("new", "starting", generation=2)]
    assert moves([A], starting, {"a": Demand(1, 1.0)}, 2, PACE).retire == (), "it has not shown that it starts"
    working = [*old, member("new", "idle", generation=2)]
    assert set(moves([A], working, {"a": Demand(1, 1.0)}, 2, PACE).retire) == {"old", "older"}
    assert moves([A], [member("older", "idle")], {}, 2, PACE).retire == ("older",), "nothing is wanted at all"


def test_without_a_place_for_the_new_one_a_single_old_one_makes_it() -> None:
    members = [member("x", "busy"), member("y", "busy"), member("new", "waiting", generation=2)]
    assert moves([A], members, {"a": Demand(3, 300.0)}, 2, PACE).retire == ("x",)
    members[0] = member("x", "leaving")
    assert moves([A], members, {"a": Demand(3, 300.0)}, 2, PACE).retire == ()


def test_a_pool_without_a_worker_gets_a_place_after_a_turn() -> None:
    members = [member("x", "busy", age=49.0), member("mine", "waiting", "b"), member("more", "waiting")]
    demands = {"a": Demand(9, 900.0), "b": Demand(1, 10.0)}
    soon = moves([A, B], members, demands, 1, PACE)
    assert soon.retire == () and "more" in soon.remove, "the place is for the other pool"
    members[0] = member("x", "busy", age=51.0)
    assert moves([A, B], members, demands, 1, PACE).retire == ("x",)
    members[0] = member("x", "idle", age=1.0)
    assert moves([A, B], members, {"b": Demand(1, 10.0)}, 1, PACE).retire == ("x",), "it has nothing to do"
    members[0] = member("x", "leaving")
    assert moves([A, B], members, demands, 1, PACE).retire == (), "one is on its way"


@dataclass
class Floor:
    """So many places, workers on them, and two lines of jobs; a second a tick."""

    places: int
    lines: dict[str, int]
    generation: int = 1
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    left: dict[str, int] = field(default_factory=dict[str, int])  #: seconds of the running job
    done: int = 0
    count: int = 0

    def tick(self, length: int) -> None:
        for name in list(self.members):
            self.age(name)
        for name, it in list(self.members.items()):
            held = sum(m.state not in ("waiting", "gone") for m in self.members.values())
            if it.state == "waiting" and held < self.places:
                self.members[name] = replace(it, state="idle", since=0, age=0)
            if self.members[name].state == "idle" and self.lines[it.pool]:
                self.lines[it.pool] -= 1
                self.left[name] = length
                self.members[name] = replace(self.members[name], state="busy", since=0)
        self.follow({name: Demand(count, count * float(length)) for name, count in self.lines.items()})

    def age(self, name: str) -> None:
        it = self.members[name]
        it = replace(it, since=it.since + 1, age=it.age + 1 if it.state != "waiting" else 0)
        over = it.state == "leaving"
        if name in self.left:
            self.left[name] -= 1
            over = over and not self.left[name]
            if not self.left[name]:
                del self.left[name]
                self.done += 1
                it = replace(it, state="idle", since=0)
        self.members[name] = replace(it, state="gone") if over else it

    def follow(self, demands: dict[str, Demand]) -> None:
        wanted = moves([A, B], list(self.members.values()), demands, self.generation, PACE)
        for name in wanted.remove:
            assert name not in self.left, "a busy worker was ended"
            del self.members[name]
        for name in wanted.retire:
            self.members[name] = replace(self.members[name], state="leaving")
        for pool in wanted.start:
            self.count += 1
            self.members[f"{pool}{self.count}"] = Member(f"{pool}{self.count}", pool, "waiting", self.generation)


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(0, 12), st.integers(0, 12), st.integers(1, 40), st.integers(0, 120))
def test_every_line_empties_on_any_number_of_places_through_an_update(
    places: int, a: int, b: int, length: int, at: int
) -> None:
    floor = Floor(places, {"a": a, "b": b})
    for second in range((a + b + 2) * (length + 60) + 400):
        floor.generation = 2 if second >= at else 1
        floor.tick(length)
    assert floor.done == a + b and not any(floor.lines.values())
    assert floor.members == {}, "down to zero"


def test_plans_are_read_as_operators_write_them() -> None:
    pool = Pool.parse("text=t2v-1.3b,Wan-AI/Wan2.1-T2V-14B-Diffusers gpus=0.5 workers=1-3", CATALOG)
    assert pool == Pool("text", ("t2v-1.3b", "t2v-14b"), 0.5, None, 1, 3)
    assert Pool.parse("two=tiny:ti2v-5b gpus=2 cpus=4 workers=2", CATALOG) == Pool(
        "two", ("tiny:ti2v-5b",), 2.0, 4.0, 2, 2
    )
    assert pool.settled(has_gpus=True).cpus == 0.0 and Pool("x", ("demo",)).settled(has_gpus=False).cpus == 1.0
    for text in ("", "t2v", "T=demo", "a=nothing-like-it", "a=demo gpus=1.5", "a=demo workers=3-1", "a=demo x=1"):
        with pytest.raises(SettingsError):
            Pool.parse(text, CATALOG)


def test_two_pools_by_default_and_one_where_one_model_makes_both() -> None:
    plan = Plan(dual(T2V_MODEL, I2V_MODEL, CATALOG))
    assert plan.models == ("fastwan2.1-t2v-1.3b", "i2v-14b-480p")
    found = defaults_for(plan, CATALOG)
    assert (found["default_text_model"], found["default_picture_model"]) == plan.models
    assert [pool.name for pool in dual("ti2v-5b", "ti2v-5b", CATALOG)] == ["all"]
    with pytest.raises(SettingsError, match="made by two pools"):
        Plan((Pool("a", ("demo",)), Pool("b", ("demo",))))
