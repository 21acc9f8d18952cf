"""What the bits of a result depend on beside weights and request, by name. Knows nothing of requests."""

from __future__ import annotations

import diffusers
import torch

from wanreel.models.held import Held
from wanreel.models.step.suit import step_facts


def environment_of(model: Held) -> dict[str, str]:
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
    # What several ranks change: on resume, not how many there were.
    if model.placement.parallel.arithmetic:
        facts["parallel"] = model.placement.parallel.arithmetic
    if device.type != "cuda":
        return facts | {"device": device.type, "threads": str(torch.get_num_threads())}
    return facts | {
        "device": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
