"""`wanreel models qualify`: run real weights beside Diffusers' own pipeline and write down what came out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import interruptible, open_runtime

NOT_QUALIFIED = 5  #: exit code when the weights run, but not as Diffusers runs them


@click.command()
@click.argument("model")
@click.option("--folder", type=click.Path(path_type=Path), help="Its Diffusers folder, where it is not installed.")
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Write the report here, to share it.")
@click.option("--json", "json_", is_flag=True, help="Print the report and nothing else.")
def qualify(model: str, folder: Path | None, device: str | None, out: Path | None, json_: bool) -> int:
    """Check that the weights of MODEL run here as their authors' pipeline does.

    Keys and shapes are checked, then two steps at the official size are compared with Diffusers' own pipeline on the same
    modules; time and peak memory are measured. Reports that passed are welcome in docs/qualified.
    """
    output = Output.open(json_)
    with open_runtime(device=device) as runtime, interruptible() as cancel:
        output.say(f"Running two steps of [bold]{model}[/bold] at its official size, here and in Diffusers …")
        report = runtime.qualify(model, folder, cancel)
    if out is not None:
        out.write_text(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    output.result(report.to_dict())
    run = report.run
    output.say(
        f"  {run.width}×{run.height}, {run.num_frames} frames: {run.seconds_per_step:.2f} s/step, "
        f"decode {run.seconds_decode:.1f} s, plan {report.plan}"
    )
    for comparison in report.comparisons:
        verdict = "equal to the bit" if comparison.equal else f"relative difference {comparison.relative_rms:.2g}"
        output.say(f"  {comparison.of}: {verdict}")
    for note in report.notes:
        output.say(f"  [dim]• {note}[/dim]")
    output.say("[green]✓ qualified[/green]" if report.passed else "[red]✗ not qualified[/red]")
    return 0 if report.passed else NOT_QUALIFIED
