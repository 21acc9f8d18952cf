"""Our block loop computes what Diffusers' own forward computes, to the bit, and can be stopped inside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.architectures import TINY, Inputs, by_name, inputs_for
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import Cancelled
from wanreel.core.placement import Placement
from wanreel.models.expert import Expert, _collapsed
from wanreel.models.tiny import build_tiny

each_architecture = pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)


@torch.no_grad()
def diffusers_forward(expert: Expert, given: Inputs) -> Tensor:
    return expert.transformer(given.latents, given.timestep, given.text, given.image, return_dict=False)[0]


def predict(expert: Expert, given: Inputs, cancel: CancelToken | None = None) -> Tensor:
    return expert.predict(given.latents, given.timestep, given.text, given.image, cancel or CancelToken())


@each_architecture
@pytest.mark.parametrize("first_frame", [True, False])
def test_equals_diffusers_to_the_bit(spec: ModelSpec, first_frame: bool) -> None:
    model = build_tiny(spec)
    given = inputs_for(model, first_frame=first_frame)
    for expert in model.experts:
        assert torch.equal(predict(expert, given), diffusers_forward(expert, given))


@pytest.mark.parametrize("name", ["t2v-14b", "ti2v-5b", "i2v-a14b"])
def test_equals_diffusers_in_bf16(name: str) -> None:
    model = build_tiny(by_name(name))
    given = inputs_for(model)
    expert = model.experts[0]
    kept = expert.transformer._keep_in_fp32_modules
    for key, parameter in expert.transformer.named_parameters():
        if not any(part in key.split(".") for part in kept):
            parameter.data = parameter.data.bfloat16()
    given = Inputs(given.latents.bfloat16(), given.timestep, given.text.bfloat16(), given.image)
    ours = predict(expert, given)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, diffusers_forward(expert, given))


def test_equals_diffusers_for_a_batch() -> None:
    model = build_tiny(by_name("ti2v-5b"))
    given = inputs_for(model, batch=2)
    assert torch.equal(predict(model.experts[0], given), diffusers_forward(model.experts[0], given))


def test_the_first_frame_matters() -> None:
    """Guards the two TI2V cases above: they must not be the same case."""
    model = build_tiny(by_name("ti2v-5b"))
    results = [predict(model.experts[0], inputs_for(model, first_frame=flag)) for flag in (True, False)]
    assert not torch.equal(*results)


def test_a_uniform_timestep_reaches_the_blocks_as_one_row() -> None:
    model = build_tiny(by_name("ti2v-5b"))
    expert, seen = model.experts[0], []
    expert.transformer.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[2].shape))
    predict(expert, inputs_for(model, first_frame=False))
    predict(expert, inputs_for(model, first_frame=True))
    assert [shape[1] for shape in seen] == [1, 36]


def test_rows_that_differ_are_kept() -> None:
    rows = torch.ones(1, 3, 2)
    assert _collapsed(rows).shape == (1, 1, 2)
    rows[0, 2, 1] = torch.nextafter(rows[0, 2, 1], torch.tensor(2.0))
    assert _collapsed(rows) is rows


@each_architecture
def test_streamed_blocks_give_the_same_bits(spec: ModelSpec) -> None:
    resident, streamed = build_tiny(spec), build_tiny(spec, placement=Placement("streamed"))
    given = inputs_for(resident)
    for _ in range(2):  # the second walk begins with the block that the first one brought back
        for one, other in zip(resident.experts, streamed.experts, strict=True):
            assert torch.equal(predict(one, given), predict(other, given))


def test_experts_of_a_pair_differ() -> None:
    model = build_tiny(by_name("i2v-a14b"))
    given = inputs_for(model)
    assert not torch.equal(*(predict(expert, given) for expert in model.experts))


class CancelAtCheck(CancelToken):
    """Cancels itself at the n-th check."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.cancel()
        super().check()


@pytest.mark.parametrize("plan", ["resident", "exclusive", "streamed"])
def test_cancel_stops_before_the_next_block_and_leaves_no_trace(plan: str) -> None:
    model = build_tiny(by_name("t2v-14b"), placement=Placement(plan))  # type: ignore[arg-type]
    expert, given, ran = model.experts[0], inputs_for(model), []
    whole = predict(expert, given)
    for index, block in enumerate(expert.transformer.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    for at, expected in ((1, []), (2, []), (3, [0])):
        ran.clear()
        with pytest.raises(Cancelled):
            predict(expert, given, CancelAtCheck(at))
        assert ran == expected
    assert torch.equal(predict(expert, given), whole)


def test_no_gradients_are_kept() -> None:
    model = build_tiny(by_name("t2v-14b"))
    assert not predict(model.experts[0], inputs_for(model)).requires_grad


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own imports
def test_compiled_blocks_agree() -> None:
    model = build_tiny(by_name("ti2v-5b"))
    given = inputs_for(model)
    plain = predict(model.experts[0], given)
    model.experts[0].compile_blocks(dynamic=True)
    torch.testing.assert_close(predict(model.experts[0], given), plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("pinned", [True, False])
def test_streamed_blocks_give_the_same_bits_on_a_gpu(pinned: bool) -> None:
    spec = by_name("i2v-a14b")
    resident = build_tiny(spec, device="cuda")
    streamed = build_tiny(spec, device="cuda", placement=Placement("streamed", pinned=pinned))
    given = inputs_for(resident)
    for _ in range(3):
        for one, other in zip(resident.experts, streamed.experts, strict=True):
            assert torch.equal(predict(one, given), predict(other, given))
