"""`wanreel`: the group of commands, each imported only when it runs, so that --help is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from wanreel import __version__
from wanreel.core.importing import leave_quickly

#: command name: (module, attribute, help). The help stands here so that `wanreel --help` imports no command.
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "generate": ("generate", "generate", "Make a video, or a batch of them, and wait for it."),
    "picture": ("picture", "picture", "Make a still picture, for example a first frame, and wait for it."),
    "enhance": ("enhance", "enhance", "Show a prompt and a better one, side by side."),
    "extend": ("extend", "extend_", "Make a video go on: a new clip from its last frame, joined to it."),
    "storyboard": ("storyboard", "storyboard", "Make one video of many scenes, each redoable alone."),
    "serve": ("serve", "serve", "Serve the HTTP API, with workers."),
    "plan": ("plan", "plan", "Show what a request would take, before anything is loaded."),
    "submit": ("submit", "submit", "Queue a video, or a batch of them, and return at once."),
    "runpod": ("runpod", "runpod", "Make the videos that a RunPod endpoint is asked for."),
    "worker": ("worker", "worker", "Make the videos that were queued."),
    "jobs": ("jobs", "jobs", "List jobs and the state of the queue."),
    "show": ("jobs", "show", "Show everything about a job."),
    "watch": ("jobs", "watch", "Follow a job's events until it has ended."),
    "cancel": ("jobs", "cancel", "Stop a job."),
    "retry": ("jobs", "retry", "Queue a failed or cancelled job again."),
    "reduce": ("jobs", "reduce", "Queue a smaller job where memory ran out."),
    "edit": ("jobs", "edit", "Change a queued job."),
    "move": ("jobs", "move", "Give a queued job another place in line."),
    "reexport": ("submit", "reexport", "Export a finished job again, at another rate or in another format."),
    "sweep": ("sweep", "sweep", "Compare seeds, guidance, steps, prompts or LoRAs, side by side."),
    "sweeps": ("sweep", "sweeps_", "List, show, stop and save sweeps."),
    "pause": ("queue", "pause", "Let no worker take another job."),
    "resume": ("queue", "resume", "Let workers take jobs again."),
    "queue": ("queue", "queue", "Write the queue to a file, or take one in."),
    "db": ("db", "db", "Check, upgrade and move the job database."),
    "ui": ("ui", "ui", "Serve the page alone, before a server elsewhere."),
    "cluster": ("cluster", "cluster", "Serve from many machines, on Ray."),
    "keys": ("keys", "keys", "Make, list and revoke API keys."),
    "verify": ("verify", "verify", "Make a video again and say what differs."),
    "recipe": ("recipe", "recipe", "Show the recipe that a video or a picture carries."),
    "models": ("models", "models", "List the models, or look after them."),
    "loras": ("loras", "loras", "List the LoRAs, add, inspect and remove them."),
    "upscalers": ("upscalers", "upscalers", "List the networks that enlarge videos, add and remove them."),
    "presets": ("models", "presets", "List presets and resolutions."),
    "selftest": ("selftest", "selftest", "Check a running server by making small videos."),
    "storage": ("storage", "storage", "List the storage profiles, or check one."),
    "bench": ("bench", "bench", "Measure how fast this machine is, part by part."),
    "doctor": ("doctor", "doctor", "Check this machine and say what to fix."),
}


#: Called by Wanreel itself alone.
HIDDEN: Mapping[str, tuple[str, str, str]] = {"rank": ("rank", "rank", "A process of a worker with several GPUs.")}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if ctx.params.get("server"):
            on_runpod = str(ctx.params["server"]).partition(":")[0] == "runpod"
            module = importlib.import_module(f"wanreel.frontends.cli.{'runpod_remote' if on_runpod else 'remote'}")
            there: Mapping[str, click.Command] = module.COMMANDS
            if cmd_name in COMMANDS and cmd_name not in there:
                where = "not on RunPod" if on_runpod else "at home only; leave out --server"
                raise click.UsageError(f"{cmd_name} works {where}.", ctx)
            return there.get(cmd_name)
        found = COMMANDS.get(cmd_name) or HIDDEN.get(cmd_name)
        if found is None:
            return None
        module, attribute, _ = found
        command: click.Command = getattr(importlib.import_module(f"wanreel.frontends.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 unexpected, 2 bad input, 3 model missing or broken, 4 machine (memory, disk, GPU), "
    "5 generation failed, 6 some of a batch failed, "
    "7 verify found a difference, 130 stopped.",
)
@click.version_option(__version__, prog_name="wanreel")
@click.option(
    "--server",
    metavar="URL|runpod[:ENDPOINT_ID]",
    help="Ask a Wanreel server instead, whose key comes from WANREEL_REMOTE__API_KEY; or an endpoint on RunPod, with "
    "RUNPOD_API_KEY and RUNPOD_WAN_I2V_ENDPOINT_ID from the environment or .env.",
)
def cli(server: str | None) -> None:
    """Wanreel turns a prompt, or a picture and a prompt, into a video with the open Wan models."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into words and exit codes."""
    from wanreel.frontends.cli.failure import exit_code, explain

    leave_quickly()
    try:
        result: Any = cli.main(args=argv, prog_name="wanreel", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nStopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the outermost handler: everything becomes words and a code
        click.echo(explain(error), err=True)
        sys.exit(exit_code(error))
