"""Prompts and pictures become what Diffusers' pipelines make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from PIL import Image

from generation.factory import ARCHITECTURES, make_case, noise_picture
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Mode
from wanreel.core.errors import Cancelled
from wanreel.core.placement import Placement, Tile
from wanreel.generation.encode import Pictures, _encode_streamed, clean_prompt, encode
from wanreel.models import prompt_cache
from wanreel.models.prompt_cache import PromptCache, SightMemory
from wanreel.models.wan_model import WanModel
from wanreel.testing import build_tiny, diffusers_pipeline


@pytest.mark.parametrize(
    "text",
    [
        "a  red\n circle ",
        "caf\u00c3\u00a9",
        "a &amp;amp; b",
        "镜头晃动，色调艳丽",
        "",
        "\u201cquotes\u201d\t\u2026",
        "&lt;b&gt;",
    ],
)
def test_prompts_are_cleaned_as_in_the_pipelines(text: str) -> None:
    assert clean_prompt(text) == prompt_clean(text)


def test_prompt_embeddings_equal_the_pipeline() -> None:
    case = make_case("t2v-1.3b")
    ours = case.encode()
    with torch.no_grad():
        text, negative = diffusers_pipeline(case.model()).encode_prompt(
            case.request.prompt, case.request.negative_prompt, max_sequence_length=512
        )
    assert torch.equal(ours.text, text)
    assert ours.negative is not None
    assert torch.equal(ours.negative, negative)
    assert not ours.text[0, -1].any()  # zeros after the prompt's end


def test_a_prompt_of_512_tokens_is_read_whole_and_a_longer_one_is_cut_with_a_note() -> None:
    # The tiny tokenizer: one token a character, one for the start, one for the end.
    fits, cut = (make_case("t2v-1.3b", negative_prompt="") for _ in range(2))
    object.__setattr__(fits.request, "prompt", "x" * 510)
    object.__setattr__(cut.request, "prompt", "x" * 511)
    assert fits.encode().notes == ()
    (note,) = cut.encode().notes
    assert note == "The prompt was cut: 513 tokens, and tiny:t2v-1.3b reads 512."
    assert cut.encode().text.shape == (1, 512, 32)


def test_the_negative_prompt_is_encoded_only_when_an_expert_is_guided() -> None:
    assert make_case("t2v-a14b", guidance_high=1.0, guidance_low=1.0).encode().negative is None
    assert make_case("t2v-a14b", guidance_high=1.0, guidance_low=2.0).encode().negative is not None
    assert make_case("t2v-a14b", guidance_high=2.0, guidance_low=1.0).encode().negative is not None


@pytest.mark.parametrize(("name", "mode"), [item for item in ARCHITECTURES if item[1] != "text"])
def test_pictures_equal_the_pipeline(name: str, mode: Mode) -> None:
    case = make_case(name, mode, num_frames=13)
    ours, request = case.encode(), case.request
    pipeline: Any = diffusers_pipeline(case.model(), picture=True)
    given = [
        pipeline.video_processor.preprocess(item, height=request.height, width=request.width)
        for item in (case.pictures.first, case.pictures.last)
        if item is not None
    ]
    with torch.no_grad():
        theirs = pipeline.prepare_latents(
            given[0], 1, case.spec.latent_channels, request.height, request.width, request.num_frames,
            torch.float32, torch.device("cpu"), None, torch.zeros(ours.shape), *given[1:],
        )  # fmt: skip
    if case.spec.conditioning == "first_frame":
        assert ours.channels is None
        assert ours.first_frame is not None
        assert torch.equal(ours.first_frame, theirs[1])
    else:
        assert ours.first_frame is None
        assert ours.channels is not None
        assert torch.equal(ours.channels, theirs[1])
    if case.spec.clip:
        assert ours.clip is not None
        pictures: Any = [item for item in (case.pictures.first, case.pictures.last) if item]
        with torch.no_grad():
            assert torch.equal(ours.clip, pipeline.encode_image(pictures))
    else:
        assert ours.clip is None


def test_a_picture_of_another_shape_is_covered_and_cropped_never_stretched() -> None:
    tall = Image.new("RGB", (100, 300), "blue")
    tall.paste("red", (25, 125, 75, 175))  # a square in the middle
    (fitted,) = Pictures(tall).fitted(64, 64)
    red = np.asarray(fitted)[..., 0] > 128
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert fitted.size == (64, 64)
    assert len(rows) == len(columns) == 32
    assert rows[0] == columns[0] == 16


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    picture = noise_picture(1, 64, 48)
    (fitted,) = Pictures(picture).fitted(64, 48)
    assert np.array_equal(np.asarray(fitted), np.asarray(picture))


def test_cancelled_before_it_began() -> None:
    case, cancel = make_case("i2v-14b-480p", "picture"), CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        encode(case.model(), case.request, case.pictures, cancel)


def test_fingerprints_tell_conditionings_apart() -> None:
    base = make_case("ti2v-5b", "picture")
    same, other_prompt, no_picture = (
        make_case("ti2v-5b", "picture"),
        make_case("ti2v-5b", "picture", negative_prompt="blurred"),
        make_case("ti2v-5b"),
    )
    prints = [case.encode().fingerprint() for case in (base, same, other_prompt, no_picture)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_the_lean_encoder_is_near_and_left_where_fp16_does_not_suffice() -> None:
    case = make_case("i2v-a14b", "picture", num_frames=5)
    vae, video = case.model().vae, torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        exact = _encode_streamed(vae, video, CancelToken(), lean=False)
        lean = _encode_streamed(vae, video, CancelToken(), lean=True)
        assert 0 < float((lean - exact).norm() / exact.norm()) < 0.005
        too_large = _encode_streamed(vae, video * 1e6, CancelToken(), lean=True)
        assert torch.equal(too_large, _encode_streamed(vae, video * 1e6, CancelToken(), lean=False))


def _counted(model: WanModel, cache: PromptCache) -> tuple[WanModel, list[int]]:
    """The model with a memory of pictures in `cache`, and the frames that its VAE's encoder was given, chunk by chunk."""
    seen: list[int] = []
    model.vae.encoder.conv_in.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape[2]))
    model.sights = SightMemory(cache, "vae", "cpu")
    return model, seen


def test_a_picture_is_encoded_once_for_all_seeds_and_processes(tmp_path: Path) -> None:
    case = make_case("i2v-a14b", "picture")
    cache = PromptCache(tmp_path, 10**7)
    model, seen = _counted(case.fresh_model(), cache)
    first = case.encode(model).channels
    assert seen
    # Another process has other objects over the same files; another plan keeps weights elsewhere.
    model, seen = _counted(build_tiny(case.spec, placement=Placement("exclusive")), cache)
    again = replace(case, request=replace(case.request, seed=99, num_inference_steps=2)).encode(model).channels
    assert seen == []
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)


@pytest.mark.parametrize("change", ["picture", "frames", "tile"])
def test_what_changes_the_latents_is_encoded_again(tmp_path: Path, change: str) -> None:
    case = make_case("i2v-a14b", "picture")
    cache = PromptCache(tmp_path, 10**7)
    model, seen = _counted(case.fresh_model(), cache)
    case.encode(model)
    seen.clear()
    if change == "picture":
        case = replace(case, pictures=Pictures(noise_picture(9, 64, 64)))
    elif change == "frames":
        case = replace(case, request=replace(case.request, num_frames=5))
    else:
        model.run_with(replace(model.placement, tile=Tile(32, 32, 8)))
    case.encode(model)
    assert seen


def test_what_the_largest_request_needs_may_be_kept() -> None:
    channels, frames, height, width = 16, 41, 1088 // 8, 1920 // 8  # 161 frames of 1080p, fp32
    assert 4 * channels * frames * height * width < prompt_cache._LARGEST  # pyright: ignore[reportPrivateUsage]
