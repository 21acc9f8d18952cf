"""A worn LoRA computes what merged weights compute, and leaves nothing behind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.architectures import TINY, by_name, inputs_for
from models.lora_files import FORMATS, RandomLora
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import BrokenWeights
from wanreel.core.lora import LoraRef, ResolvedLora, bucket_of
from wanreel.core.placement import Placement
from wanreel.models.lora.branch import Branched
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.quantize import StoredLinear
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear
from wanreel.storage.digests import Digests

#: Largest difference from merged weights, relative to the largest value: fp32 sums in another order.
BOUND = 2e-5


@dataclass
class Wardrobe:
    """A shelf and what is on it."""

    shelf: LoraShelf

    def put(self, name: str, lora: RandomLora, format: str = "Diffusers with alpha") -> ResolvedLora:
        lora.save(self.shelf.root / f"{name}.safetensors", format)
        return self.resolved(name)

    def resolved(self, name: str, high: float = 1.0, low: float = 1.0, schedule: str = "") -> ResolvedLora:
        sha256 = hashlib.sha256((self.shelf.root / f"{name}.safetensors").read_bytes()).hexdigest()
        return ResolvedLora(name, sha256, high, low, schedule)

    def wear(self, model: WanModel, *loras: ResolvedLora, steps: int = 4) -> Any:
        return wear(model, loras, steps, self.shelf)


@pytest.fixture
def wardrobe(tmp_path: Path) -> Wardrobe:
    return Wardrobe(LoraShelf(tmp_path / "loras", Digests(tmp_path / "digests.json")))


def predict(model: WanModel, strengths: Sequence[float] = (), expert: int = 0) -> Tensor:
    given = inputs_for(model)
    model.experts[expert].loras.strengthen(strengths)
    return model.experts[expert].predict(given.latents, given.timestep, given.text, given.image, CancelToken())


def merged(spec: Any, *loras: tuple[RandomLora, float], expert: int = 0) -> Tensor:
    model = build_tiny(spec)
    for lora, strength in loras:
        lora.merge(model.experts[expert].transformer, strength)
    return predict(model, expert=expert)


def near(one: Tensor, other: Tensor, bound: float = BOUND) -> bool:
    return bool((one - other).abs().max() <= bound * other.abs().max())


def weights(model: WanModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.experts[0].transformer.state_dict().items()}


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


def predict_as_is(model: WanModel) -> Tensor:
    given = inputs_for(model)
    return model.experts[0].predict(given.latents, given.timestep, given.text, given.image, CancelToken())


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


# The matrix: swap × storage × placement


def _quantised(model: WanModel, kind: str) -> None:
    """Blocks' linear layers stored otherwise."""
    for expert in model.experts:
        for name, module in list(expert.transformer.blocks.named_modules()):
            if isinstance(module, torch.nn.Linear):
                expert.transformer.blocks.set_submodule(name, _stored(module, kind))


def _stored(linear: torch.nn.Linear, kind: str) -> Any:
    if kind == "gguf":
        return _gguf_linear(linear)
    stored = StoredLinear(linear.in_features, linear.out_features, kind)  # type: ignore[arg-type]
    stored.store(linear.weight.data, "cpu")
    assert linear.bias is not None
    stored.bias = linear.bias
    return stored


def _gguf_linear(linear: torch.nn.Linear) -> Any:
    """A layer of Q8_0 blocks of 32, as Diffusers reads them from GGUF files."""
    gguf = pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    packed = gguf.quants.quantize(linear.weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0)
    made = GGUFLinear(linear.in_features, linear.out_features, bias=True, compute_dtype=torch.float32)
    parameter: Any = GGUFParameter
    made.weight = parameter(torch.from_numpy(packed), quant_type=gguf.GGMLQuantizationType.Q8_0)
    made.bias = linear.bias
    return made


def _wide() -> Any:
    """A tiny row whose layers are multiples of 32 wide, as GGUF's blocks are."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=16, out_channels=16, text_dim=32, freq_dim=32,
        ffn_dim=64, num_layers=2, rope_max_seq_len=64,
    ).eval()  # fmt: skip


_KINDS = ("native", "bf16", "int8", "fp8", "gguf")


# torchao's tensors can't be moved by address; what Wanreel streams are layers of its own.
@pytest.mark.parametrize(
    ("kind", "plan"), [*((kind, plan) for kind in _KINDS for plan in ("resident", "streamed")), ("torchao", "resident")]
)
def test_matrix_swap_on_any_storage_in_any_place(wardrobe: Wardrobe, kind: str, plan: Any) -> None:
    model = _model_of(kind, plan)
    transformer = model.experts[0].transformer
    plain = predict_as_is(model)
    one, two = (RandomLora.of(_wide(), seed=seed) for seed in (1, 2))
    first, second = wardrobe.put("one", one), wardrobe.put("two", two)
    (applied,) = wardrobe.wear(model, first)
    assert applied.matched == len(one.weights)
    changed = predict(model, (1.0,))
    wardrobe.wear(model, second)
    other = predict(model, (1.0,))
    assert not torch.equal(changed, plain) and not torch.equal(other, changed)
    wardrobe.wear(model, first)
    assert torch.equal(predict(model, (1.0,)), changed)
    assert any(isinstance(module, Branched) for module in transformer.modules())
    wardrobe.wear(model)
    assert torch.equal(predict_as_is(model), plain)
    assert not any(isinstance(module, Branched) for module in transformer.modules())
    if kind == "native":
        one.merge(transformer)
        assert near(predict_as_is(model), changed)


def _model_of(kind: str, plan: Any) -> WanModel:
    from wanreel.models.expert import Expert
    from wanreel.models.load import make_expert

    base = build_tiny(by_name("t2v-14b"))
    transformer: Any = _wide()
    model = WanModel(**{
        name: getattr(base, name)
        for name in ("spec", "tokenizer", "text_encoder", "image_encoder", "image_processor", "vae", "device", "dtype")
    }, scheduler_config={}, experts=(Expert(transformer),), placement=Placement(plan))  # fmt: skip
    if kind == "bf16":
        kept = transformer._keep_in_fp32_modules
        for key, parameter in transformer.named_parameters():
            if not any(part in key.split(".") for part in kept):
                parameter.data = parameter.data.bfloat16()
    elif kind == "torchao":
        torchao = pytest.importorskip("torchao.quantization")
        torchao.quantize_(transformer.blocks, torchao.Int8WeightOnlyConfig())
    elif kind != "native":
        _quantised(model, kind)
    model.experts = (make_expert(transformer, torch.device("cpu"), Placement(plan)),)
    if plan == "streamed":
        model.experts[0].share(model._room)
    return model


class _Locks:
    """Stands in for the driver: which memory is page-locked."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def cudaHostRegister(self, address: int, nbytes: int, _flags: int) -> int:
        self.held[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.held[address]
        return 0


def test_locked_memory_of_branches_is_given_back(wardrobe: Wardrobe, monkeypatch: pytest.MonkeyPatch) -> None:
    from wanreel.models import offload
    from wanreel.models.offload import BlockStream

    locks = _Locks()
    monkeypatch.setattr(offload, "_cudart", lambda: locks)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    model, resident = _model_of("native", "streamed"), _model_of("native", "resident")
    stream = model.experts[0].stream
    assert isinstance(stream, BlockStream)
    stream._pinned = True  # as on a GPU; the weights themselves stay pageable here
    plain = predict_as_is(model)
    lora = wardrobe.put("x", RandomLora.of(_wide()))
    for each in (model, resident):
        wardrobe.wear(each, lora)
    assert len(locks.held) == len(stream.blocks)
    for strength in (1.0, 0.25):
        assert torch.equal(predict(model, (strength,)), predict(resident, (strength,)))
    wardrobe.wear(model, wardrobe.put("wider", RandomLora.of(_wide(), rank=40)))
    assert len(locks.held) == len(stream.blocks)
    wardrobe.wear(model)
    assert not locks.held and torch.equal(predict_as_is(model), plain)


@pytest.mark.gpu
@pytest.mark.parametrize("plan", ["resident", "exclusive", "streamed"])
def test_on_a_gpu(wardrobe: Wardrobe, plan: Any) -> None:
    spec = by_name("t2v-a14b")
    model = build_tiny(spec, device="cuda", placement=Placement(plan, pinned=True))
    plain = [predict(model, expert=index) for index in (0, 1)]
    lora = RandomLora.of(model.experts[0].transformer).with_differences(model.experts[0].transformer)
    wardrobe.wear(model, wardrobe.put("x", lora))
    for index in (0, 1):
        for strength in (1.0, 0.5):
            ours = predict(model, (strength,), index).cpu()
            assert near(ours, merged(spec, (lora, strength), expert=index), 1e-2)  # TF32 and other kernels
    wardrobe.wear(model)
    for index in (0, 1):
        assert torch.equal(predict(model, expert=index), plain[index])
    model.unload()


class _Counted:
    """A backend for torch.compile that compiles nothing and counts what it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("kind", ["native", "int8"])
def test_compiled_blocks_are_used_as_they_are_after_a_swap(wardrobe: Wardrobe, kind: str) -> None:
    torch._dynamo.reset()
    model, eager = _model_of(kind, "resident"), _model_of(kind, "resident")
    counted = _Counted()
    model.experts[0].compile_blocks(backend=counted, fullgraph=True)
    one, two = (RandomLora.of(_wide(), seed=seed, rank=rank) for seed, rank in ((1, 4), (2, 9)))
    first, second = wardrobe.put("one", one), wardrobe.put("two", two)
    plain = predict_as_is(model)
    wardrobe.wear(model, first)
    predict(model, (1.0,))
    compiled = counted.graphs
    for lora, strength in ((second, 1.0), (first, 0.3), (second, -2.0)):
        for each in (model, eager):
            wardrobe.wear(each, lora)
        assert near(predict(model, (strength,)), predict(eager, (strength,)))
    wardrobe.wear(model)
    assert torch.equal(predict_as_is(model), plain)
    assert counted.graphs == compiled
    torch._dynamo.reset()


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
def test_compiled_by_inductor(wardrobe: Wardrobe) -> None:
    torch._dynamo.reset()
    model, eager = _model_of("native", "resident"), _model_of("native", "resident")
    model.experts[0].compile_blocks()
    lora = wardrobe.put("one", RandomLora.of(_wide()))
    for each in (model, eager):
        wardrobe.wear(each, lora)
    assert near(predict(model, (1.0,)), predict(eager, (1.0,)))
    torch._dynamo.reset()
