"""`wanreel verify`: whether a video can be made again, bit for bit, and if not, why."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.session import interruptible, open_runtime
from wanreel.wiring import verify_video
from wanreel.worker.verify import Verdict

DIFFERS = 7  #: exit code


@click.command()
@click.argument("video", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@json_option
def verify(video: Path, device: str | None, json_: bool) -> int:
    """Make VIDEO again from its manifest or recipe and compare. Exits with 7 when it differs."""
    with (
        tempfile.TemporaryDirectory(prefix="wanreel-verify-") as folder,
        open_runtime(out=Path(folder), device=device) as runtime,
        interruptible() as cancel,
    ):
        verdict = verify_video(runtime, video, cancel)
    if json_:
        say(_row(verdict))
    else:
        _show(video, verdict)
    return 0 if verdict.same else DIFFERS


def _row(verdict: Verdict) -> dict[str, object]:
    return {
        "same": verdict.same,
        "manifest": verdict.recorded,
        "recorded_sha256": verdict.recorded_sha256,
        "now_sha256": verdict.now_sha256,
        "differences": [
            {"what": difference.what, "recorded": difference.recorded, "now": difference.now}
            for difference in verdict.differences
        ],
    }


def _show(video: Path, verdict: Verdict) -> None:
    if verdict.same:
        click.echo(f"{click.style('✓', fg='green', bold=True)} {video.name} was made again, the same bit for bit")
    else:
        click.echo(f"{click.style('✗', fg='red', bold=True)} {video.name} can't be made again as it is")
    for difference in verdict.differences:
        click.echo(f"  {difference}")
