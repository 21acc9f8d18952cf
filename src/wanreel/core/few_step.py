"""Few-step recipes: what it takes to run an official model in a few steps with LoRAs distilled for it, as rows of data.

Every value has its source. Knows nothing of files; LoRAs are recognised by the names their makers gave them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wanreel.core.catalog import TINY_PREFIX, ModelSpec
from wanreel.core.lora import LoraRef
from wanreel.core.request import PresetName, Solver


@dataclass(frozen=True, slots=True)
class LoraPair:
    """LoRAs made together, by patterns of their names (whole name, any case)."""

    high: str  #: for the high-noise expert, or the only one
    low: str  #: for the low-noise expert; empty for one-expert models
    where: str  #: repository and file names on the hub

    def find(self, names: Iterable[str]) -> tuple[str, ...] | None:
        """The names of those on the shelf, the last by name of several; None where one is missing."""
        shelf = sorted(names)
        found = [_last(pattern, shelf) for pattern in (self.high, self.low) if pattern]
        present = tuple(name for name in found if name is not None)
        return present if len(present) == len(found) else None


@dataclass(frozen=True, slots=True)
class FewStepRecipe:
    """How a preset runs on some models once their LoRAs are there. Guidance is 1 but in the first `guided_steps`."""

    preset: PresetName
    models: tuple[str, ...]
    pairs: tuple[LoraPair, ...]  #: the first that is there is taken
    steps: int
    solver: Solver
    flow_shift: float
    sources: tuple[str, ...]
    guided_steps: int = 0  #: first steps at the model's own guidance
    high_schedule: str = ""  #: of the high-noise LoRA's strength
    boundary_ratio: float | None = None  #: None: the model's own


#: What a recipe decides beside steps and LoRAs.
_OF_RECIPES = ("guidance_high", "guidance_low", "flow_shift", "solver", "guided_steps", "boundary_ratio")
_LIGHTX2V = "ModelTC/LightX2V: configs/distill/wan22, lightx2v/models/schedulers/wan/step_distill/scheduler.py"
_DOCS = "lightx2v-en.readthedocs.io: method_tutorials/step_distill (timesteps 1000, 750, 500, 250; shift 5; CFG off)"
_LIGHTNING = "ModelTC/Wan2.2-Lightning: README (4 steps, shift 5, guidance 1, Euler, two steps an expert)"
_MOTION = (
    "deepbeepmeep/Wan2GP: three-phase profile of the Lightning LoRAs (8 steps, guidance 3.5 / 1 / 1, phases from timesteps "
    "965 and 800, shift 3, LoRA from the second phase on)",
    "ModelTC/LightX2V-Wan2.2-Lightning#13, #32 (slow motion without it)",
)


def _distilled(task: str, version: str) -> LoraPair:
    name = rf"(?=.*{task})(?=.*lightx2v)(?=.*4step).*(?<![a-z])%s(?![a-z]).*"
    file = f"wan2.2_{task}_A14b_%s_noise_lora_rank64_lightx2v_4step_{version}.safetensors"
    return LoraPair(name % "high", name % "low", f"lightx2v/Wan2.2-Distill-Loras: {file % 'high'} and {file % 'low'}")


def _lightning(task: str, folder: str) -> LoraPair:
    name = rf"(?=.*{task})(?=.*(lightning|seko|4steps)).*(?<![a-z])%s(?![a-z]).*"
    where = f"lightx2v/Wan2.2-Lightning: {folder}, as {task}-lightning-high and {task}-lightning-low (--name)"
    return LoraPair(name % "high", name % "low", where)


_I2V_PAIRS = (_distilled("i2v", "1022"), _lightning("i2v", "Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1"))
_T2V_PAIRS = (_distilled("t2v", "1217"), _lightning("t2v", "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1"))


def _fast(model: str, pairs: tuple[LoraPair, ...]) -> FewStepRecipe:
    """Shift 5 puts four Euler steps at timesteps 1000, 937.5, 833.3 and 625: LightX2V's shifted list, two of them above
    either model's boundary (its boundary_step_index of 2)."""
    return FewStepRecipe("fast", (model,), pairs, 4, "euler", 5.0, (_LIGHTX2V, _LIGHTNING))


def _motion(model: str, pairs: tuple[LoraPair, ...]) -> FewStepRecipe:
    """The first of its eight steps, the only one above timestep 965 at shift 3, has guidance and no LoRA."""
    return FewStepRecipe(
        preset="motion",
        models=(model,),
        pairs=pairs,
        steps=8,
        solver="euler",
        flow_shift=3.0,
        sources=_MOTION,
        guided_steps=1,
        high_schedule="0,1,1,1,1,1,1,1",
        boundary_ratio=0.8,
    )


def _distilled_21(models: tuple[str, ...], task: str, file: str) -> FewStepRecipe:
    pattern = rf"(?=.*{task})(?=.*(lightx2v_4step|cfg_step_distill))(?!.*(high|low)).*"
    pair = LoraPair(pattern, "", f"lightx2v/Wan2.1-Distill-Loras: {file}")
    return FewStepRecipe("fast", models, (pair,), 4, "distill", 5.0, (_LIGHTX2V, _DOCS))


RECIPES: tuple[FewStepRecipe, ...] = (
    _fast("i2v-a14b", _I2V_PAIRS),
    _fast("t2v-a14b", _T2V_PAIRS),
    _motion("i2v-a14b", _I2V_PAIRS),
    _motion("t2v-a14b", _T2V_PAIRS),
    _distilled_21(("t2v-14b",), "t2v", "wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors"),
    _distilled_21(("i2v-14b-480p", "i2v-14b-720p"), "i2v", "wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors"),
    FewStepRecipe(
        preset="fast",
        models=("ti2v-5b",),
        pairs=(
            LoraPair(
                r"(?=.*5b)(?=.*fastwan).*lora.*",
                "",
                "Kijai/WanVideo_comfy: FastWan/Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16.safetensors",
            ),
        ),
        steps=3,
        solver="dmd",
        flow_shift=5.0,
        sources=("hao-ai-lab/FastVideo: fastvideo/configs/pipelines/wan.py (timesteps 1000, 757, 522; no guidance)",),
    ),
)


def recipes_for(spec: ModelSpec, preset: PresetName | None) -> Iterator[FewStepRecipe]:
    """The recipes that give `spec` this preset. A tiny model has those of the row it imitates."""
    name = spec.name.removeprefix(TINY_PREFIX)
    return (recipe for recipe in RECIPES if recipe.preset == preset and name in recipe.models)


def without_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """A request's values, by knob, for another preset: without what a few-step recipe brought, if one did."""
    patterns = [pattern for recipe in RECIPES for pair in recipe.pairs for pattern in (pair.high, pair.low) if pattern]
    loras: tuple[LoraRef, ...] = values.get("loras") or ()
    own = tuple(lora for lora in loras if not any(_last(pattern, (lora.name,)) for pattern in patterns))
    if len(own) == len(loras):
        return dict(values)
    return {name: value for name, value in values.items() if name not in _OF_RECIPES} | {"loras": own}


def _last(pattern: str, names: Sequence[str]) -> str | None:
    return next((name for name in reversed(names) if re.fullmatch(pattern, name, re.IGNORECASE)), None)
