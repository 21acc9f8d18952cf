"""Presets: what a named effort means for a model. Knows nothing of the LoRAs that few steps may need (see few_step)."""

from __future__ import annotations

from collections.abc import Mapping

from wanreel.core.catalog import ModelSpec
from wanreel.core.request import PresetName

#: Steps of a preset relative to the model's official ones. Shift is never part of a preset.
PRESET_STEPS: Mapping[PresetName, float] = {"draft": 0.5, "standard": 1.0, "high": 1.25}


def preset_steps(spec: ModelSpec, preset: PresetName) -> int | None:
    """Denoise steps of `preset` for `spec`; None when the model has no such mode by itself (see core/few_step.py).

    Half up, so that 62.5 is 63: never fewer than the preset promises.
    """
    if preset in ("fast", "motion") or spec.few_step:
        return spec.fast_steps if preset == "fast" else None
    return max(1, int(spec.steps * PRESET_STEPS[preset] + 0.5))
