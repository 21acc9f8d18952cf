"""suit: a loaded model's experts get the way to compute steps that its placement and the GPU call for.

Knows nothing of requests but how many tokens they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wanreel.core.compute import EXACT_END, MIDDLES
from wanreel.core.events import StepsChosen
from wanreel.models.attention import attention_facts
from wanreel.models.held import Held
from wanreel.models.quantize import multiplies_fp8
from wanreel.models.step.choice import Shape
from wanreel.models.step.kernels import DEFAULT, Eighths, attend_of, kernel_named
from wanreel.models.step.path import Manner, StepPath
from wanreel.models.step.trial import Rows, works
from wanreel.models.wan_model import WanModel


def suit(model: WanModel, tokens: int) -> None:
    """Prepare the experts for steps over `tokens` tokens. May measure kernels, once in the life of an installation."""
    manner = _manner(model, tokens)
    for expert in model.experts:
        if manner is None:
            expert.step = None
        elif expert.step is None or expert.step.manner != manner:
            expert.step = StepPath(expert, manner, model.compiler)


def unsuited(model: WanModel) -> None:
    """Let go of what was kept of prompts and steps; how steps are computed stays."""
    for expert in model.experts:
        if expert.step is not None:
            expert.step.forget()


def steps_of(model: WanModel) -> StepsChosen:
    """How steps are computed now."""
    facts, notes = step_facts(model), list(_notes(model))
    attention = facts["attention"]
    if model.device.type == "cuda" and model.experts[0].step is not None:
        attention = kernel_named(model.experts[0].step.manner.attention).title
    return StepsChosen(facts.get("compute", "exact"), attention, facts.get("blocks", "as Diffusers"), tuple(notes))


def step_facts(model: Held) -> dict[str, str]:
    """What of it equal bits depend on, by name. What is as Diffusers has it is not named."""
    facts = {"attention": attention_facts(model.device).expected}
    if not isinstance(model, WanModel):
        return facts
    if model.placement.compute != "exact":
        facts["compute"] = model.placement.compute
    path = model.experts[0].step
    if path is None:
        return facts
    if path.manner.attention != DEFAULT:
        facts["attention"] = path.manner.attention
    if path.manner.end:
        facts["end"] = f"attention {path.manner.end_attention}" + ", matrices exact" * model.placement.exact_end
    if smoothed := _smoothed(path.manner):
        facts["smoothed"] = smoothed
    if path.manner.own:
        facts["passes"] = "own"
    facts["blocks"] = "not compiled" if not path.manner.compiled or model.compiler.failure else "compiled"
    return facts


def _smoothed(manner: Manner) -> str:
    """What goes without its middle before it is rounded."""
    attention = "keys, values" if isinstance(attend_of(manner.attention), Eighths) else ""
    inputs = "inputs of matrices" if manner.eight and manner.middles else ""
    return ", ".join(it for it in (attention, inputs) if it)


def _notes(model: WanModel) -> Iterator[str]:
    placement = model.placement
    if model.compiler.failure:
        yield f"blocks run without being compiled: {model.compiler.failure}"
    if placement.compute != "exact" and model.experts[0].step is None and model.device.type == "cuda":
        yield "blocks go over the tokens in parts, so attention stays exact"
    path = model.experts[0].step
    if path is not None and path.manner.eight and kernel_named(path.manner.attention).numbers == "exact":
        yield "no attention kernel for fp8 is installed, so attention stays exact (docs/speed.md)"


def _manner(model: WanModel, tokens: int) -> Manner | None:
    """None: as Diffusers does, which is what other devices and portions of tokens take."""
    placement, device = model.placement, model.device
    rounds = placement.compute != "exact" and multiplies_fp8(device)
    if device.type != "cuda" or placement.rows or not (placement.compiled or rounds):
        return None
    config: Any = model.experts[0].transformer.config
    shape = Shape(config.num_attention_heads, config.attention_head_dim, tokens)
    exact = model.kernels.choose(device, shape, "exact")
    rounded = model.kernels.choose(device, shape, "rounded") if rounds else None
    end = exact.name if exact is not None else DEFAULT
    return Manner(
        attention=rounded.name if rounded is not None else end,
        end_attention=end,
        end=EXACT_END if rounded is not None else 0,
        eight=placement.precision == "fp8" and multiplies_fp8(device),
        middles=MIDDLES and rounds,
        own=rounds and works(device, Rows(shape.heads * shape.width, config.ffn_dim, shape.width)),
        compiled=placement.compiled,
    )
