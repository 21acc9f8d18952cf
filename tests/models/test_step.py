"""The step's own path: what Diffusers computes within a stated bound, compiled once for all sizes, fp8 within 0.10."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.eval_frame import innermost_fn

from models.architectures import TINY, Inputs, by_name, inputs_for
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.core.workload import Workload
from wanreel.generation.environment import environment_of
from wanreel.models import eight, step_bench
from wanreel.models.eight import (
    FP8,
    Mixed,
    Scaled,
    by_rows,
    centred,
    middle,
    product,
    sampled,
    spread,
    whole,
    wide,
)
from wanreel.models.expert import Expert
from wanreel.models.quantize import StoredLinear, quantize
from wanreel.models.step import kernels, path
from wanreel.models.step.block import step_block
from wanreel.models.step.kernels import KERNELS, Eighths, Kernel, emulated_eight, torch_attend, usable
from wanreel.models.step.own import Own
from wanreel.models.step.path import Compiler, Manner, StepPath
from wanreel.models.step.trial import Rows, fault_of, reference, works
from wanreel.models.step_bench import Variant, bench_step, error_of
from wanreel.models.suit import steps_of, suit
from wanreel.models.tiny import build_tiny

PLAIN = Manner("torch", "torch", compiled=False)
COMPILED = Manner("torch", "torch")
BOUND = 1e-6  #: in fp32, relative; bf16 on an H200: 0.022 (docs/speed.md)
EMULATED = Kernel("emulated", "", "rounded", lambda: Eighths(emulated_eight))


def predict(expert: Expert, given: Inputs) -> Tensor:
    return expert.predict(given.latents, given.timestep, given.text, given.image, CancelToken())


@pytest.fixture
def more_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Kernel], None]]:
    def add(kernel: Kernel) -> None:
        monkeypatch.setattr(kernels, "KERNELS", (*kernels.KERNELS, kernel))

    kernels.attend_of.cache_clear()
    yield add
    kernels.attend_of.cache_clear()


@pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)
@pytest.mark.parametrize("first_frame", [True, False])
def test_agrees_with_diffusers(spec: ModelSpec, first_frame: bool) -> None:
    model = build_tiny(spec)
    given = inputs_for(model, first_frame=first_frame)
    for expert in model.experts:
        wanted = predict(expert, given)
        expert.step = StepPath(expert, PLAIN)
        assert error_of(predict(expert, given), wanted) < BOUND


def test_streamed_blocks_agree() -> None:
    spec = by_name("t2v-a14b")
    resident, streamed = build_tiny(spec), build_tiny(spec, placement=Placement("streamed"))
    given = inputs_for(resident)
    streamed.experts[0].step = StepPath(streamed.experts[0], PLAIN)
    for _ in range(2):
        assert error_of(predict(streamed.experts[0], given), predict(resident.experts[0], given)) < BOUND


class Counting:
    """Runs the graph as it is and keeps it."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo's own
def test_twenty_sizes_are_one_compilation() -> None:
    model, backend = build_tiny(by_name("t2v-14b")), Counting()
    expert, given, draw = model.experts[0], inputs_for(model), torch.Generator().manual_seed(5)
    compiler = Compiler(backend)
    path, plain = StepPath(expert, COMPILED, compiler), StepPath(expert, PLAIN)
    for _ in range(20):
        height, width = (2 * int(it) for it in torch.randint(2, 9, (2,), generator=draw))
        latents = torch.randn(1, given.latents.shape[1], 2, height, width, generator=draw)
        found, wanted = (
            it.forward(latents, given.timestep, given.text, None, lambda: None).detach() for it in (path, plain)
        )
        assert error_of(found, wanted) < BOUND
    assert (compiler.compilations, len(backend.graphs), compiler.failure) == (1, 1, "")


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own imports
def test_compiled_by_inductor_agrees() -> None:
    model = build_tiny(by_name("i2v-14b-480p"))
    expert, given = model.experts[0], inputs_for(model)
    wanted = predict(expert, given)
    expert.step = StepPath(expert, COMPILED)
    assert error_of(predict(expert, given), wanted) < BOUND
    assert expert.step.compiler.failure == ""


def test_a_compiler_that_fails_is_gone_on_without(caplog: pytest.LogCaptureFixture) -> None:
    def failing(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    model = build_tiny(by_name("t2v-14b"))
    expert, given = model.experts[0], inputs_for(model)
    wanted = predict(expert, given)
    model.compiler = Compiler(failing)
    expert.step = StepPath(expert, COMPILED, model.compiler)
    with caplog.at_level(logging.ERROR, "torch"):
        assert error_of(predict(expert, given), wanted) < BOUND
    assert "no compiler here" in model.compiler.failure
    assert environment_of(model)["blocks"] == "not compiled"
    assert any("no compiler here" in note for note in steps_of(model).notes)
    assert predict(expert, given).isfinite().all()
    assert model.compiler.compilations == 1  # not tried again


def test_two_models_keep_their_own_attention(more_kernels: Callable[[Kernel], None]) -> None:
    """And Diffusers' setting, which is the whole process's, is as it was."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    seen: list[str] = []

    def kernel(name: str) -> Kernel:
        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen.append(name)
            return torch_attend(query, key, value)

        return Kernel(name, name, "exact", lambda: attend)

    for name in ("first", "second"):
        more_kernels(kernel(name))
    before = registry._active_backend
    models = [build_tiny(by_name("t2v-14b")) for _ in range(2)]
    for model, name in zip(models, ("first", "second"), strict=True):
        model.experts[0].step = StepPath(model.experts[0], replace(PLAIN, attention=name, end_attention=name))
    for number in (0, 1, 0):
        seen.clear()
        predict(models[number].experts[0], inputs_for(models[number]))
        assert set(seen) == {("first", "second")[number]}
        assert len(seen) == len(models[number].experts[0].transformer.blocks)
        assert environment_of(models[number])["attention"] == ("first", "second")[number]
    assert registry._active_backend == before


def test_keys_of_a_prompt_and_the_time_of_a_step_are_computed_once() -> None:
    model = build_tiny(by_name("i2v-14b-480p"))
    expert, given, ran = model.experts[0], inputs_for(model), []
    other = given.text + 1
    for name in ("blocks.0.attn2.to_k", "blocks.1.attn2.add_v_proj", "condition_embedder.time_embedder"):
        layer = expert.transformer.get_submodule(name)
        layer.register_forward_hook(lambda *_, name=name: ran.append(name.rpartition(".")[2]))
    expert.step = StepPath(expert, PLAIN)
    time = torch.full((1,), 700)
    for _ in range(3):
        time = time.clone()
        for text in (given.text, other):
            expert.predict(given.latents, time, text, given.image, CancelToken())
    assert (ran.count("to_k"), ran.count("add_v_proj"), ran.count("time_embedder")) == (2, 2, 3)
    expert.loras.version += 1  # what keys are made with has changed
    expert.predict(given.latents, time, given.text, given.image, CancelToken())
    assert ran.count("to_k") == 3
    expert.step.forget()
    expert.predict(given.latents, time, given.text, given.image, CancelToken())
    assert ran.count("to_k") == 4


def test_the_end_takes_the_exact_kernel() -> None:
    manner = Manner("fast", "exact", end=2)
    assert [manner.kernel(index, 6) for index in range(6)] == ["fast", "fast", "fast", "fast", "exact", "exact"]


def test_matrices_of_the_end_are_not_rounded() -> None:
    """Where they multiply in fp8. Stored in it alone, or where blocks come in one by one or in shares, all are alike."""
    fast = Placement(precision="fp8", compute="fast")
    for placement, kept in (
        (fast, 1),
        (replace(fast, compute="turbo", plan="exclusive"), 1),
        (replace(fast, plan="streamed"), 0),
        (replace(fast, parallel=Parallel(cfg=2, fsdp=True)), 0),
        (Placement(precision="fp8"), 0),
    ):
        blocks = build_tiny(by_name("i2v-14b-480p"), placement=placement).experts[0].transformer.blocks
        plain = [not any(isinstance(it, StoredLinear) for it in block.modules()) for block in blocks]
        assert plain == [False] * (len(blocks) - kept) + [True] * kept
        assert (placement.loading == replace(placement, compute="exact").loading) == (not kept)


def test_fp8_products_are_what_their_numbers_say() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 32, generator=draw), torch.randn(7, 32, generator=draw)
    given, stored = by_rows(x), by_rows(weight)
    assert given.numbers.dtype == FP8
    found = product(given, stored.numbers, stored.scale, torch.ones(7), torch.float32)
    wanted = (given.numbers.float() * given.scale) @ (stored.numbers.float() * stored.scale).t() + 1
    torch.testing.assert_close(found, wanted)
    assert 0.005 < error_of(found, x @ weight.t() + 1) < 0.06
    one = whole(x[None], sampled(x[None]))
    same = product(type(given)(one.numbers[0], one.scale), stored.numbers, stored.scale, None, torch.float32)
    torch.testing.assert_close(same, (one.numbers[0].float() * one.scale) @ (stored.numbers.float() * stored.scale).t())


def test_taking_the_mean_off_the_keys_helps_where_they_have_one() -> None:
    """SageAttention's observation (arXiv 2410.02367), here with the mean of a sample."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (1.5 * torch.randn(1, 512, 2, 64, generator=draw) for _ in range(3))
    key[..., 5] += 20
    wanted = torch_attend(query, key, value)
    given = [whole(it, sampled(it)) for it in (query, key, value)]
    errors = [
        error_of(found.numbers.float() * found.scale, wanted)
        for found in (emulated_eight(given[0], given[1], given[2]), emulated_eight(given[0], centred(key)[0], given[2]))
    ]
    assert errors[1] < 0.8 * errors[0]


def test_the_middle_of_values_is_put_back_and_spared_the_rounding() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (1.5 * torch.randn(1, 512, 2, 64, generator=draw) for _ in range(3))
    value = value + 2 * torch.randn(1, 1, 2, 64, generator=draw)
    wanted = torch_attend(query, key, value)

    def unrounded(query: Scaled, key: Scaled, value: Scaled) -> Tensor:
        return torch_attend(query.numbers, key.numbers, value.numbers)

    middle_off = Mixed(
        unrounded(*(Scaled(it, torch.ones(())) for it in (query, key, value - middle(value)))), middle(value)
    )
    assert error_of(wide(middle_off, torch.float32), wanted) < BOUND
    plain = emulated_eight(whole(query, sampled(query)), centred(key)[0], whole(value, sampled(value)))
    found = Eighths(emulated_eight)(query, key, value)
    assert error_of(wide(found, torch.float32), wanted) < 0.7 * error_of(wide(plain, torch.float32), wanted)


def test_the_middle_of_a_matrix_input_is_not_rounded() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 48, 32, generator=draw) + 3, torch.randn(7, 32, generator=draw)
    stored = by_rows(weight)
    exact = stored.numbers.float() * stored.scale
    row = middle(x)
    assert error_of(spread(row, stored.numbers, stored.scale), row @ exact.t()) < BOUND
    wanted, errors = x @ exact.t(), list[float]()
    for mean in (None, row):
        rows = by_rows(x, mean)
        found = product(rows, stored.numbers, stored.scale, None, torch.float32).unflatten(0, (2, 48))
        errors.append(error_of(found if mean is None else found + spread(mean, stored.numbers, stored.scale), wanted))
    assert errors[1] < 0.6 * errors[0]


def test_rows_are_the_same_in_parts_and_compiled_without_e4m3_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton has no e4m3 constants (pytorch#141396), so nothing compiled may be made empty and filled by parts."""
    monkeypatch.setattr(eight, "_ROWS", 16)
    x, backend = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0)).bfloat16(), Counting()
    mean = torch.ones(1, 1, 32)
    for given in (x, x[:1]):
        wanted = by_rows(given.float() - (mean if len(given) == 1 else 0))
        parts = by_rows(given, mean if len(given) == 1 else None)
        assert torch.equal(wanted.numbers.float(), parts.numbers.float()) and torch.equal(wanted.scale, parts.scale)
    compiled = torch.compile(lambda x: by_rows(x), fullgraph=True, backend=backend)(x)
    assert torch.equal(compiled.numbers.float(), by_rows(x).numbers.float())
    called = {str(node.target) for node in backend.graphs[0].graph.nodes}
    assert called and not {it for it in called if "empty" in it or "setitem" in it}


@pytest.mark.parametrize("realistic", [pytest.param(False, marks=pytest.mark.deep), True])
def test_one_fast_forward_is_within_a_tenth(
    realistic: bool, monkeypatch: pytest.MonkeyPatch, more_kernels: Callable[[Kernel], None]
) -> None:
    """Calibrated random weights, with outlying channels and without; the bench itself, so that it can't rot."""
    more_kernels(EMULATED)
    spec = Catalog().get("i2v-14b-480p")
    small = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 512, "num_layers": 4}
    monkeypatch.setattr(step_bench, "TRANSFORMER_SIZES", {spec.parameters: small})
    fast = Manner("emulated", "torch", end=1, eight=True, compiled=False)
    middles = Variant("middles", replace(fast, middles=True), eight=True)
    wanted = (Variant("diffusers", None), Variant("exact", PLAIN), Variant("fast", fast, eight=True), middles)
    work = Workload(spec, 96, 64, 5, 10, 2, 1)
    rows = {row.name: row for row in bench_step(work, torch.device("cpu"), wanted, realistic=realistic, timed=1)}
    assert rows["diffusers"].error == 0
    assert rows["exact"].error < BOUND
    for name in ("fast", "middles"):
        assert 0.005 < rows[name].error <= 0.10
    assert rows["fast"].error != rows["middles"].error


@pytest.mark.parametrize("name", ["enter", "add_enter", "gelu", "turn"])
def test_our_own_kernels_are_tried_before_they_are_taken(name: str) -> None:
    def wrong(*given: Any) -> Any:
        found = getattr(reference(), name)(*given)
        return 2 * found.float() if isinstance(found, Tensor) else (*found[:-1], 2 * found[-1])

    device, rows = torch.device("cpu"), Rows(64, 96, 16)
    assert fault_of(reference(), device, rows) == ""
    assert fault_of(replace(reference(), **{name: wrong}), device, rows) == f"{name} is off by 1.000"
    assert not works(device, rows)


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo's own
@pytest.mark.parametrize("mine", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_fp8_blocks_are_one_graph(
    mine: bool, monkeypatch: pytest.MonkeyPatch, more_kernels: Callable[[Kernel], None]
) -> None:
    more_kernels(EMULATED)
    monkeypatch.setattr(path, "own", reference)
    model, compiler = build_tiny(by_name("i2v-14b-480p")), Compiler(Counting())
    expert, given = model.experts[0], inputs_for(model)
    quantize(expert.transformer.blocks, "fp8")
    manner = Manner("emulated", "torch", eight=True, middles=True, own=mine)
    expert.step = StepPath(expert, manner, compiler)
    found = predict(expert, given)
    assert (compiler.failure, compiler.compilations) == ("", 1)
    expert.step = StepPath(expert, replace(manner, compiled=False))
    assert error_of(found, predict(expert, given)) < 0.01


@pytest.mark.parametrize("middles", [False, True])
def test_our_own_kernels_stand_where_torch_s_operators_do(
    middles: bool, monkeypatch: pytest.MonkeyPatch, more_kernels: Callable[[Kernel], None]
) -> None:
    more_kernels(EMULATED)
    calls: list[str] = []
    kept = reference()
    for field in fields(Own):
        call = getattr(kept, field.name)
        counted = lambda *given, call=call, name=field.name: (calls.append(name), call(*given))[1]  # noqa: E731
        kept = replace(kept, **{field.name: counted})
    monkeypatch.setattr(path, "own", lambda: kept)
    model = build_tiny(by_name("i2v-14b-480p"))
    expert, given = model.experts[0], inputs_for(model)
    quantize(expert.transformer.blocks, "fp8")
    manner = Manner("emulated", "torch", end=0, eight=True, middles=middles, compiled=False)
    expert.step = StepPath(expert, manner)
    wanted = predict(expert, given)
    expert.step = StepPath(expert, replace(manner, own=True))
    found = predict(expert, given)
    blocks = len(expert.transformer.blocks)
    assert {name: calls.count(name) / blocks for name in calls} == {"enter": 1, "add_enter": 2, "gelu": 1, "turn": 4}
    assert error_of(found, wanted) < 0.01  # e4m3 numbers that fall the other way


def test_the_record_says_what_goes_without_its_middle(more_kernels: Callable[[Kernel], None]) -> None:
    more_kernels(EMULATED)
    model = build_tiny(by_name("t2v-14b"))
    fast = Manner("emulated", "torch", end=1, eight=True, middles=True, compiled=False)
    for manner, said in (
        (fast, "keys, values, inputs of matrices"),
        (replace(fast, middles=False), "keys, values"),
        (replace(fast, attention="torch"), "inputs of matrices"),
        (PLAIN, None),
    ):
        model.experts[0].step = StepPath(model.experts[0], manner)
        assert environment_of(model).get("smoothed") == said


def test_kernels_say_why_they_are_not_here() -> None:
    missing = {it.name: it.missing(torch.device("cpu")) for it in KERNELS}
    assert missing.pop("torch") == ""
    assert set(missing.values()) == {"it needs an NVIDIA GPU"}
    assert [it.name for it in usable(torch.device("cpu"), "exact")] == ["torch"]
    assert usable(torch.device("cpu"), "rounded") == ()
    assert [it.name for it in KERNELS if it.unmeasured] == ["sage2"]


def test_a_cpu_computes_as_diffusers_does() -> None:
    model = build_tiny(by_name("t2v-14b"), placement=Placement(compiled=True, compute="turbo"))
    suit(model, 1000)
    assert model.experts[0].step is None
    assert environment_of(model)["compute"] == "turbo"
    assert "compute" not in environment_of(build_tiny(by_name("t2v-14b")))


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo's own
@torch.no_grad()
def test_models_do_not_use_up_what_others_may_compile() -> None:
    """Dynamo keeps what it compiled with the code object, and gives up after some: so compilers share none."""
    codes: set[int] = set()
    for _ in range(2):
        model, compiler = build_tiny(by_name("t2v-14b")), Compiler(Counting())
        expert, given = model.experts[0], inputs_for(model)
        StepPath(expert, COMPILED, compiler).forward(given.latents, given.timestep, given.text, None, lambda: None)
        assert compiler.compilations == 1
        codes.add(id(innermost_fn(compiler.run).__code__))
    assert len(codes) == 2 and id(step_block.__code__) not in codes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kernel", [it.name for it in KERNELS])
def test_kernels_agree_on_a_gpu(kernel: str) -> None:
    device = torch.device("cuda")
    row = kernels.kernel_named(kernel)
    if row.missing(device):
        pytest.skip(row.missing(device))
    draw = torch.Generator(device).manual_seed(0)
    query, key, value = (torch.randn(1, 1000, 4, 128, device=device, generator=draw).bfloat16() for _ in range(3))
    found = wide(kernels.attend_of(kernel)(query, key, value), torch.float32)
    wanted = torch_attend(query.float(), key.float(), value.float())
    assert error_of(found, wanted) < (0.01 if row.numbers == "exact" else 0.12)
