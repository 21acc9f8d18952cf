"""The same weights in every layout give the same latents; in fewer bits within stated bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.hub_server import Fault, hub_server
from models.layouts import (
    Tensors,
    assembled,
    authors_text_encoder,
    authors_transformer,
    authors_vae,
    save,
    scaled_fp8,
    stored,
    wide_model,
    write_gguf,
)
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.errors import BrokenWeights, InvalidRequest, ModelNotInstalled
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.formats.adopt import Adopter, look_through
from wanreel.models.formats.assembly import Assembly, added_rows
from wanreel.models.load import load_model
from wanreel.models.parts import TensorInfo, _gguf_unpacker
from wanreel.models.registry import Hub, Registry
from wanreel.models.wan_model import WanModel
from wanreel.storage.digests import Digests

NAMES = ("t2v-1.3b", "i2v-14b-480p", "t2v-a14b", "i2v-a14b")
Kind = gguf.GGMLQuantizationType


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Path]:
    return wide_model(request.param, tmp_path_factory.mktemp(request.param) / "diffusers")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Path]:
    return wide_model("t2v-1.3b", tmp_path_factory.mktemp("text") / "diffusers")


def resolved(spec: ModelSpec) -> ResolvedRequest:
    picture = PictureRef("0" * 64, 64, 64) if "picture" in spec.modes else None
    request = VideoRequest(
        prompt="a red kite",
        model=spec.name,
        image=picture,
        seed=7,
        num_frames=5,
        num_inference_steps=3,
        width=64,
        height=64,
    )
    return resolve(request, Catalog(), Defaults({}, frozenset({spec.name}))).request


@torch.no_grad()
def latents(model: WanModel) -> Tensor:
    """After three steps, from the prompt on: text encoder, VAE (with a picture) and transformers all take part."""
    request = resolved(model.spec)
    pictures = Pictures(Image.new("RGB", (64, 64), (200, 40, 90))) if request.image else Pictures()
    cancel = CancelToken()
    conditioning = encode(model, request, pictures, cancel)
    *_, last = denoise(model, conditioning, request, None, cancel)
    return last.latents


def experts(spec: ModelSpec) -> tuple[str, ...]:
    return ("transformer", "transformer_2")[: spec.experts]


def file_name(part: str) -> str:
    return f"wan_{'low' if part.endswith('_2') else 'high'}_noise.safetensors"


def layouts(spec: ModelSpec, folder: Path, here: Path) -> Iterator[tuple[str, Path]]:
    """Folders with the same weights in other layouts."""
    text = save(here / "umt5.safetensors", stored(folder / "text_encoder"))
    text_authors = save(here / "t5.safetensors", authors_text_encoder(stored(folder / "text_encoder")))
    vae = save(here / "vae.safetensors", authors_vae(stored(folder / "vae"), nested=False))
    theirs = {part: authors_transformer(stored(folder / part)) for part in experts(spec)}

    original = {
        part: save(here / "original" / part / "diffusion_pytorch_model.safetensors", theirs[part]).parent
        for part in theirs
    }
    yield "authors' folders", assembled(spec, here / "a", folder, **original, text_encoder=text_authors, vae=vae)

    comfy = {part: save(here / file_name(part), theirs[part], "model.diffusion_model.") for part in theirs}
    yield "ComfyUI", assembled(spec, here / "b", folder, **comfy, text_encoder=text, vae=vae)

    plain = {part: save(here / f"d_{file_name(part)}", stored(folder / part)) for part in theirs}
    yield "single, Diffusers' names", assembled(spec, here / "c", folder, **plain)

    packed = {part: write_gguf(here / f"{part}.gguf", theirs[part], Kind.F32) for part in theirs}
    yield "GGUF F32", assembled(spec, here / "d", folder, **packed)


def test_equal_latents_in_every_layout(model: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    spec, folder = model
    expected = latents(load_model(spec, folder))
    assert expected.std() > 0.1
    for name, other in layouts(spec, folder, tmp_path):
        assert torch.equal(latents(load_model(spec, other)), expected), name


#: Largest relative RMS difference of the latents after three steps: about three times what was measured (2.8e-5, 2.2e-4,
#: 4.5e-4, 3.8e-3, 9.4e-3, 3.3e-3, 3.1e-3).
BOUNDS: dict[str, float] = {
    "F16": 1e-4,
    "BF16": 7e-4,
    "Q8_0": 1.5e-3,
    "Q5_0": 1.2e-2,
    "Q4_0": 3e-2,
    "fp8 scaled": 1e-2,
    "fp8": 1e-2,
}


def in_fewer_bits(theirs: Tensors, kind: str, here: Path) -> Path:
    if kind == "fp8 scaled":
        return save(here / "scaled.safetensors", scaled_fp8(theirs), "model.diffusion_model.")
    if kind == "fp8":
        small = {
            key: tensor.to(torch.float8_e4m3fn) if tensor.ndim == 2 and "block" in key else tensor
            for key, tensor in theirs.items()
        }
        return save(here / "fp8.safetensors", small)
    return write_gguf(here / f"{kind}.gguf", theirs, Kind[kind])


@pytest.mark.parametrize("kind", BOUNDS)
def test_fewer_bits_stay_within_their_bounds(text_model: tuple[ModelSpec, Path], tmp_path: Path, kind: str) -> None:
    spec, folder = text_model
    theirs = authors_transformer(stored(folder / "transformer"))
    expected = latents(load_model(spec, folder))
    found = latents(
        load_model(spec, assembled(spec, tmp_path / "m", folder, transformer=in_fewer_bits(theirs, kind, tmp_path)))
    )
    apart = ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()
    assert 0 < apart < BOUNDS[kind]


def test_scaled_fp8_text_encoder(text_model: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    spec, folder = text_model
    encoder = save(tmp_path / "umt5_fp8.safetensors", scaled_fp8(stored(folder / "text_encoder")))
    found = latents(load_model(spec, assembled(spec, tmp_path / "m", folder, text_encoder=encoder)))
    expected = latents(load_model(spec, folder))
    apart = ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()
    assert 0 < apart < 0.02  # measured: below 0.01


def test_scales_are_used(text_model: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    """Without them the same numbers would be far off."""
    spec, folder = text_model
    theirs = scaled_fp8(authors_transformer(stored(folder / "transformer")))
    theirs = {key: tensor * 2 if key.endswith("scale_weight") else tensor for key, tensor in theirs.items()}
    file = save(tmp_path / "scaled.safetensors", theirs)
    found = latents(load_model(spec, assembled(spec, tmp_path / "m", folder, transformer=file)))
    expected = latents(load_model(spec, folder))
    assert ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item() > 0.05


def test_the_48_channel_vae_and_its_statistics(tmp_path: Path) -> None:
    spec, folder = wide_model("ti2v-5b", tmp_path / "diffusers")
    vae = save(tmp_path / "vae22.safetensors", authors_vae(stored(folder / "vae"), nested=True))
    ours = load_model(spec, folder).vae
    found = load_model(spec, assembled(spec, tmp_path / "m", folder, vae=vae)).vae
    state, other = ours.state_dict(), found.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)
    assert len(found.config.latents_mean) == 48 and found.config.latents_mean[0] == -0.2289
    assert found.config.latents_std[-1] == 0.7744 and found.config.scale_factor_spatial == 16


# Misfits and damage


def test_the_experts_the_wrong_way_round(tmp_path: Path) -> None:
    spec, folder = wide_model("t2v-a14b", tmp_path / "diffusers")
    theirs = authors_transformer(stored(folder / "transformer"))
    high, low = save(tmp_path / file_name("transformer"), theirs), save(tmp_path / file_name("transformer_2"), theirs)
    with pytest.raises(BrokenWeights, match=r"is the low-noise expert by its name.*; .*is the high-noise expert"):
        load_model(spec, assembled(spec, tmp_path / "m", folder, transformer=low, transformer_2=high))


def test_a_file_of_another_model(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, folder = text_model
    _, other = wide_model("i2v-a14b", tmp_path / "other")
    file = save(tmp_path / "x.safetensors", authors_transformer(stored(other / "transformer")))
    with pytest.raises(BrokenWeights, match=r"Wan 2.2 I2V .* needs a Wan 2.1 T2V"):
        load_model(spec, assembled(spec, tmp_path / "m", folder, transformer=file))


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_tensor_that_is_missing_and_one_too_many(
    tmp_path: Path, text_model: tuple[ModelSpec, Path], part: str
) -> None:
    spec, folder = text_model
    tensors = stored(folder / part)
    if part == "transformer":
        tensors = authors_transformer(tensors)
    last = sorted(key for key in tensors if "1" in key)[-1]
    less = save(tmp_path / "less.safetensors", {key: it for key, it in tensors.items() if key != last})
    with pytest.raises(BrokenWeights, match=r"lacks 1|incomplete"):
        load_model(spec, assembled(spec, tmp_path / "a", folder, **{part: less}))
    more = save(tmp_path / "more.safetensors", tensors | {"blocks.0.surprise.weight": torch.zeros(2, 2)})
    with pytest.raises(BrokenWeights, match="surprise"):
        load_model(spec, assembled(spec, tmp_path / "b", folder, **{part: more}))


def test_a_file_that_is_gone(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, folder = text_model
    with pytest.raises(BrokenWeights, match="is gone"):
        load_model(spec, assembled(spec, tmp_path / "a", folder, transformer=tmp_path / "nope.safetensors"))


def test_authors_folder_with_pickles_alone(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, folder = text_model
    bad = tmp_path / "theirs"
    bad.mkdir()
    (bad / "model.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(BrokenWeights, match="only model.pth; pickles can run code"):
        load_model(spec, assembled(spec, tmp_path / "a", folder, transformer=bad))


# Adopting


def comfy_folder(spec: ModelSpec, folder: Path, here: Path) -> Path:
    models = here / "ComfyUI" / "models"
    theirs = authors_transformer(stored(folder / "transformer"))
    save(models / "diffusion_models" / "wan_t2v_fp8_scaled.safetensors", scaled_fp8(theirs))
    save(models / "vae" / "wan_2.1_vae.safetensors", authors_vae(stored(folder / "vae"), nested=False))
    save(models / "text_encoders" / "umt5_xxl.safetensors", stored(folder / "text_encoder"))
    (models / "checkpoints").mkdir()
    (models / "checkpoints" / "old.ckpt").write_bytes(b"\x80\x02}")
    (models / "vae" / "page.safetensors").write_bytes(b"<!DOCTYPE html>")
    return models


def rows(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    """The tiny row as one that could be downloaded."""
    from dataclasses import replace

    return (replace(spec, name="wide", hub_id="Somebody/Wide", builtin=False),)


def test_scan_adopts_a_comfyui_folder(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, folder = text_model
    seen = list(look_through(comfy_folder(spec, folder, tmp_path)))
    by_name = {it.path.name: it for it in seen}
    assert "pickle" in by_name["old.ckpt"].problem and "web page" in by_name["page.safetensors"].problem
    root = tmp_path / "models"
    root.mkdir()
    adopter = Adopter(root, rows(spec))

    (proposal,) = adopter.proposals(seen)
    assert proposal.missing == ("tokenizer",)

    (root / "wide").mkdir()
    (root / "wide" / "tokenizer").symlink_to(folder / "tokenizer")
    (proposal,) = adopter.proposals(seen)
    assert (proposal.name, proposal.missing) == ("wide-fp8-scaled", ())
    adopter.save(proposal)

    shipped = Catalog(rows(spec))
    (row,) = added_rows(root, shipped)
    assert (row.name, row.hub_id) == ("wide-fp8-scaled", None)
    assert latents(load_model(spec, root / "wide-fp8-scaled")).isfinite().all()
    again = Adopter(root, rows(spec), taken=lambda name: name == "wide-fp8-scaled")
    assert again.proposals(seen)[0].name == "wide-fp8-scaled"  # the same files are the same model


def test_pairs_of_experts(tmp_path: Path) -> None:
    spec, folder = wide_model("t2v-a14b", tmp_path / "diffusers")
    theirs = authors_transformer(stored(folder / "transformer"))
    for name in ("a_high_noise", "a_low_noise", "b_low_noise"):
        save(tmp_path / "found" / f"{name}.safetensors", theirs)
    seen = list(look_through(tmp_path / "found"))
    (proposal,) = Adopter(tmp_path / "models", rows(spec)).proposals(seen)
    assert {part: place.name for part, place in proposal.parts.items()} == {
        "transformer": "a_high_noise.safetensors",
        "transformer_2": "a_low_noise.safetensors",
    }


def test_adding_an_authors_repository(tmp_path: Path) -> None:
    spec, folder = wide_model("t2v-a14b", tmp_path / "diffusers")
    repository = tmp_path / "Wan2.2"
    for part, name in zip(("transformer", "transformer_2"), ("high_noise_model", "low_noise_model"), strict=True):
        save(repository / name / "diffusion_pytorch_model.safetensors", authors_transformer(stored(folder / part)))
    (repository / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"PK\x03\x04")
    (repository / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04")
    adopter = Adopter(tmp_path / "models", rows(spec))
    base = rows(spec)[0]

    with pytest.raises(ModelNotInstalled) as caught:
        adopter.adopt("mine", base, {}, repository)
    said = str(caught.value)
    assert "lacks tokenizer, text_encoder, vae" in said and "Wan2.1_VAE.pth, models_t5_umt5" in said
    assert "--component text_encoder --component vae" in said

    shared = {part: folder / part for part in ("tokenizer", "text_encoder", "vae", "scheduler")}
    assembly = adopter.adopt("mine", base, shared, repository)
    assert Assembly.read(tmp_path / "models" / "mine") == assembly
    assert torch.equal(latents(load_model(spec, tmp_path / "models" / "mine")), latents(load_model(spec, folder)))


def test_what_can_not_be_added(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, folder = text_model
    adopter = Adopter(tmp_path / "models", rows(spec), taken=lambda name: name == "there")
    base = rows(spec)[0]
    vae = save(tmp_path / "vae.safetensors", stored(folder / "vae"))
    with pytest.raises(InvalidRequest, match="can't be a model's name"):
        adopter.adopt("../up", base, {"transformer": vae})
    with pytest.raises(InvalidRequest, match="already"):
        adopter.adopt("there", base, {"transformer": vae})
    with pytest.raises(InvalidRequest, match="no transformer"):
        adopter.adopt("mine", base, {"vae": vae})
    with pytest.raises(BrokenWeights, match="is a Wan 2.1 VAE, and wide needs its transformer"):
        adopter.adopt("mine", base, {"transformer": vae})
    assert not (tmp_path / "models").exists()


def test_a_damaged_assembly(tmp_path: Path, text_model: tuple[ModelSpec, Path]) -> None:
    spec, _ = text_model
    (tmp_path / "assembly.json").write_text('{"version": 9}')
    with pytest.raises(BrokenWeights, match="assembly.json can't be read"):
        load_model(spec, tmp_path)


# From the hub to latents


def test_pulled_weights_give_the_same_latents(
    text_model: tuple[ModelSpec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pull, cut once in the middle, verify, load, generate."""
    spec, folder = text_model
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    row = Catalog().get("t2v-1.3b")
    with hub_server() as hub:
        hub.add_folder(row.hub_id or "", folder)
        hub.faults = [Fault("transformer/diff", "truncate")]
        client = Hub(hub.url, base_wait=0.001)
        registry = Registry(tmp_path / "models", client, Digests(tmp_path / "digests.json"))
        for _ in registry.pull(row, CancelToken()):
            pass
        assert hub.ranges
    assert registry.faults(row, CancelToken()) == ()
    registry.check(row)
    assert torch.equal(latents(load_model(spec, registry.folder(row))), latents(load_model(spec, folder)))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_packed_blocks_mean_what_the_format_says(name: str) -> None:
    """Blocks of random bits against the reference that the format's own package has, in fp16's precision."""
    kind = Kind[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 256, (64, 2 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # the bits of a scale may say NaN or infinity
        expected = gguf.quants.dequantize(raw, kind)
    fit = np.abs(expected).max(axis=1) < 1e4
    info = TensorInfo(Path("random.gguf"), (int(fit.sum()), 2 * elements), name, "", "", 0, 0)
    found = _gguf_unpacker()(torch.from_numpy(raw[fit]), info).float().numpy()
    assert fit.sum() >= 8
    bound = 2e-3 * np.abs(expected[fit]).max(axis=1, keepdims=True) + 1e-7
    assert (np.abs(found - expected[fit]) <= bound).all()
