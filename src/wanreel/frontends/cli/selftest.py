"""`wanreel selftest`: asks a running server for small videos and says what does not work."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from wanreel.core.errors import SettingsError
from wanreel.core.settings import load_settings, variable
from wanreel.frontends.selftest import Check, SelfTest

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("–", "yellow")}
_FAILED = 5


@click.command()
@click.option("--server", "url", metavar="URL", required=True, help="Where it listens, as http://127.0.0.1:7860.")
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key; WANREEL_REMOTE__API_KEY by default.")
@click.option("--model", help="The demo model by default, or the first that is installed.")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def selftest(url: str, api_key_env: str | None, model: str | None, json_: bool) -> int:
    """Check a running server: health, a video from a prompt, one from an uploaded picture, the answers' formats.

    What it makes it takes away again. Exits with 5 when something failed.
    """
    failed = False
    for check in SelfTest(url, _key(api_key_env), model).run():
        failed = failed or check.outcome == "failed"
        if json_:
            click.echo(json.dumps(asdict(check), ensure_ascii=False))
        else:
            _show(check)
    return _FAILED if failed else 0


def _key(name: str | None) -> str | None:
    if name is None:
        key = load_settings().remote.api_key
        return key.get_secret_value() if key is not None else None
    key = variable(name)
    if not key:
        raise SettingsError(f"The variable {name} is empty.", hint="Put the API key into it.")
    return key


def _show(check: Check) -> None:
    mark, colour = _MARKS[check.outcome]
    click.echo(f"{click.style(mark, fg=colour, bold=True)} {click.style(f'{check.name:<17}', bold=True)} {check.text}")
