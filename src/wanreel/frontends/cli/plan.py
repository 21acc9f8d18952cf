"""`wanreel plan`: what a request would take, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from wanreel.core.memory_plan import STAGES, MemoryPlan, gib
from wanreel.core.workload import Workload
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.gpus import gpu_options, gpu_settings
from wanreel.frontends.cli.knobs import asked_values
from wanreel.frontends.cli.output import Output, resolution_json
from wanreel.frontends.cli.session import open_runtime
from wanreel.frontends.cli.tasks import is_batch, request_options, resolve_task, tasks_of


@click.command()
@request_options
@click.option("--card", default="", help="Plan for another GPU, by name: “RTX 4090”. Predicted, not measured.")
@click.option("--host-gib", type=click.FloatRange(min=1), help="With --card: host memory of that machine, GiB.")
@gpu_options
@json_option
def plan(
    inputs: tuple[str, ...], from_video: Path | None, card: str, host_gib: float | None, json_: bool, **options: Any
) -> int:
    """Show what would run and what memory it takes, by stage. Loads nothing."""
    if is_batch(inputs):
        raise click.UsageError("plan takes one request, not a batch.")
    output = Output.open(json_)
    values = asked_values(options)
    may_download = False if options["no_download"] else None
    with open_runtime(download=may_download, **gpu_settings(options)) as runtime:
        if from_video is not None:
            values = runtime.recipe_values(from_video) | values
        resolution = resolve_task(runtime, tasks_of(inputs, options, values)[0])
        found = runtime.forecast.plan(resolution, card=card, host_gib=host_gib)
        price = runtime.settings.gpu_price_per_hour
    steps = Workload.of(resolution.spec, resolution.request).steps
    cost = cost_of(found, steps, price)
    output.plan(resolution)
    output.result(resolution_json(resolution) | {"memory": found.to_dict()} | cost)
    if not json_:
        _show(output, found, steps)
        if cost:
            output.say(f"costs about {cost['cost']:.2f} at {price:g} an hour, once loaded")
    return 0


def cost_of(plan: MemoryPlan, steps: int, price: float | None) -> dict[str, float]:
    """`cost` of a loaded model's run at `price` an hour; nothing without a price, or where no time is predicted."""
    if price is None or not plan.stages:
        return {}
    return {"cost": round(plan.seconds(steps) * price / 3600.0, 6)}


def _show(output: Output, plan: MemoryPlan, steps: int) -> None:
    mark = "[green]fits[/green]" if plan.fits else "[red]does not fit[/red]"
    output.say(f"[bold]{plan.placement}[/bold]  {mark}")
    if plan.stages:
        table = Table("stage", "weights", "work", "peak", box=None, pad_edge=False)
        for stage in plan.stages:
            table.add_row(STAGES[stage.stage], gib(stage.weights), gib(stage.activations), gib(stage.peak))
        output.console.print(table)
        output.say(
            f"host memory {gib(plan.host_bytes)}, page-locked {gib(plan.pinned_bytes)}; "
            f"{plan.encode_seconds:.0f} s + {steps} × {plan.step_seconds:.2f} s + {plan.decode_seconds:.0f} s "
            f"≈ {plan.seconds(steps) / 60:.1f} min once loaded"
        )
    for reason in plan.reasons:
        output.say(f"  [dim]• {reason}[/dim]")
