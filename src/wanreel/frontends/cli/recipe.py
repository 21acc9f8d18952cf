"""`wanreel recipe`: what a video or a picture says about how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wanreel.media.recipe import read_recipe
from wanreel.wiring import read_work


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "json_", is_flag=True, help="The whole recipe as one JSON object.")
def recipe(file: Path, json_: bool) -> None:
    """Show the recipe that a video or a picture carries."""
    if json_:
        click.echo(json.dumps(json.loads(read_recipe(file)), ensure_ascii=False, indent=2))
        return
    for name, value in read_work(file).to_dict().items():
        if value not in (None, []):
            click.echo(f"{click.style(f'{name:>20}', dim=True)}  {value}")
