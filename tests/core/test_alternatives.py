"""What a person may choose between: every place where weights can wait, and fewer bits, with what each takes."""

from __future__ import annotations

from dataclasses import replace

from wanreel.core.alternatives import alternatives
from wanreel.core.catalog import Catalog
from wanreel.core.machines import Machine, card_named, machine_of_card
from wanreel.core.memory import plan_memory
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

WORK = Workload(Catalog().get("t2v-14b"), 832, 480, 81, 50, 2)
CARD = machine_of_card(card_named("RTX 3060"), host_gib=64)
ROOMY = machine_of_card(card_named("H200"), host_gib=256)


def test_every_place_is_told_and_whether_it_fits() -> None:
    found = alternatives(WORK, CARD, Wishes())
    assert [(plan.placement.plan, plan.placement.precision, plan.fits) for plan in found[:4]] == [
        ("resident", "native", False),
        ("encoders", "native", False),
        ("exclusive", "native", False),
        ("streamed", "native", True),
    ]
    assert [plan.placement.precision for plan in found[4:]] == ["fp8", "int8", "int4"]
    assert all(plan.fits and plan.gpu_bytes <= CARD.gpu_free for plan in found[3:])


def test_asking_for_one_gives_it() -> None:
    for plan in alternatives(WORK, ROOMY, Wishes()):
        asked = replace(Wishes(), offload=plan.placement.plan, precision=plan.placement.precision)
        assert plan_memory(WORK, ROOMY, asked).placement == plan.placement


def test_the_operators_choice_stays_and_small_models_have_none() -> None:
    found = alternatives(WORK, ROOMY, Wishes(mode="custom", offload="streamed", precision="int8", quantize=True))
    assert [(plan.placement.plan, plan.placement.precision) for plan in found] == [("streamed", "int8")]
    assert alternatives(WORK, Machine(host_free=1), Wishes()) == ()
    assert alternatives(replace(WORK, spec=Catalog().get("demo")), ROOMY, Wishes()) == ()
