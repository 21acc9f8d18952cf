"""LoRAs worn over weights of every kind and place: quantised, streamed, on a GPU, compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.architectures import by_name
from models.lora_files import RandomLora
from models.wardrobe import Wardrobe, merged, near, predict, predict_as_is
from wanreel.core.placement import Placement
from wanreel.models.lora.branch import Branched
from wanreel.models.quantize import StoredLinear
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel


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


@pytest.mark.parametrize("plan", ["resident", "streamed"])
@pytest.mark.parametrize("kind", _KINDS)
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


@pytest.mark.parametrize("kind", ["native", pytest.param("int8", marks=pytest.mark.deep)])
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
