"""What the bits of a result depend on beside weights and request, by name. Knows nothing of requests."""

from __future__ import annotations

import diffusers
import torch

from wanreel.core.resolved import ResolvedRequest
from wanreel.models.held import Held
from wanreel.models.suit import step_facts
from wanreel.models.wan_model import WanModel


def environment_of(model: Held, request: ResolvedRequest | None = None) -> dict[str, str]:
    """Equal environments give equal bits. Where parts of the model live changes nothing and is not named."""
    device = model.device
    facts = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "precision": model.placement.precision,
        "vae_tile": str(model.placement.tile),
        "feed_forward_rows": str(model.placement.feed_forward_rows),
    } | step_facts(model)
    # What of several ranks may round otherwise, not how many there are.
    parallel = _arithmetic(model, request)
    if parallel:
        facts["parallel"] = parallel
    if device.type != "cuda":
        return facts | {"device": device.type, "threads": str(torch.get_num_threads())}
    return facts | {
        "device": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def _arithmetic(model: Held, request: ResolvedRequest | None) -> str:
    """A plan for two passes has its tokens in more parts where a step has one."""
    parallel = model.placement.parallel
    if request is None or not isinstance(model, WanModel) or parallel.cfg == 1:
        return parallel.arithmetic
    guided = {scale > 1.0 for scale in (request.guidance_high, request.guidance_low)[: model.spec.experts]}
    if request.guided_steps:
        guided.add(True)
    heads: int = model.experts[0].transformer.config.num_attention_heads
    words = [parallel.arithmetic, parallel.unguided(heads).arithmetic if False in guided else ""]
    return "; ".join(dict.fromkeys(word for word in words if word))
