"""How several GPUs share a video: what may be asked for, what is chosen, and what it takes. Arithmetic alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanreel.core.catalog import Catalog
from wanreel.core.errors import SettingsError
from wanreel.core.machines import Machine, card_named, machine_of_card
from wanreel.core.memory import ladder
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.parallel import Parallel, ParallelWish, parse_gpus, parse_parallel, rank_devices
from wanreel.core.parallel_memory import group_ladder, group_price
from wanreel.core.parallel_plans import Arranging, exchange_seconds, parallels, step_seconds
from wanreel.core.placement import Placement, Tile
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload


def work_of(model: str = "i2v-a14b", *, size: tuple[int, int] = (1280, 720), passes: int = 2) -> Workload:
    return Workload(Catalog().get(model), *size, 81, 40, passes, 1)


def machine(card: str = "H200", gpus: int = 4, host_gib: float = 256) -> Machine:
    return replace(machine_of_card(card_named(card), host_gib=host_gib), gpus=gpus)


# What is asked for


def test_parts_are_read() -> None:
    assert parse_parallel("") == parse_parallel(" auto ") == ParallelWish()
    assert parse_parallel("each").spread == "each" and parse_parallel("together").spread == "together"
    wish = parse_parallel("CFG=2, ulysses=4,nofsdp")
    assert (wish.cfg, wish.ulysses, wish.ring, wish.fsdp, wish.spread) == (2, 4, None, False, "together")
    assert wish.ranks == 8 and wish.names_parts and not ParallelWish(fsdp=True).names_parts


@pytest.mark.parametrize(
    "text",
    ["cfg", "cfg=", "cfg=0", "cfg=3", "ulysses=-1", "cfg=1,cfg=2", "fsdp,nofsdp", "each,cfg=2", "tp=2", "cfg=2;ring=2"],
)
def test_what_is_no_plan_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="parallel: "):
        parse_parallel(text)


def test_gpus_are_read() -> None:
    assert parse_gpus("") == parse_gpus("all") == () and parse_gpus("3, 1") == (3, 1)
    for text in ("0,0", "a", "0,", "-1", "0-3"):
        with pytest.raises(SettingsError, match="gpus: "):
            parse_gpus(text)


def test_ranks_have_devices() -> None:
    auto = ParallelWish()
    assert rank_devices("auto", "", auto, 2) == ("cuda:0", "cuda:1")
    assert rank_devices("cuda", "3,1", auto, 4) == ("cuda:3", "cuda:1")
    assert rank_devices("cpu", "", parse_parallel("cfg=2,ring=2"), 0) == ("cpu",) * 4
    for given_, said in (
        (("auto", "", auto, 1), "this machine has 1"),
        (("auto", "", auto, 0), "this machine has none"),
        (("auto", "0", auto, 4), "named is 1"),
        (("auto", "0,4", auto, 4), "no GPU 4: this machine has 4, numbers 0 to 3"),
        (("auto", "", parse_parallel("ulysses=3"), 4), "ulysses 3 makes 3, and there are 4 GPUs"),
        (("auto", "", parse_parallel("cfg=1,ulysses=1,ring=2"), 4), "makes 2, and there are 4 GPUs"),
        (("cpu", "", auto, 0), "needs at least two"),
    ):
        with pytest.raises(SettingsError, match=said):
            rank_devices(*given_)


# Words


def test_a_plan_s_words() -> None:
    plan = Parallel(2, 2, 1, fsdp=True)
    assert str(plan) == "4 ranks: cfg 2, ulysses 2, fsdp" and str(Parallel()) == ""
    assert plan.arithmetic == "ulysses 2" and Parallel(cfg=2, fsdp=True).arithmetic == ""
    assert Parallel.from_dict(plan.to_dict()) == plan
    placement = Placement("resident", tile=Tile(64, 64), parallel=plan, compiled=True)
    assert Placement.from_dict(placement.to_dict()) == placement
    assert str(placement).endswith("compiled, 4 ranks: cfg 2, ulysses 2, fsdp")
    other = replace(placement, parallel=Parallel(1, 1, 4, fsdp=True))
    assert placement.loading == other.loading, "passes and parts change from run to run"
    assert placement.loading != replace(placement, parallel=Parallel(2, 2)).loading


@pytest.mark.parametrize(
    ("plan", "heads", "expected"),
    [
        (Parallel(2, 2), 40, Parallel(1, 4)),
        (Parallel(2, 4), 12, Parallel(1, 4, 2)),
        (Parallel(2), 12, Parallel(1, 2)),
        (Parallel(1, 4), 12, Parallel(1, 4)),
    ],
)
def test_a_step_of_one_pass_keeps_all_ranks(plan: Parallel, heads: int, expected: Parallel) -> None:
    assert plan.unguided(heads) == expected and expected.ranks == plan.ranks


# What is chosen


@given(
    ranks=st.integers(1, 16),
    model=st.sampled_from(["i2v-a14b", "t2v-1.3b", "ti2v-5b", "tiny:t2v-1.3b"]),
    passes=st.sampled_from([1, 2]),
    card=st.sampled_from(["H200", "RTX 4090"]),
)
def test_every_plan_makes_the_ranks_there_are(ranks: int, model: str, passes: int, card: str) -> None:
    work, on = work_of(model, passes=passes), machine(card, ranks)
    found = parallels(work, on, ranks)
    assert found and all(it.ranks == ranks and it.cfg <= passes for it in found)
    seconds = [step_seconds(work, on, it) for it in found]
    assert seconds == sorted(seconds)
    assert seconds[0] >= step_seconds(work, on, Parallel()) / ranks * 0.999, "nothing is faster than its share"


def test_passes_come_first_as_they_exchange_nothing() -> None:
    for ranks in (2, 4, 8):
        assert parallels(work_of(), machine(gpus=ranks), ranks)[0].cfg == 2
    assert exchange_seconds(work_of(), machine(), Parallel(cfg=2)) == 0
    assert parallels(work_of(passes=1), machine(), 4)[0].cfg == 1


def test_heads_that_do_not_divide_are_no_ulysses_s_first_choice() -> None:
    """The 1.3B model has 12: eight Ulysses ranks would compute 16."""
    best = parallels(work_of("t2v-1.3b", passes=1), machine(gpus=8), 8)[0]
    assert 12 % best.ulysses == 0 and best.ring > 1
    padded = step_seconds(work_of("t2v-1.3b"), machine(), Parallel(ulysses=8))
    assert padded > step_seconds(work_of("t2v-1.3b"), machine(), Parallel(1, 4, 2))


def test_a_slow_link_costs() -> None:
    work, plan = work_of(), Parallel(ulysses=4)
    fast, slow = machine("H200"), replace(machine("H200"), link_rate=5e9)
    assert step_seconds(work, slow, plan) > 1.3 * step_seconds(work, fast, plan)
    assert step_seconds(work, slow, Parallel(cfg=2)) == step_seconds(work, fast, Parallel(cfg=2))


def test_what_the_operator_names_is_kept() -> None:
    work, on = work_of(), machine()
    assert set(parallels(work, on, 4, parse_parallel("ring=4"))) == {Parallel(ring=4)}
    assert {it.ulysses for it in parallels(work, on, 4, parse_parallel("ulysses=2"))} == {2}
    with pytest.raises(SettingsError, match="cfg 2 × ulysses 3 makes 6, and there are 4"):
        parallels(work, on, 4, parse_parallel("cfg=2,ulysses=3"))
    plans = group_ladder(work_of(passes=1), on, Wishes(parallel=parse_parallel("cfg=2,ulysses=2")))
    assert plans[0].placement.parallel.cfg == 2, "also for a request of one pass, whose ranks then share its tokens"


# What it takes


def bytes_of(plan: MemoryPlan, stage: str) -> int:
    found = plan.stage(stage)
    assert found is not None
    return found.peak


def test_one_gpu_plans_as_before() -> None:
    work, one = work_of(), machine(gpus=1)
    assert group_ladder(work, one) == ladder(work, one)


def test_four_gpus_are_nearly_four_times_as_fast() -> None:
    one, four = ladder(work_of(), machine(gpus=1))[0], group_ladder(work_of(), machine())[0]
    assert 3.6 < one.step_seconds / four.step_seconds <= 4
    assert four.placement.parallel.cfg == 2 and not four.placement.parallel.fsdp
    assert 2 < one.decode_seconds / four.decode_seconds <= 4
    assert any("times as fast" in reason for reason in four.reasons)
    assert "4 ranks" in four.to_dict()["name"] and four.to_dict()["parallel"]["ranks"] == 4  # type: ignore[index,operator]


def test_weights_are_shared_out_where_they_do_not_fit() -> None:
    plan = group_ladder(work_of(), machine("L40S"), Wishes(offload="resident"))[0]
    assert plan.placement.plan == "resident" and plan.placement.parallel.fsdp and plan.fits
    assert any("each holds its share" in reason for reason in plan.reasons)
    whole = group_price(work_of(), machine("L40S"), replace(plan.placement, parallel=Parallel(2, 2)))
    assert not whole.fits and bytes_of(plan, "text") < 0.5 * bytes_of(whole, "text")
    assert group_price(work_of(), machine("L40S"), plan.placement).gpu_bytes == plan.gpu_bytes
    never = group_ladder(work_of(), machine("L40S"), Wishes(parallel=parse_parallel("nofsdp")))[0]
    assert not never.placement.parallel.fsdp
    always = group_ladder(work_of(), machine(), Wishes(parallel=parse_parallel("fsdp")))
    assert all(it.placement.parallel.fsdp for it in always)


def test_tokens_in_parts_take_less() -> None:
    whole = group_price(work_of(), machine(), Placement(parallel=Parallel(cfg=2)))
    parts = group_price(work_of(), machine(), Placement(parallel=Parallel(ulysses=4)))
    denoise = [it.stage("denoise").activations for it in (whole, parts)]  # type: ignore[union-attr]
    assert denoise[1] < 0.4 * denoise[0]
    assert bytes_of(parts, "decode") < bytes_of(ladder(work_of(), machine(gpus=1))[0], "decode")


def test_where_nothing_fits_it_is_said() -> None:
    plan = group_ladder(work_of(), machine("RTX 3060", gpus=2, host_gib=8), Wishes(offload="resident"))[0]
    assert not plan.fits and "does not fit" in plan.reasons[0] and "each of 2" in plan.reasons[0]


def test_small_models_and_cpus_share_too() -> None:
    plans = group_ladder(work_of("tiny:t2v-1.3b"), Machine(gpus=2, host_free=8 * 2**30))
    assert plans[0].placement.parallel == Parallel(cfg=2)
    assert len({str(plan.placement) for plan in plans}) == len(plans)


# One on all, or one on each


def test_a_deep_queue_gets_a_gpu_each_and_a_short_one_all() -> None:
    four = Arranging(4, efficiency=0.9, switch_seconds=60)
    assert four.wanted("together", 1, 600) == "together"
    assert four.wanted("together", 8, 600) == "each", "8 of 600 s: 1,333 s together, 1,200 s each"
    assert four.wanted("together", 8, 60) == "together", "what is gained is less than the change costs"
    assert four.wanted("each", 1, 600) == "together" and four.wanted("each", 8, 600) == "each"
    assert four.wanted("each", 0, 600) == "each", "with nothing to do nothing is changed"


@given(seconds=st.floats(0, 10_000), gpus=st.integers(2, 8), deep=st.integers(2, 60))
def test_a_queue_that_empties_changes_them_once(seconds: float, gpus: int, deep: int) -> None:
    """Whatever does not divide by the number of GPUs on the way is no reason to go over and back."""
    rule, now, changes = Arranging(gpus), "together", list[str]()
    for waiting in range(deep, -1, -1):
        if (wanted := rule.wanted(now, waiting, seconds)) != now:
            changes.append(wanted)
            now = wanted
    assert changes in ([], ["each"], ["each", "together"])


@given(waiting=st.integers(0, 50), seconds=st.floats(0, 10_000), gpus=st.integers(2, 8))
def test_it_never_goes_back_and_forth(waiting: int, seconds: float, gpus: int) -> None:
    rule = Arranging(gpus)
    once = rule.wanted("together", waiting, seconds)
    assert rule.wanted(once, waiting, seconds) == once
