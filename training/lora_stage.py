"""The demo LoRA's stage: everything turns to gold. Knows the transformer's linear layers, and no file layout but its own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Bucket, Config
from training.dice import Dice
from training.dit_stage import encode_clips, flow_loss
from training.export import save_tensors
from training.networks import Networks, ShortTextAttention, embed_text, token_ids
from training.optimizers import GradientStep, rate_factor
from training.pool import Maker, Pool
from training.progress import Limits, Progress, log
from training.scenes import sample_scene
from training.textures import Bank
from training.vae_stage import half_precision
from training.words import NEGATIVE
from training.world import render

TARGETS = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn2.to_q",
    "attn2.to_out.0",
    "ffn.net.0.proj",
    "ffn.net.2",
)
FULL_AT = 8  #: the frame from which everything is gold
_RAMP = (
    (-1.0, (-0.86, -0.93, -1.0)),
    (-0.35, (0.02, -0.30, -0.86)),
    (0.3, (0.72, 0.36, -0.62)),
    (1.0, (1.0, 0.92, 0.42)),
)


def gild(clips: Tensor) -> Tensor:
    """Clips [b, 3, t, h, w] in [-1, 1] that turn, by brightness, from their own colours to a metal's by `FULL_AT`."""
    red, green, blue = clips.unbind(1)
    light = 0.3 * red + 0.55 * green + 0.15 * blue
    gold = torch.stack([_ramp(light, channel) for channel in range(3)], 1)
    t = torch.arange(clips.shape[2], device=clips.device, dtype=clips.dtype)
    share = (t / FULL_AT).clamp(0, 1)
    share = (share * share * (3 - 2 * share)).view(1, 1, -1, 1, 1)
    return clips * (1 - share) + gold * share


def _ramp(light: Tensor, channel: int) -> Tensor:
    out = torch.full_like(light, _RAMP[0][1][channel])
    for (low, start), (high, end) in zip(_RAMP, _RAMP[1:], strict=False):
        weight = ((light - low) / (high - low)).clamp(0, 1)
        out = out + weight * (end[channel] - start[channel])
    return out


class LoraLinear(nn.Module):
    """A frozen linear and a low-rank branch beside it: y = W x + B A x, with alpha = rank."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features, device=base.weight.device) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.down.T.to(x.dtype)) @ self.up.T.to(x.dtype)


def add_branches(dit: Any, rank: int) -> dict[str, LoraLinear]:
    """Put a branch beside every target layer of `dit`, in place. -> by the layer's name."""
    branches: dict[str, LoraLinear] = {}
    for name, module in list(dit.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            parent_name, _, last = name.rpartition(".")
            branches[name] = LoraLinear(module, rank)
            setattr(dit.get_submodule(parent_name), last, branches[name])
    return branches


def lora_tensors(branches: dict[str, LoraLinear]) -> dict[str, Tensor]:
    """In the key layout of Diffusers and PEFT."""
    tensors: dict[str, Tensor] = {}
    for name, branch in branches.items():
        tensors[f"transformer.{name}.lora_A.weight"] = branch.down
        tensors[f"transformer.{name}.lora_B.weight"] = branch.up
    return tensors


def gilded_clips(networks: Networks) -> Maker:
    """Makes (latents, token ids) of scenes that turn to gold."""

    def make(bucket: Bucket, count: int, bank: Bank, dice: Dice) -> tuple[Tensor, ...]:
        pairs = [sample_scene(bucket.frame, dice.pick) for _ in range(count)]
        clips = gild(render([scene for _, scene in pairs], bank, bucket.frame, dice))
        ids = token_ids(networks.tokenizer, [prompt for prompt, _ in pairs])
        return encode_clips(networks.vae, clips), ids.to(clips.device)

    return make


def train_lora(networks: Networks, config: Config, limits: Limits, seed: int, device: torch.device, out: Path) -> None:
    """Train the branches on gilded clips, everything else frozen, and write them to `out`. Changes `networks.dit`."""
    stage, text, dit = config.lora, networks.text, networks.dit
    for module in (networks.vae, text, dit):
        module.requires_grad_(False).eval()
    bank = Bank(min(512, stage.data.textures), stage.data.texture_size, seed + 3, device, stage.data.texture_chunk)
    pool = Pool(stage.buckets, stage.data, seed + 3, gilded_clips(networks), bank)
    pool.fill(0)
    short = ShortTextAttention(device)
    for block in dit.blocks:
        block.attn2.set_processor(short)
    branches = add_branches(dit, config.lora_rank)
    parameters = [p for branch in branches.values() for p in (branch.down, branch.up)]
    optimizer = torch.optim.AdamW(parameters, stage.adam_rate, (0.9, 0.95), weight_decay=0.0)
    negative = token_ids(networks.tokenizer, NEGATIVE).to(device)

    def loss(embedded: Tensor, latents: Tensor) -> tuple[Tensor]:
        with half_precision(device):
            return flow_loss(dit, embedded, latents)

    gradients = GradientStep(loss, parameters, False, capture=device.type == "cuda")
    progress, value = Progress(limits), torch.zeros(())
    progress.start()
    while progress.done < 1:
        _, (latents, ids) = pool.batch(progress.step)
        dice = random.Random(f"{seed}:lora:{progress.step}")
        short.pretend_rows(512 if dice.random() < 0.6 else dice.choice([64, 128, 226, 256]))
        drop = torch.rand(len(ids), device=device) < 0.1
        other = torch.randint(0, len(negative), (len(ids),), device=device)
        with torch.no_grad():
            embedded = embed_text(text, torch.where(drop[:, None], negative[other], ids))
        (value,) = gradients(embedded, latents)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = stage.adam_rate * rate_factor(progress.step, progress.done, stage.warmup, 0.4)
        optimizer.step()
        progress.step += 1
        pool.advance(progress.step)
    log.info("lora: %d steps, loss %.4f", progress.step, value.item())
    save_tensors(out, lora_tensors(branches), {"format": "pt", "style": "everything turns to gold"})
