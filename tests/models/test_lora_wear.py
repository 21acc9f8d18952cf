"""A worn LoRA computes what merged weights compute, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.architectures import TINY, by_name
from models.lora_files import FORMATS, RandomLora
from models.wardrobe import Wardrobe, merged, near, predict, predict_as_is, weights
from wanreel.core.errors import BrokenWeights
from wanreel.core.lora import LoraRef, ResolvedLora, bucket_of
from wanreel.core.placement import Placement
from wanreel.models.tiny import build_tiny


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_equals_merged_weights(wardrobe: Wardrobe, format: str) -> None:
    spec = by_name("i2v-14b-480p")  # has every kind of layer
    model = build_tiny(spec)
    lora = RandomLora.of(model.experts[0].transformer)
    (applied,) = wardrobe.wear(model, wardrobe.put("x", lora, format))
    assert (applied.matched, applied.unmatched, applied.rank) == (len(lora.weights), 0, 4)
    base, ours = predict(model, (0.0,)), predict(model, (0.7,))
    assert near(ours, merged(spec, (lora, 0.7)))
    assert not near(ours, base, 1e-2)


@pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)
def test_every_architecture_equals_merged_weights(wardrobe: Wardrobe, spec: Any) -> None:
    model = build_tiny(spec)
    lora = RandomLora.of(model.experts[0].transformer).with_differences(model.experts[0].transformer)
    resolved = wardrobe.put("x", lora, "authors A B")
    for applied in wardrobe.wear(model, resolved):
        assert applied.unmatched == 0
    for index in range(len(model.experts)):
        assert near(predict(model, (1.5,), index), merged(spec, (lora, 1.5), expert=index))


def test_differences_are_applied(wardrobe: Wardrobe) -> None:
    """Without the norms and biases the result would be another."""
    spec = by_name("t2v-14b")
    model = build_tiny(spec)
    lora = RandomLora.of(model.experts[0].transformer)
    alone = merged(spec, (lora, 1.0))
    lora.with_differences(model.experts[0].transformer)
    wardrobe.wear(model, wardrobe.put("x", lora))
    assert not near(predict(model, (1.0,)), alone, 1e-2)


def test_several_loras_add_up_each_with_its_strength(wardrobe: Wardrobe) -> None:
    spec = by_name("t2v-14b")
    model = build_tiny(spec)
    transformer = model.experts[0].transformer
    first = RandomLora.of(transformer, seed=1, rank=3, alpha=5.0)
    second = RandomLora.of(transformer, seed=2, rank=20, alpha=4.0, every=2).with_differences(transformer)
    wardrobe.wear(model, wardrobe.put("first", first), wardrobe.put("second", second))
    assert near(predict(model, (0.5, -1.0)), merged(spec, (first, 0.5), (second, -1.0)))
    assert near(predict(model, (0.0, 2.0)), merged(spec, (second, 2.0)))
    assert near(predict(model, (0.5, 0.0)), merged(spec, (first, 0.5)))


@pytest.mark.parametrize("plan", ["resident", "exclusive", "streamed"])
def test_strength_zero_and_taking_off_give_back_every_bit(wardrobe: Wardrobe, plan: Any) -> None:
    spec = by_name("i2v-a14b")
    model = build_tiny(spec, placement=Placement(plan))
    plain = [predict(model, expert=index) for index in (0, 1)]
    before, modules = weights(model), dict(model.experts[0].transformer.named_modules())
    lora = RandomLora.of(model.experts[0].transformer).with_differences(model.experts[0].transformer)
    resolved = wardrobe.put("x", lora)
    wardrobe.wear(model, resolved)
    for index in (0, 1):
        assert not torch.equal(predict(model, (1.0,), index), plain[index])
        assert torch.equal(predict(model, (0.0,), index), plain[index])
    wardrobe.wear(model)
    for index in (0, 1):
        assert torch.equal(predict(model, expert=index), plain[index])
    after = weights(model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert dict(model.experts[0].transformer.named_modules()) == modules  # the very objects


def test_a_lora_for_one_expert_leaves_the_other_alone(wardrobe: Wardrobe) -> None:
    model = build_tiny(by_name("t2v-a14b"))
    plain = [predict(model, expert=index) for index in (0, 1)]
    wardrobe.put("x", RandomLora.of(model.experts[0].transformer))
    applied = wardrobe.wear(model, wardrobe.resolved("x", high=0.0, low=0.8))
    assert [it.expert for it in applied] == ["low"]
    assert applied[0].largest_scale == pytest.approx(0.4)
    assert torch.equal(predict(model, (1.0,), 0), plain[0])
    assert not torch.equal(predict(model, (1.0,), 1), plain[1])


def test_one_file_with_a_part_for_each_expert(wardrobe: Wardrobe) -> None:
    spec = by_name("t2v-a14b")
    model = build_tiny(spec)
    one, two = (RandomLora.of(model.experts[0].transformer, seed=seed) for seed in (1, 2))
    second = {name.replace("transformer.", "transformer_2.", 1): value for name, value in two.tensors().items()}
    path = wardrobe.shelf.root / "x.safetensors"
    path.parent.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file(one.tensors() | second, path)
    wardrobe.wear(model, wardrobe.resolved("x"))
    assert near(predict(model, (1.0,), 0), merged(spec, (one, 1.0), expert=0))
    assert near(predict(model, (1.0,), 1), merged(spec, (two, 1.0), expert=1))


def test_a_swap_copies_and_builds_nothing(wardrobe: Wardrobe) -> None:
    spec = by_name("t2v-14b")
    model = build_tiny(spec)
    transformer = model.experts[0].transformer
    loras = [RandomLora.of(transformer, seed=seed, rank=rank) for seed, rank in ((1, 4), (2, 11))]
    named = [wardrobe.put(f"x{number}", lora) for number, lora in enumerate(loras)]
    wardrobe.wear(model, named[0])
    first = {name: id(module) for name, module in transformer.named_modules()}
    buffers = {name: id(buffer) for name, buffer in transformer.named_buffers()}
    wardrobe.wear(model, named[1])
    assert {name: id(module) for name, module in transformer.named_modules()} == first
    assert {name: id(buffer) for name, buffer in transformer.named_buffers()} == buffers
    assert near(predict(model, (1.0,)), merged(spec, (loras[1], 1.0)))
    wardrobe.wear(model, named[0])
    assert near(predict(model, (1.0,)), merged(spec, (loras[0], 1.0)))


def test_what_is_worn_already_is_not_read_again(wardrobe: Wardrobe, monkeypatch: pytest.MonkeyPatch) -> None:
    import wanreel.models.wear as module

    model = build_tiny(by_name("t2v-14b"))
    lora = wardrobe.put("x", RandomLora.of(model.experts[0].transformer))
    wardrobe.wear(model, lora)
    wanted = predict(model, (1.0,))
    monkeypatch.setattr(module, "_shares", lambda *_: pytest.fail("read again"))
    wardrobe.wear(model, lora)
    assert torch.equal(predict(model, (1.0,)), wanted)


def test_buckets() -> None:
    assert [bucket_of(rank) for rank in (0, 1, 16, 17, 64, 65, 128, 129, 300)] == [
        0,
        16,
        16,
        32,
        64,
        128,
        128,
        256,
        384,
    ]


def test_a_strength_is_off_until_it_is_set(wardrobe: Wardrobe) -> None:
    model = build_tiny(by_name("t2v-14b"))
    plain = predict(model)
    lora = wardrobe.put("x", RandomLora.of(model.experts[0].transformer))
    wardrobe.wear(model, lora)
    predict(model, (1.0,))
    wardrobe.wear(model, lora)  # the next job, before its first step
    assert torch.equal(predict_as_is(model), plain)


def test_a_changed_file_is_refused_and_nothing_is_left_on(wardrobe: Wardrobe) -> None:
    model = build_tiny(by_name("t2v-14b"))
    plain = predict(model)
    lora = wardrobe.put("x", RandomLora.of(model.experts[0].transformer))
    wardrobe.wear(model, lora)
    wardrobe.put("x", RandomLora.of(model.experts[0].transformer, seed=9))
    with pytest.raises(BrokenWeights, match="another file"):
        wardrobe.wear(model, lora)
    assert model.worn == () and torch.equal(predict_as_is(model), plain)
    wardrobe.shelf.remove("x")
    with pytest.raises(BrokenWeights, match="no longer here"):
        wardrobe.wear(model, lora)


def test_another_base_is_refused(wardrobe: Wardrobe) -> None:
    demo = wardrobe.shelf.get("gold")
    lora = ResolvedLora("gold", wardrobe.shelf.sha256(demo), 1.0, 1.0)
    with pytest.raises(BrokenWeights, match="width 160"):
        wardrobe.wear(build_tiny(by_name("t2v-14b")), lora)


def test_nan_is_refused_when_it_is_read(wardrobe: Wardrobe) -> None:
    model = build_tiny(by_name("t2v-14b"))
    lora = RandomLora.of(model.experts[0].transformer)
    next(iter(lora.weights.values()))[0][0, 0] = float("nan")
    with pytest.raises(BrokenWeights, match="NaN"):
        wardrobe.wear(model, wardrobe.put("x", lora))


def test_refs_are_not_taken_for_loras_in_force(wardrobe: Wardrobe) -> None:
    assert ResolvedLora("x", "a" * 64, 1.0, 0.5, "0,1").as_ref() == LoraRef("x", 1.0, 0.5, 1.0, "0,1", "a" * 64)
