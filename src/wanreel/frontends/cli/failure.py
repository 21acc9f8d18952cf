"""Errors as a terminal user should read them, and the exit code of each."""

from __future__ import annotations

import traceback

import click

from wanreel.core.errors import (
    Cancelled,
    GenerationError,
    GroupNotFound,
    InvalidRequest,
    JobError,
    JobNotFound,
    MachineError,
    ModelError,
    SettingsError,
    WanreelError,
)

#: first match wins, so subclasses come before their bases
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (InvalidRequest, 2),
    (SettingsError, 2),
    (ModelError, 3),
    (MachineError, 4),
    (Cancelled, 130),
    (GenerationError, 5),
    (JobNotFound, 2),
    (GroupNotFound, 2),
    (JobError, 5),
    (WanreelError, 5),
)


def exit_code(error: BaseException) -> int:
    """1 for anything that is not ours."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def explain(error: BaseException) -> str:
    """What was wrong and what to do. A traceback only for faults of ours, and then with a word about it."""
    if isinstance(error, InvalidRequest):
        lines = [f"{_red('✗')} {problem}" for problem in error.problems]
        return "\n".join([*lines, error.hint] if error.hint else lines)
    if isinstance(error, WanreelError):
        return f"{_red('✗')} {error}"
    return f"{''.join(traceback.format_exception(error))}{_red('✗')} This is a fault in Wanreel. Please report the lines above."


def as_json(error: BaseException) -> dict[str, object]:
    """The same for programs."""
    if isinstance(error, WanreelError):
        body: dict[str, object] = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "retryable": error.retryable,
        }
        if isinstance(error, InvalidRequest):
            body["problems"] = [
                {"field": problem.field, "code": problem.code, "message": problem.message, "hint": problem.hint}
                for problem in error.problems
            ]
        return {"error": body}
    return {
        "error": {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": "", "retryable": False}
    }


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True)
