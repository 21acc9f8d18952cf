"""`wanreel bench`: how fast this machine is, part by part, as a table and as a file to share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from wanreel.core.bench import BenchReport
from wanreel.core.compute import COMPUTES
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import interruptible, open_runtime

if TYPE_CHECKING:
    from wanreel.wiring.benching import Part


#: What a part is measured with, unless a model is named: stand-ins and drawn weights have the real shapes.
_MODELS = {"overhead": "i2v-a14b", "load": "i2v-a14b"}


@click.command()
@click.option(
    "--part",
    type=click.Choice(["request", "overhead", "start", "load"]),
    default="request",
    help="What to measure: a request and its parts; a warm job beside its model; a worker's start; reading weights.",
)
@click.option("--model", "-m", help="Which model, as `wanreel models` names it; demo by default.")
@click.option("--random-weights", is_flag=True, help="Draw weights of the model's real shapes; none are needed then.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="In pixels; the model's own by default.")
@click.option("--frames", type=int, help="How many; the model's own number by default.")
@click.option(
    "--steps", type=int, help="How many are run; 4 by default. What the model's own number takes is predicted."
)
@click.option("--guidance", type=float, help="1 runs one forward a step, as a distilled model does.")
@click.option("--compute", type=click.Choice(COMPUTES), help="How steps are computed; the settings' by default.")
@click.option("--against", type=click.Choice(["diffusers"]), help="Run Diffusers' own modules too, for the ratio.")
@click.option(
    "--blocks", type=click.IntRange(min=1), default=4, help="Of the transformer, for --part load; 4 by default."
)
@click.option(
    "--decode-seconds",
    type=click.FloatRange(min=0),
    default=2.1,
    help="That a decode takes in --part overhead, whose encoder works beside it; 2.1 by default, an H200's.",
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option("--threads", type=int, help="Of the processor.")
@click.option("--json", "json_", type=click.Path(path_type=Path), help="Write the whole report here; - prints it.")
@click.option("--share-json", type=click.Path(path_type=Path), help="Write here what may be shown to everybody.")
def bench(
    part: Part,
    random_weights: bool,
    device: str | None,
    threads: int | None,
    json_: Path | None,
    share_json: Path | None,
    **asked: Any,
) -> int:
    """Measure this machine: a request twice, its parts, and what faster arithmetic costs in error.

    --part overhead runs jobs through a real queue and worker around a model that computes nothing, in its real sizes; --part
    start times a worker's start, cold and warm; --part load reads a file of random weights, beside a plain read of it.

    Of the first request it tells what loading and compiling takes, of the second what a warm server takes. "of floor" is the
    time over that of the arithmetic alone, at the rate of a large matrix product on the same device. Reports of cards that
    are not in docs/benchmarks.md are welcome: --share-json holds versions, the card's name and figures, and nothing else.
    """
    from wanreel.wiring.benching import Wanted
    from wanreel.wiring.benching import bench as measure

    output = Output.open(json_ == Path("-"))
    model = asked["model"] or _MODELS.get(part, "demo")
    wanted = Wanted(
        model,
        part,
        random_weights,
        asked["against"] == "diffusers",
        asked["blocks"],
        asked["decode_seconds"],
        _knobs(asked),
    )
    with open_runtime(device=device, threads=threads) as runtime, interruptible() as cancel:
        report = measure(runtime, wanted, cancel, output.say)
    output.result(report.to_dict())
    _show(report, output)
    for path, values in ((json_, report.to_dict()), (share_json, report.shared())):
        if path is not None and path != Path("-"):
            path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _knobs(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs of a request, by name."""
    knobs = {"num_frames": asked["frames"], "num_inference_steps": asked["steps"], "compute": asked["compute"]}
    if asked["size"] is not None:
        knobs["width"], knobs["height"] = _size(asked["size"])
    if asked["guidance"] is not None:
        knobs |= {"guidance_high": asked["guidance"], "guidance_low": asked["guidance"]}
    return knobs


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise click.BadParameter(f"{text!r} is not WIDTHxHEIGHT, like 832x480.", param_hint="--size")
    return int(width), int(height)


def _show(report: BenchReport, output: Output) -> None:
    machine, subject = report.machine, report.subject
    rate = f"; attention {machine.attention}; matrix products {report.ceiling_tflops:.3g} TFLOP/s"
    output.say(
        f"[bold]{machine.device}[/bold], {machine.memory_gib:g} GiB, {machine.threads} threads, torch {machine.torch}"
        f"{rate if report.ceiling_tflops else ''}"
    )
    if report.part in ("request", "overhead"):
        output.say(
            f"[bold]{subject.model}[/bold] ({subject.weights} weights), {subject.width}×{subject.height}, "
            f"{subject.num_frames} frames, {subject.steps} steps of {subject.passes}, {subject.compute}; {subject.plan}"
        )
    head, *lines = report.rows()
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(head):
        last = place == len(head) - 1 and not name
        table.add_column(name, justify="left" if place == 0 or last else "right", style="dim" if last else None)
    for line in lines:
        table.add_row(*line)
    output.console.print(table)
    for note in report.notes:
        output.say(f"  [dim]• {note}[/dim]")
