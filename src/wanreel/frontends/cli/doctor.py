"""`wanreel doctor`: a diagnosis as a list."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from wanreel.core.settings import load_settings
from wanreel.doctor import Finding, diagnose

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


@click.command()
@click.option("--json", "json_", is_flag=True, help="One JSON array.")
def doctor(json_: bool) -> int:
    """Check this machine and say what to fix. Exits with 4 when something is broken."""
    found: list[Finding] = []
    for finding in diagnose(load_settings()):
        found.append(finding)
        if not json_:
            _show(finding)
    if json_:
        click.echo(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    return 4 if any(finding.status == "broken" for finding in found) else 0


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.status]
    click.echo(
        f"{click.style(mark, fg=colour, bold=True)} {click.style(f'{finding.subject:<10}', bold=True)} {finding.text}"
    )
    if finding.cure:
        click.echo(f"             {click.style('→ ' + finding.cure, fg=colour)}")
