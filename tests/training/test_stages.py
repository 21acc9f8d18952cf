"""The stages on tiny settings: resuming is exact, the shortcuts equal what they stand for, and files have their layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from safetensors.torch import load_file
from training.__main__ import STAGES
from training.config import TINY, Bucket, DataSettings
from training.decoder_stage import train_decoder
from training.dice import Dice
from training.dit_stage import encode_clips, flow_loss, train_dit
from training.export import save_pipeline
from training.lora_stage import add_branches, gild, lora_tensors
from training.networks import (
    ShortTextAttention,
    WholeClips,
    embed_text,
    make_networks,
    start_from,
    token_ids,
    vae_decode,
    vae_encode,
)  # fmt: skip
from training.optimizers import Average, Muon, rate_factor
from training.pool import Pool
from training.progress import Limits, Progress
from training.scenes import Frame
from training.textures import Bank
from training.vae_stage import train_vae

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("stage", ["vae", "decoder", "dit"])
def test_a_resumed_stage_ends_equal_to_one_without_a_pause(stage: str, tmp_path: Path) -> None:
    train = {"vae": train_vae, "decoder": train_decoder, "dit": train_dit}[stage]

    def run(name: str, limits: list[Limits]) -> dict[str, torch.Tensor]:
        result: dict[str, torch.Tensor] = {}
        for limit in limits:
            torch.manual_seed(1)
            networks = make_networks(TINY.shapes)
            finished = train(networks, TINY, limit, 7, CPU, tmp_path / f"{name}.pt")
            assert finished == (limit is limits[-1])
            result = (
                weights(networks.vae) if stage in ("vae", "decoder") else weights(networks.dit) | weights(networks.text)
            )
        return result

    straight = run("straight", [Limits(steps=4)])
    paused = _pausing_limits(steps=4, after=2)
    assert_same(straight, run("paused", [paused, Limits(steps=4)]))


def _pausing_limits(steps: int, after: int) -> Limits:
    """Limits whose pause comes after a number of steps rather than seconds, so that the test has no clock in it."""
    limits = Limits(steps=steps, pause_after=0.0)

    class Counting(float):
        looks = 0

        def __le__(self, other: object) -> bool:  # `elapsed >= pause_after` asks this side
            Counting.looks += 1
            return Counting.looks > after

    object.__setattr__(limits, "pause_after", Counting(0.0))
    return limits


def test_the_decoders_stage_leaves_everything_else_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(1)
    networks = make_networks(TINY.shapes)
    before = weights(networks.vae) | weights(networks.dit) | weights(networks.text)
    assert train_decoder(networks, TINY, Limits(steps=2), 7, CPU, tmp_path / "decoder.pt")
    after = weights(networks.vae) | weights(networks.dit) | weights(networks.text)
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed
    assert all(key.startswith(("decoder.", "post_quant_conv.")) for key in changed)


def test_whole_clips_equal_the_librarys_chunks() -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(latents_mean=[0.0] * 8, latents_std=[1.0] * 8, **TINY.shapes.vae).eval()
    clip = torch.rand(1, 3, 9, 32, 32) - 0.5
    with torch.no_grad():
        chunked = vae.encode(clip).latent_dist
        decoded = vae.decode(chunked.mode()).sample
        with WholeClips():
            mean, logvar = vae_encode(vae, clip)
            whole = vae_decode(vae, mean).clamp(-1, 1)
    torch.testing.assert_close(mean, chunked.mode(), atol=1e-4, rtol=0)
    torch.testing.assert_close(logvar, chunked.logvar, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole, decoded, atol=1e-4, rtol=0)
    after = vae.encode(clip).latent_dist.mode()  # the library's way is back
    torch.testing.assert_close(after, chunked.mode())


def test_short_text_attention_equals_attention_to_all_the_padding() -> None:
    torch.manual_seed(0)
    networks = make_networks(TINY.shapes)
    torch.nn.init.normal_(networks.dit.proj_out.weight)
    text = embed_text(networks.text, token_ids(networks.tokenizer, ["a red circle moves right"]))
    long = torch.cat([text, text.new_zeros(1, 512 - text.shape[1], text.shape[2])], 1)
    call: dict[str, Any] = {
        "hidden_states": torch.randn(1, 8, 2, 4, 4),
        "timestep": torch.tensor([500.0]),
        "return_dict": False,
    }
    with torch.no_grad():
        wanted = networks.dit(encoder_hidden_states=long, **call)[0]
        short = ShortTextAttention(CPU)
        short.pretend_rows(512)
        for block in networks.dit.blocks:
            block.attn2.set_processor(short)
        torch.testing.assert_close(networks.dit(encoder_hidden_states=text, **call)[0], wanted, atol=1e-5, rtol=1e-4)


def test_embedding_equals_the_pipelines_own() -> None:
    torch.manual_seed(0)
    networks = make_networks(TINY.shapes)
    parts: Any = (networks.tokenizer, networks.text, networks.vae, None, networks.dit)
    pipeline: Any = WanPipeline(*parts)
    with torch.no_grad():
        theirs = pipeline._get_t5_prompt_embeds("the camera pans left", max_sequence_length=40)
        ours = embed_text(networks.text, token_ids(networks.tokenizer, ["the camera pans left"]))
    torch.testing.assert_close(ours, theirs)


def test_the_loss_of_a_perfect_prediction_is_zero() -> None:
    latents = torch.randn(4, 8, 2, 4, 4)

    def oracle(hidden_states: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        assert timestep.shape == (4, 2 * 2 * 2)
        clean = timestep[:, :4].eq(0).all(1)  # a clean first frame is at t = 0 and is the latents themselves
        assert torch.equal(hidden_states[clean, :, 0], latents[clean, :, 0])
        noise_minus_x0 = (hidden_states - latents) / _noise_share(timestep, latents)
        return (noise_minus_x0,)

    (loss,) = flow_loss(oracle, torch.zeros(4, 40, 32), latents)
    assert loss < 0.05  # t is rounded down to thousandths, as in the pipelines


def _noise_share(timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    last = timestep[:, -1].view(-1, 1, 1, 1, 1)
    return ((last + 0.5) / 1000).expand_as(latents)


def test_going_on_from_a_smaller_checkpoint_keeps_what_it_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = make_networks(TINY.shapes)
    save_pipeline(tmp_path / "weights", small)
    bigger = {**TINY.shapes.vae, "z_dim": 12, "num_res_blocks": 2}
    grown_shapes = type(TINY.shapes)(
        bigger, TINY.shapes.text, {**TINY.shapes.dit, "in_channels": 12, "out_channels": 12}
    )
    grown = make_networks(grown_shapes)
    with torch.no_grad():
        grown.vae.post_quant_conv.weight[:, 8:] = 0  # only the taken-over part speaks
        grown.vae.decoder.conv_in.weight[:, 8:] = 0
    start_from(tmp_path / "weights", grown)
    clip = torch.rand(1, 3, 5, 32, 32) - 0.5
    with torch.no_grad(), WholeClips():
        old_mean, old_logvar = vae_encode(small.vae, clip)
        mean, logvar = vae_encode(grown.vae, clip)
        torch.testing.assert_close(mean[:, :8], old_mean, atol=5e-3, rtol=0)
        torch.testing.assert_close(logvar[:, :8], old_logvar, atol=5e-2, rtol=0)
        torch.testing.assert_close(vae_decode(grown.vae, mean), vae_decode(small.vae, old_mean), atol=2e-2, rtol=0)
    row = small.tokenizer.get_vocab()["▁circle"]
    torch.testing.assert_close(grown.text.shared.weight[row], small.text.shared.weight[row])


def test_gold_comes_gradually_and_follows_brightness() -> None:
    clip = torch.rand(1, 3, 17, 8, 8) * 2 - 1
    gold = gild(clip)
    assert torch.equal(gold[:, :, 0], clip[:, :, 0])
    red, green, blue = gold[0, :, 12].flatten(1)
    assert (red >= green - 0.11).all()
    assert (green >= blue - 0.11).all()
    light = gild(torch.stack([torch.full((3, 17, 1, 1), v) for v in (-0.9, 0.0, 0.9)]))[:, :, -1].sum(1).flatten()
    assert light[0] < light[1] < light[2]


def test_lora_branches_start_without_effect_and_have_pefts_keys() -> None:
    torch.manual_seed(0)
    networks = make_networks(TINY.shapes)
    call: dict[str, Any] = {
        "hidden_states": torch.randn(1, 8, 2, 4, 4),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 40, 32),
        "return_dict": False,
    }
    torch.nn.init.normal_(networks.dit.proj_out.weight)
    with torch.no_grad():
        before = networks.dit(**call)[0]
        branches = add_branches(networks.dit, 2)
        assert torch.equal(networks.dit(**call)[0], before)
    tensors = lora_tensors(branches)
    assert tensors["transformer.blocks.1.attn1.to_q.lora_A.weight"].shape == (2, 32)
    assert tensors["transformer.blocks.0.ffn.net.2.lora_B.weight"].shape == (32, 2)


def test_muon_moves_along_an_orthogonal_direction() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    weight.grad = torch.randn(6, 4)
    Muon([weight], lr=1.0, weight_decay=0.0).step()
    singular = torch.linalg.svdvals(weight.detach())
    assert singular.min() > 0.5
    assert singular.max() < 1.6


def test_the_rate_rises_stays_and_falls() -> None:
    assert rate_factor(0, 0.0, 100, 0.5) == pytest.approx(0.01)
    assert rate_factor(500, 0.4, 100, 0.5) == 1.0
    assert rate_factor(500, 1.0, 100, 0.5) == pytest.approx(0.02)


def test_the_average_follows_slowly() -> None:
    layer = torch.nn.Linear(2, 2)
    average = Average([layer], 0.9)
    mean: Any = average.modules[0]
    before = mean.weight.clone()
    with torch.no_grad():
        layer.weight += 1.0
    average.update(1000)
    torch.testing.assert_close(mean.weight, before + 0.1)


def test_a_stage_needs_one_kind_of_limit() -> None:
    with pytest.raises(ValueError, match="either"):
        Limits()
    with pytest.raises(ValueError, match="either"):
        Limits(seconds=1, steps=1)


def test_progress_goes_on_from_the_seconds_of_earlier_processes() -> None:
    clock = iter([0.0, 30.0, 45.0]).__next__
    progress = Progress(Limits(seconds=100, pause_after=40), now=clock, spent=20.0)
    progress.start()
    assert progress.done == pytest.approx(0.5)
    assert progress.paused


def test_a_rebuilt_pool_equals_the_one_that_was_renewed_step_by_step() -> None:
    buckets = (Bucket(Frame(16, 16, 1), 4, 8, 0.7), Bucket(Frame(16, 32, 1), 4, 4, 0.3))
    settings = DataSettings(textures=4, texture_size=32, texture_chunk=2, chunk=2, renew_every=1, chunks_per_texture=2)

    def make(bucket: Bucket, count: int, bank: Bank, dice: Dice) -> tuple[torch.Tensor, ...]:
        cuts = [bank.crop("any", bucket.frame.height, bucket.frame.width, dice) for _ in range(count)]
        return (torch.stack(cuts),)

    def pool() -> Pool:
        return Pool(buckets, settings, 3, make, Bank(4, 32, 3, CPU, 2))

    stepped, rebuilt = pool(), pool()
    stepped.fill(0)
    for step in range(1, 12):
        stepped.advance(step)
    rebuilt.fill(11)
    for step in range(11, 17):
        (bucket, (rows,)), (other, (same,)) = stepped.batch(step), rebuilt.batch(step)
        assert bucket == other
        assert torch.equal(rows, same)
        stepped.advance(step + 1)
        rebuilt.advance(step + 1)


@pytest.mark.deep
def test_the_command_trains_every_stage_and_writes_what_diffusers_loads(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--config", "tiny", "--seed", "3"]
    for stage in STAGES:
        arguments += [f"--{stage}-steps", "2"]
    # In a process of its own: training sets how numbers are computed for all of a process.
    subprocess.run([sys.executable, "-m", "training", *arguments], cwd=Path(__file__).parents[2], check=True)
    pipeline: Any = WanPipeline.from_pretrained(tmp_path / "weights")
    assert pipeline.config.expand_timesteps
    assert len(pipeline.vae.config.latents_std) == 8
    assert (
        json.loads((tmp_path / "weights" / "model_index.json").read_text())["tokenizer"][1] == "PreTrainedTokenizerFast"
    )
    preview = load_file(tmp_path / "preview.safetensors")
    assert preview["last.weight"].shape == (48, 32, 3, 3)
    assert all(key.startswith("transformer.blocks.") for key in load_file(tmp_path / "loras" / "gold.safetensors"))


def test_encoded_clips_are_normalised_by_the_config() -> None:
    torch.manual_seed(0)
    networks = make_networks(TINY.shapes)
    clip = torch.rand(1, 3, 5, 32, 32) - 0.5
    plain = encode_clips(networks.vae, clip).float()
    networks.vae.register_to_config(latents_mean=[1.0] * 8, latents_std=[2.0] * 8)
    torch.testing.assert_close(encode_clips(networks.vae, clip).float(), (plain - 1) / 2, atol=2e-2, rtol=0)
