"""`wanreel enhance`: a prompt and a better one, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
from rich.table import Table

from wanreel.core.prompt_help import TEMPLATES, Enhancement
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_runtime
from wanreel.frontends.prompt_help import By, HelpAsked, PromptHelp
from wanreel.frontends.prompt_writer import build_writer
from wanreel.storage.disk import MemoryBlobs


@click.command()
@click.argument("prompt", default="")
@click.option("--image", type=click.Path(path_type=Path), help="The first frame: then only what moves is asked for.")
@click.option("--model", "-m", help="The video model whose tokenizer counts.")
@click.option(
    "--by",
    type=click.Choice(["auto", "rules", "model"]),
    default="auto",
    help="By rules, or by the language model of the settings; auto: by it where there is one.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Draws {red|green|blue}.")
@click.option("--template", default="", help="A template in the place of a prompt.")
@click.option("--set", "words", multiple=True, metavar="SLOT=WORDS", help="Words for a ${slot}.")
@click.option("--templates", is_flag=True, help="List the templates, and stop.")
@click.option("--no-cinematic", is_flag=True, help="Leave the cinematic vocabulary out.")
@click.option("--no-add", is_flag=True, help="Only cure what is wrong.")
@click.option("--plain", is_flag=True, help="Print the better prompt alone, for other programs.")
@json_option
def enhance(prompt: str, words: tuple[str, ...], json_: bool, **options: Any) -> int:
    """Show PROMPT and a better one side by side. Nothing is made and nothing is kept."""
    output = Output.open(json_)
    if options["templates"]:
        return _templates(output)
    pairs = [word.partition("=") for word in words]
    if any(not sign for _, sign, _ in pairs):
        raise click.UsageError("--set takes SLOT=WORDS.")
    with open_runtime() as runtime:
        png = None
        if options["image"] is not None:
            pictures = MemoryBlobs()
            png = pictures.open(runtime.take_picture(options["image"].read_bytes(), into=pictures).sha256)
        found = PromptHelp(runtime, build_writer(runtime.settings.prompt_help)).enhance(
            HelpAsked(
                prompt=prompt,
                template=options["template"],
                variables={name: value for name, _, value in pairs},
                seed=options["seed"],
                model=options["model"],
                by=cast("By", options["by"]),
                png=png,
                cinematic=not options["no_cinematic"],
                add=not options["no_add"],
            )
        )
    output.result(found.to_dict())
    if options["plain"]:
        for hint in found.hints:
            click.echo(hint.text, err=True)
        click.echo(found.enhanced)
    elif not json_:
        _show(output, found)
    return 0


def _templates(output: Output) -> int:
    output.result(
        {name: {"title": it.title, "text": it.text, "slots": dict(it.slots)} for name, it in TEMPLATES.items()}
    )
    for name, template in TEMPLATES.items():
        output.say(f"[bold]{name}[/bold]  [dim]{template.title}[/dim]\n  {template.text}")
    return 0


def _show(output: Output, found: Enhancement) -> None:
    table = Table(show_header=True, header_style="bold", expand=True)
    about = "" if found.tokens_exact else "about "
    table.add_column(f"as written, {about}{found.tokens_before} tokens", ratio=1)
    table.add_column(f"enhanced, {about}{found.tokens_after} of {found.token_limit}", ratio=1)
    table.add_row(found.original, found.enhanced)
    output.console.print(table)
    for change in found.changes:
        output.say(f"  [dim]• {change.kind}: {change.text} ({change.reason})[/dim]")
    for hint in found.hints:
        output.say(f"  [yellow]![/yellow] {hint.text}")
    if not found.changed:
        output.say("  [dim]• nothing to add[/dim]")
    output.say(f"  [dim]• counted by {found.tokens_by}[/dim]")
