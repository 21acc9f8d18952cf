"""The transformer's stage: rectified flow on encoded clips, with the text encoder beside it, trained jointly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import FLOW_SHIFT, Bucket, Config
from training.dice import Dice
from training.networks import Networks, ShortTextAttention, WholeClips, embed_text, token_ids, vae_encode
from training.optimizers import Average, GradientStep, Optimizers, rate_factor
from training.pool import Maker, Pool
from training.progress import Limits, Progress, load_state, log, save_state
from training.scenes import sample_scene
from training.textures import Bank
from training.vae_stage import half_precision
from training.words import NEGATIVE
from training.world import render

UNGUIDED_SHARE = 0.1  #: of prompts replaced by an empty or a negative one, for classifier-free guidance


def normalise(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the pipelines denoise them: by the config's mean and deviation of each channel."""
    mean = torch.tensor(vae.config.latents_mean, device=latents.device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=latents.device).view(1, -1, 1, 1, 1)
    return (latents.float() - mean) / std


@torch.no_grad()
def encode_clips(vae: Any, clips: Tensor) -> Tensor:
    """Clips [b, 3, t, h, w] in [-1, 1] -> normalised latents, bfloat16."""
    with WholeClips(), half_precision(clips.device):
        latents = torch.cat([vae_encode(vae, part)[0].float() for part in clips.split(32)])
    return normalise(vae, latents).to(torch.bfloat16)


def prompted_clips(networks: Networks) -> Maker:
    """Makes (latents, token ids) of the grammar's scenes."""

    def make(bucket: Bucket, count: int, bank: Bank, dice: Dice) -> tuple[Tensor, ...]:
        pairs = [sample_scene(bucket.frame, dice.pick) for _ in range(count)]
        clips = render([scene for _, scene in pairs], bank, bucket.frame, dice)
        ids = token_ids(networks.tokenizer, [prompt for prompt, _ in pairs])
        return encode_clips(networks.vae, clips), ids.to(clips.device)

    return make


def flow_loss(dit: Any, embedded: Tensor, latents: Tensor) -> tuple[Tensor]:
    """Rectified flow as UniPC with flow sigmas samples it: x_t = (1-s) x0 + s noise, t = floor(1000 s), target noise - x0.

    Half of the clips keep a clean first latent frame at t = 0, as `expand_timesteps` image-to-video does, and have no
    loss there. `latents` [b, z, t, h, w]; times are spread evenly over the batch.
    """
    b, _, t, h, w = latents.shape
    device = latents.device
    x0 = latents.float()
    u = (torch.rand(b, device=device) + torch.arange(b, device=device)) / b
    s = (FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u)).clamp(1e-4, 1)
    noise = torch.randn_like(x0)
    spread = s.view(b, 1, 1, 1, 1)
    free = torch.ones(b, 1, t, 1, 1, device=device)
    free[:, :, 0] = (torch.rand(b, device=device) < 0.5).float().view(b, 1, 1, 1)
    noisy = free * ((1 - spread) * x0 + spread * noise) + (1 - free) * x0
    times = ((s * 1000).floor().view(b, 1, 1, 1) * free[:, 0].expand(b, t, h // 2, w // 2)).flatten(1)
    predicted = dit(hidden_states=noisy, timestep=times, encoder_hidden_states=embedded, return_dict=False)[0]
    squared = (predicted.float() - (noise - x0)) ** 2 * free
    return (squared.sum() / free.expand_as(x0).sum(),)


class FlowTrainer:
    """One step at a time: text encoder, transformer, gradients, update, average."""

    def __init__(self, networks: Networks, config: Config, device: torch.device, compiled: bool) -> None:
        self._stage, self._device = config.dit, device
        self._text, self._dit = networks.text, networks.dit
        networks.vae.requires_grad_(False).eval()
        self.short = ShortTextAttention(device)
        for block in self._dit.blocks:
            block.attn2.set_processor(self.short)
        self.average = Average([self._text, self._dit], self._stage.average)
        if compiled:
            for block in self._dit.blocks:
                block.compile()
        self.optimizers = Optimizers([self._text, self._dit], self._stage.muon_rate, self._stage.adam_rate)
        self._gradients = GradientStep(self._loss, list(self._dit.parameters()), True, capture=device.type == "cuda")
        self._negative = token_ids(networks.tokenizer, NEGATIVE).to(device)

    def _loss(self, embedded: Tensor, latents: Tensor) -> tuple[Tensor]:
        with half_precision(self._device):
            return flow_loss(self._dit, embedded, latents)

    def step(
        self, number: int, done: float, latents: Tensor, ids: Tensor, dice: random.Random
    ) -> tuple[Tensor, Tensor]:
        """-> (loss, gradient norm)."""
        self.short.pretend_rows(512 if dice.random() < 0.6 else dice.choice([64, 128, 226, 256]))
        drop = torch.rand(len(ids), device=self._device) < UNGUIDED_SHARE
        other = torch.randint(0, len(self._negative), (len(ids),), device=self._device)
        ids = torch.where(drop[:, None], self._negative[other], ids)
        self._text.zero_grad(set_to_none=True)
        embedded = embed_text(self._text, ids)
        (loss,) = self._gradients(embedded, latents)
        embedded.backward(self._gradients.first_gradient)
        norm = self.optimizers.step(rate_factor(number, done, self._stage.warmup, self._stage.level))
        self.average.update(number + 1)
        return loss, norm

    def state_dict(self) -> dict[str, Any]:
        return {
            "text": self._text.state_dict(), "dit": self._dit.state_dict(), "optimizers": self.optimizers.state_dict(),
            "average": [m.state_dict() for m in self.average.modules],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._text.load_state_dict(state["text"])
        self._dit.load_state_dict(state["dit"])
        self.optimizers.load_state_dict(state["optimizers"])
        for module, saved in zip(self.average.modules, state["average"], strict=True):
            module.load_state_dict(saved)


def train_dit(networks: Networks, config: Config, limits: Limits, seed: int, device: torch.device, state: Path) -> bool:
    """Train text encoder and transformer. Afterwards `networks` hold the averaged weights. -> whether it is finished."""
    stage = config.dit
    bank = Bank(stage.data.textures, stage.data.texture_size, seed + 1, device, stage.data.texture_chunk)
    pool = Pool(stage.buckets, stage.data, seed, prompted_clips(networks), bank)
    trainer = FlowTrainer(networks, config, device, compiled=device.type == "cuda")
    progress = Progress(limits)
    if state.exists():
        saved = load_state(state, device)
        trainer.load_state_dict(saved["trainer"])
        progress.step, progress.spent = saved["step"], saved["spent"]
    progress.start()
    random_state = torch.get_rng_state()
    pool.fill(progress.step)
    torch.set_rng_state(random_state)
    log.info("dit: pool ready in %.0f s, step %d", progress.elapsed - progress.spent, progress.step)
    total = torch.zeros((), device=device)
    while progress.done < 1 and not progress.paused:
        _, (latents, ids) = pool.batch(progress.step)
        dice = random.Random(f"{seed}:step:{progress.step}")
        loss, norm = trainer.step(progress.step, progress.done, latents, ids, dice)
        progress.step += 1
        pool.advance(progress.step)
        total += loss
        if progress.step % 500 == 0:
            log.info(
                "dit %d loss %.4f |g| %.2f %.0f s", progress.step, total.item() / 500, norm.item(), progress.elapsed
            )
            total.zero_()
    save_state(state, {"trainer": trainer.state_dict(), "step": progress.step, "spent": progress.elapsed})
    networks.text, networks.dit = trainer.average.modules
    return progress.done >= 1
