"""The three networks of the demo, made and called as training needs them. Knows nothing of data or of optimisation."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from training.config import TEXT_ROWS, Shapes
from training.tokenizer import make_tokenizer


@dataclass
class Networks:
    """The parts that a checkpoint holds, on one device."""

    tokenizer: PreTrainedTokenizerFast
    text: Any  #: UMT5EncoderModel
    vae: Any  #: AutoencoderKLWan
    dit: Any  #: WanTransformer3DModel

    def to(self, device: torch.device) -> Networks:
        """Move every network, in place."""
        for module in (self.text, self.vae, self.dit):
            module.to(device)
        return self


def make_networks(shapes: Shapes) -> Networks:
    """Fresh networks from torch's global seed. The transformer starts by predicting zero."""
    tokenizer = make_tokenizer()
    z = int(shapes.vae["z_dim"])
    vae: Any = AutoencoderKLWan(latents_mean=[0.0] * z, latents_std=[1.0] * z, **shapes.vae)
    vae.quant_conv.weight.data[z:] *= 0.1  # start with little noise in the latents
    vae.quant_conv.bias.data[z:] = -6
    dit: Any = WanTransformer3DModel(**shapes.dit)
    nn.init.zeros_(dit.proj_out.weight)
    nn.init.zeros_(dit.proj_out.bias)
    return Networks(tokenizer, UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **shapes.text)), vae, dit)


def start_from(folder: Path, networks: Networks) -> list[str]:
    """Take over an earlier checkpoint, also one with fewer latent channels, residual blocks or words. -> what was done.

    What is new starts without effect: added residual blocks pass through, added channels and words are as freshly made.
    """
    report: list[str] = []
    for name, module in (("vae", networks.vae), ("text_encoder", networks.text), ("transformer", networks.dit)):
        state = load_file(sorted((folder / name).glob("*.safetensors"))[0])
        own = module.state_dict()
        for key, value in own.items():
            if key in state:
                _take_over(key, value, state[key].float(), name == "vae")
            elif key.endswith((".conv2.weight", ".conv2.bias")):
                value.zero_()
        if name == "text_encoder":
            _take_over_words(folder, networks, own["shared.weight"], state["shared.weight"].float())
        report.append(f"{name}: {sum(key in state for key in own)} of {len(own)} tensors")
    if networks.dit.config.in_channels != json.loads((folder / "transformer/config.json").read_text())["in_channels"]:
        return report
    config = json.loads((folder / "vae" / "config.json").read_text())
    networks.vae.register_to_config(latents_mean=config["latents_mean"], latents_std=config["latents_std"])
    return report


def _take_over(key: str, own: Tensor, old: Tensor, is_vae: bool) -> None:
    """Copy `old` into the leading part of `own`; the encoder's last layers hold means and deviations in two halves."""
    if own.shape == old.shape:
        own.copy_(old)
        return
    if key == "shared.weight" or key.endswith("embed_tokens.weight"):
        return  # done by word
    if is_vae and key.startswith(("encoder.conv_out", "quant_conv")):
        _copy_halves(own, old)
    elif key.startswith("proj_out"):  # rows are (pixel of the patch, channel)
        new_rows, old_rows = own.shape[0] // 4, old.shape[0] // 4
        own.unflatten(0, (4, new_rows))[:, :old_rows].copy_(old.unflatten(0, (4, old_rows)))
    else:
        own[tuple(slice(0, n) for n in old.shape)].copy_(old)


def _copy_halves(own: Tensor, old: Tensor) -> None:
    half, old_half = own.shape[0] // 2, old.shape[0] // 2
    for at, old_at in ((0, 0), (half, old_half)):
        target, source = own[at : at + old_half], old[old_at : old_at + old_half]
        if (
            own.dim() == 5 and own.shape[2:] == (1, 1, 1) and own.shape[1] == own.shape[0]
        ):  # quant_conv mixes both halves
            target[:, :old_half].copy_(source[:, :old_half])
            target[:, half : half + old_half].copy_(source[:, old_half:])
            target[:, old_half:half].zero_()
            target[:, half + old_half :].zero_()
        else:
            target.copy_(source)


def _take_over_words(folder: Path, networks: Networks, own: Tensor, old: Tensor) -> None:
    pieces = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    before = {piece: row for row, (piece, _) in enumerate(pieces)}
    for piece, row in networks.tokenizer.get_vocab().items():
        if piece in before:
            own[row].copy_(old[before[piece]])


class WholeClips:
    """While entered, Wan's VAE modules run a whole clip at once: the same result as the library's chunks of
    1+4+4+… frames, to rounding, in a fifth of the kernel launches."""

    def __enter__(self) -> WholeClips:
        self._library = WanResample.forward
        WanResample.forward = _resample_whole_clip
        return self

    def __exit__(self, *_: object) -> None:
        WanResample.forward = self._library


def _resample_whole_clip(self: Any, x: Tensor, feat_cache: Any = None, feat_idx: Any = None) -> Tensor:
    if feat_cache is not None:
        raise ValueError("the library's own chunked VAE can't run inside WholeClips")
    b, c, t, h, w = x.shape
    if self.mode == "upsample3d" and t > 1:
        y = self.time_conv(x[:, :, 1:]).view(b, 2, c, t - 1, h, w)
        doubled = torch.stack((y[:, 0], y[:, 1]), 3).reshape(b, c, 2 * (t - 1), h, w)
        x = torch.cat([x[:, :, :1], doubled], 2)
        t = x.shape[2]
    x = self.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    x = x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
    return x


def vae_encode(vae: Any, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Whole clips [b, 3, 1+4k, h, w] -> mean and log variance [b, z, 1+k, h/8, w/8], not normalised. In `WholeClips`."""
    mean, logvar = vae.quant_conv(vae.encoder(patchify(clips, vae.config.patch_size))).chunk(2, 1)
    return mean, logvar


def vae_decode(vae: Any, latents: Tensor) -> Tensor:
    """The way back, without the pipeline's clamp to [-1, 1], which has no gradient outside. In `WholeClips`."""
    return unpatchify(vae.decoder(vae.post_quant_conv(latents), first_chunk=True), vae.config.patch_size)


class ShortTextAttention:
    """Training only. The pipelines zero-pad the text to `max_sequence_length` rows and attend to the padding without a
    mask. All padding rows give one same key, so one row with bias log(count) equals them all: exact, and 40 rows cost
    a thirteenth of 512. The count is varied in training, so that any padding works later."""

    def __init__(self, device: torch.device) -> None:
        self.bias = torch.zeros(1, 1, 1, TEXT_ROWS, device=device)

    def pretend_rows(self, count: int) -> None:
        """Act as if the text were padded to `count` rows."""
        self.bias[..., -1] = math.log(count - TEXT_ROWS + 1)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, rotary_emb: Any = None,
    ) -> Tensor:  # fmt: skip
        query = attn.norm_q(attn.to_q(hidden_states))
        key, value = attn.norm_k(attn.to_k(encoder_hidden_states)), attn.to_v(encoder_hidden_states)
        q, k, v = (t.unflatten(2, (attn.heads, -1)).transpose(1, 2).to(value.dtype) for t in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.to(q.dtype))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def token_ids(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """-> [b, 39] int64, padded with 0."""
    batch: Any = tokenizer(
        prompts, padding="max_length", max_length=TEXT_ROWS - 1, truncation=True, return_tensors="pt"
    )
    return batch.input_ids


def embed_text(text: Any, ids: Tensor) -> Tensor:
    """As the pipelines do: the padding is masked, then zeroed. -> [b, 40, d], whose last row always is padding."""
    mask = ids.ne(0)
    out = text(ids, mask.long()).last_hidden_state * mask.unsqueeze(-1)
    return F.pad(out, (0, 0, 0, 1))
