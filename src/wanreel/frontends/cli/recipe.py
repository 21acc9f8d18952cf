"""`wanreel recipe`: what a video says about how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wanreel.media.recipe import read_recipe
from wanreel.wiring import read_request


@click.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--json", "json_", is_flag=True, help="The whole recipe as one JSON object.")
def recipe(video: Path, json_: bool) -> None:
    """Show the recipe that VIDEO carries."""
    if json_:
        click.echo(json.dumps(json.loads(read_recipe(video)), ensure_ascii=False, indent=2))
        return
    for name, value in read_request(video).to_dict().items():
        if value not in (None, []):
            click.echo(f"{click.style(f'{name:>20}', dim=True)}  {value}")
