"""The server that `wanreel --server URL` names, for the commands that ask it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from wanreel.core.settings import load_settings
from wanreel.frontends.client import Client


def with_client(command: Callable[..., int]) -> Callable[..., int]:
    """Gives the command a Client of the server that the group was told."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        key = load_settings().remote.api_key
        url: str = click.get_current_context().find_root().params["server"]
        with Client(url, key.get_secret_value() if key else None) as client:
            return command(client, *args, **kwargs)

    return run
