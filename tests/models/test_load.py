"""Loading from a folder in Diffusers layout, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from models.architectures import TINY, by_name, inputs_for
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import MODELS, ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.core.placement import Placement
from wanreel.models.folder import VSA_NOTE, open_folder
from wanreel.models.load import Dtypes, load_model
from wanreel.models.tiny import build_tiny, save_tiny
from wanreel.models.wan_model import WanModel

DEMO = Path(__file__).parents[2] / "src" / "wanreel" / "demo" / "weights"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One folder a row, made once; tests that change it take a copy."""
    root, made = tmp_path_factory.mktemp("weights"), {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_tiny(by_name(name), root / name)
        return made[name]

    return folder


@pytest.fixture
def broken(saved: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        return Path(shutil.copytree(saved(name), tmp_path / name))

    return folder


def predict(model: WanModel) -> list[torch.Tensor]:
    given = inputs_for(model)
    return [
        expert.predict(given.latents, given.timestep, given.text, given.image, CancelToken())
        for expert in model.experts
    ]


def edit_json(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({key: value.clone() for key, value in tensors.items()}, folder / WEIGHTS)


def fault(name: str, folder: Path) -> str:
    with pytest.raises(BrokenWeights) as raised:
        load_model(by_name(name), folder)
    return raised.value.message


@pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)
def test_what_was_saved_is_what_is_loaded(spec: ModelSpec, saved: Callable[[str], Path]) -> None:
    state = torch.get_rng_state()
    loaded = load_model(spec, saved(spec.name.removeprefix("tiny:")))
    assert torch.equal(torch.get_rng_state(), state)
    built = build_tiny(spec)
    for part in ("text_encoder", "image_encoder", "vae"):
        assert_same_weights(getattr(loaded, part), getattr(built, part))
    assert all(torch.equal(*pair) for pair in zip(predict(loaded), predict(built), strict=True))
    assert loaded.tokenizer("a b!").input_ids == built.tokenizer("a b!").input_ids
    assert (loaded.image_processor is None) == (built.image_processor is None)
    assert not loaded.notes
    assert loaded.scheduler_config["flow_shift"] == 3.0


def assert_same_weights(one: torch.nn.Module | None, other: torch.nn.Module | None) -> None:
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        states = one.state_dict(), other.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_dtypes_are_those_of_diffusers(saved: Callable[[str], Path]) -> None:
    folder = saved("i2v-14b-480p")
    dtypes = Dtypes(transformer=torch.bfloat16, text_encoder=torch.bfloat16)
    model = load_model(by_name("i2v-14b-480p"), folder, dtypes=dtypes)
    reference = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.bfloat16)
    states = model.experts[0].transformer.state_dict(), reference.state_dict()
    assert [value.dtype for value in states[0].values()] == [value.dtype for value in states[1].values()]
    assert model.image_encoder is not None
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert model.experts[0].dtype == model.text_encoder.dtype == torch.bfloat16
    assert model.vae.dtype == model.image_encoder.dtype == torch.float32


def test_cuda_gets_bf16_and_the_cpu_fp32() -> None:
    assert Dtypes.of(torch.device("cuda")).transformer == torch.bfloat16
    assert Dtypes.of(torch.device("cpu")) == Dtypes(torch.float32, torch.float32)


def test_the_demo_is_stored_in_fp16_and_runs_in_fp32() -> None:
    spec = next(spec for spec in MODELS if spec.name == "demo")
    model = load_model(spec, DEMO)
    assert model.experts[0].dtype == model.vae.dtype == model.text_encoder.dtype == torch.float32
    dtypes = {info.dtype for info in open_folder(spec, DEMO).parts["transformer"].tensors.values()}
    assert "F16" in dtypes


@pytest.mark.parametrize("plan", ["exclusive", "streamed"])
def test_other_placements_load_the_same_model(plan: str, saved: Callable[[str], Path]) -> None:
    spec = by_name("i2v-a14b")
    models = [load_model(spec, saved("i2v-a14b"), placement=Placement(name)) for name in ("resident", plan)]  # type: ignore[arg-type]
    assert all(torch.equal(*pair) for pair in zip(*map(predict, models), strict=True))


def test_sharded_weights_load(broken: Callable[[str], Path]) -> None:
    folder = broken("t2v-14b")
    tensors = load_file(folder / "transformer" / WEIGHTS)
    shard(folder / "transformer", tensors)
    models = load_model(by_name("t2v-14b"), folder), build_tiny(by_name("t2v-14b"))
    assert torch.equal(*(predict(model)[0] for model in models))


def shard(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    keys = sorted(tensors)
    halves = {"a.safetensors": keys[: len(keys) // 2], "b.safetensors": keys[len(keys) // 2 :]}
    for name, half in halves.items():
        save_file({key: tensors[key] for key in half}, folder / name)
    weight_map = {key: name for name, half in halves.items() for key in half}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / WEIGHTS).unlink()


def test_class_names_in_the_folder_are_not_followed(broken: Callable[[str], Path]) -> None:
    folder = broken("t2v-14b")
    edit_json(folder / "model_index.json", _class_name="Evil", transformer=["os", "system"])
    edit_json(folder / "transformer" / "config.json", _class_name="Evil")
    load_model(by_name("t2v-14b"), folder)


def test_vsa_gates_are_left_out_with_a_note(broken: Callable[[str], Path]) -> None:
    folder = broken("fastwan2.1-t2v-1.3b")
    gates = {
        "blocks.0.to_gate_compress.weight": torch.ones(24, 24),
        "blocks.1.attn1.to_gate_compress.bias": torch.ones(24),
    }
    edit_weights(folder / "transformer", lambda tensors: tensors.update(gates))
    spec = by_name("fastwan2.1-t2v-1.3b")
    model = load_model(spec, folder)
    assert model.notes == (VSA_NOTE,)
    assert torch.equal(predict(model)[0], predict(build_tiny(spec))[0])


class TestBrokenFolders:
    def test_no_folder(self, tmp_path: Path) -> None:
        assert "is not a folder" in fault("t2v-14b", tmp_path / "nothing")

    @pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler", "transformer", "transformer_2"])
    def test_a_part_is_missing(self, part: str, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-a14b")
        shutil.rmtree(folder / part)
        assert f"{part}/ is missing" in fault("t2v-a14b", folder)

    def test_clip_is_missing(self, saved: Callable[[str], Path]) -> None:
        message = fault("i2v-14b-480p", saved("i2v-a14b"))
        assert "image_encoder/ is missing" in message
        assert "image_processor/ is missing" in message

    def test_every_fault_is_named(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        shutil.rmtree(folder / "vae")
        (folder / "transformer" / "config.json").unlink()
        (folder / "model_index.json").unlink()
        message = fault("t2v-14b", folder)
        assert all(name in message for name in ("vae/", "transformer/config.json", "model_index.json"))

    def test_a_shard_is_missing(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        shard(folder / "transformer", load_file(folder / "transformer" / WEIGHTS))
        (folder / "transformer" / "b.safetensors").unlink()
        assert "transformer/ lacks 1 of 2 files (b.safetensors)" in fault("t2v-14b", folder)

    def test_an_index_points_outside(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        index = {"weight_map": {"x": "../vae/" + WEIGHTS}}
        (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
        assert "outside its folder" in fault("t2v-14b", folder)

    @pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
    def test_pickles_are_refused(self, suffix: str, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        (folder / "vae" / WEIGHTS).rename(folder / "vae" / f"diffusion_pytorch_model{suffix}")
        assert "pickles can run code" in fault("t2v-14b", folder)

    def test_no_weights_at_all(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        (folder / "text_encoder" / "model.safetensors").unlink()
        assert "text_encoder/ holds no safetensors file" in fault("t2v-14b", folder)

    def test_a_download_was_cut_short(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        file = folder / "transformer" / WEIGHTS
        file.write_bytes(file.read_bytes()[:-100])
        assert "damaged or cut short" in fault("t2v-14b", folder)

    def test_a_config_is_no_json(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        (folder / "vae" / "config.json").write_text("<html>")
        assert "vae/config.json can't be read" in fault("t2v-14b", folder)

    def test_a_config_is_a_list(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        (folder / "vae" / "config.json").write_text("[]")
        assert "vae/config.json is not a JSON object" in fault("t2v-14b", folder)

    def test_own_code_is_refused(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        edit_json(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "evil.Evil"})
        assert "its own code" in fault("t2v-14b", folder)

    def test_quantised_weights_are_refused(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        edit_json(folder / "transformer" / "config.json", quantization_config={"quant_method": "torchao"})
        assert "quantised" in fault("t2v-14b", folder)

    @pytest.mark.parametrize(
        ("wanted", "given", "says"),
        [
            ("t2v-14b", "ti2v-5b", "transformer has in_channels=48, the model has 16"),
            ("ti2v-5b", "t2v-14b", "vae has z_dim=16, the model has 48"),
            ("t2v-14b", "i2v-14b-480p", "transformer has image_dim=32, the model has none"),
            ("i2v-14b-480p", "flf2v-14b-720p", "pos_embed_seq_len=34, the model has none"),
            ("flf2v-14b-720p", "i2v-14b-480p", "pos_embed_seq_len=None, the model has one"),
            ("t2v-14b", "t2v-a14b", "has one expert"),
            ("t2v-a14b", "t2v-14b", "transformer_2/ is missing"),
            ("t2v-a14b", "i2v-a14b", "boundary_ratio=0.9, the model has 0.875"),
            ("t2v-14b", "demo", "expand_timesteps=True"),
        ],
    )
    def test_another_model(self, wanted: str, given: str, says: str, saved: Callable[[str], Path]) -> None:
        assert says in fault(wanted, saved(given))

    def test_another_size(self, saved: Callable[[str], Path]) -> None:
        real = next(spec for spec in MODELS if spec.name == "t2v-14b")
        with pytest.raises(BrokenWeights, match="num_layers=2, the model has 40") as raised:
            open_folder(real, saved("t2v-14b"))
        assert "Wan-AI/Wan2.1-T2V-14B-Diffusers" in raised.value.hint

    def test_tensors_are_missing(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        edit_weights(folder / "vae", lambda tensors: tensors.__delitem__("quant_conv.bias"))
        assert "vae lacks 1 of" in fault("t2v-14b", folder)

    def test_foreign_tensors(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        edit_weights(folder / "transformer", lambda tensors: tensors.update({"vace_blocks.0.w": torch.ones(1)}))
        assert "tensors of another architecture (vace_blocks.0.w)" in fault("t2v-14b", folder)

    def test_a_shape_differs(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        edit_weights(folder / "transformer", lambda tensors: tensors.update({"proj_out.bias": torch.ones(3)}))
        assert "proj_out.bias has shape (3,), the model has (64,)" in fault("t2v-14b", folder)

    def test_the_text_encoder_lacks_tensors(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        file = folder / "text_encoder" / "model.safetensors"
        tensors = {key: value.clone() for key, value in load_file(file).items() if "final_layer_norm" not in key}
        save_file(tensors, file, metadata={"format": "pt"})
        assert "text_encoder/ lacks 1 tensors" in fault("t2v-14b", folder)

    def test_the_tokenizer_is_empty(self, broken: Callable[[str], Path]) -> None:
        folder = broken("t2v-14b")
        for file in (folder / "tokenizer").iterdir():
            file.unlink()
        assert "tokenizer/ can't be loaded" in fault("t2v-14b", folder)
