"""generate, status and result: the named endpoints for gradio_client, and the tools for MCP.

Their inputs are Gradio components made from the knobs' declarations; they are never drawn. Every call is the HTTP API's own
intake, so that a request means the same and belongs to the same key. Files never pass through Gradio.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
from starlette.requests import Request

from wanreel.core.errors import JobNotFound, WanreelError
from wanreel.core.request import KNOBS, Knob
from wanreel.frontends.http.errors import Refused, body_of
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.ui.desk import ENDED, Desk

#: Seconds that `result` waits at most; beyond that, proxies and clients give up.
LONGEST_WAIT = 50.0


class Endpoints:
    """The endpoints, over one desk. `declare` within a Blocks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def declare(self) -> None:
        """Add them to the Blocks being built."""
        inputs = [_component(name, knob) for name, knob in KNOBS.items()]
        job_id = gr.Textbox(label="job_id", info="As generate answered.", visible=False)
        wait = gr.Number(label="wait", info="Seconds to wait for it.", value=0, minimum=0, visible=False)
        self._add("generate", self._signed(self.generate), inputs)
        self._add("status", self.status, [job_id])
        self._add("result", self.result, [job_id, wait])

    def _add(self, name: str, function: Callable[..., Any], inputs: list[Any]) -> None:
        button = gr.Button(visible=False)
        button.click(function, inputs, gr.JSON(visible=False), api_name=name, queue=False, show_progress="hidden")

    def _signed(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """`generate` with one named parameter per knob, as Gradio reads signatures, and a docstring for MCP."""

        async def signed(*values: Any) -> dict[str, Any]:
            return await generate(dict(zip(KNOBS, values, strict=False)), values[len(KNOBS)])

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(name, kind, default=inspect.Parameter.empty if name == "prompt" else None)
            for name in KNOBS
        ]
        request = inspect.Parameter("request", kind, annotation=gr.Request, default=None)
        described = "\n".join(f"    {name}: {_told(knob)}" for name, knob in KNOBS.items())
        signed.__doc__ = f"{inspect.getdoc(generate)}\n\nArgs:\n{described}\n"
        signed.__annotations__ = {"request": gr.Request}
        signed.__signature__ = inspect.Signature([*parameters, request])  # type: ignore[attr-defined]
        signed.__name__ = "generate"
        return signed

    async def generate(self, values: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        """Queue a video and answer at once with the job's id. Only the prompt is needed; what else is left out is
        chosen as the model's authors did."""
        given = {name: value for name, value in values.items() if value not in (None, "", [])}
        with _told_to_client():
            return await self._desk.generate(_asked(request), given)

    async def status(self, job_id: str, request: gr.Request) -> dict[str, Any]:
        """How a video stands: its status, stage, step and place in line.

        Args:
            job_id: As generate answered.
        """
        with _told_to_client():
            return await self._desk.status(_asked(request), job_id)

    async def result(self, job_id: str, wait: float = 0, request: gr.Request | None = None) -> dict[str, Any]:
        """Where to fetch a finished video, with the same key as this call. Waits for it if asked to.

        Args:
            job_id: As generate answered.
            wait: Seconds to wait for it, 50 at most.
        """
        assert request is not None
        asked = _asked(request)
        with _told_to_client():
            video = await self._desk.status(asked, job_id)
            if wait and video["status"] not in ENDED:
                await self._desk.wait(asked, job_id, min(float(wait), LONGEST_WAIT))
                video = await self._desk.status(asked, job_id)
        done = video["status"] == "completed"
        root = str(asked.base_url).rstrip("/")
        links = {
            name: f"{root}/v1/videos/{video['job_id']}/content{query}"
            for name, query in (
                ("url", ""),
                ("poster_url", "?variant=thumbnail"),
                ("last_frame_url", "?variant=last_frame"),
            )
        }
        return {"ready": done, **(links if done else {}), **video}


@contextlib.contextmanager
def _told_to_client() -> Any:
    """Our errors as Gradio's, with their words and hints."""
    try:
        yield
    except Refused as refusal:
        raise gr.Error(refusal.message, print_exception=False) from refusal
    except JobNotFound as error:
        raise gr.Error("There is no such video.", print_exception=False) from error
    except WanreelError as error:
        told: Any = body_of(error)["error"]
        raise gr.Error(str(told["message"]), print_exception=False) from error


def _asked(request: gr.Request | Request | None) -> Request:
    """The request that the guard let in. Gradio wraps it, but not on its way from MCP."""
    asked: Any = request.request if isinstance(request, gr.Request) else request
    caller_of(asked)  # a request that did not pass the guard fails here
    return asked


def _told(knob: Knob) -> str:
    text = knob.help + (f" Unit: {knob.unit}." if knob.unit else "")
    if knob.kind in ("picture", "sound"):
        return text + " Base64, a data: URL, or the id of an upload (POST /v1/files)."
    return text + (f" One of {', '.join(knob.choices)}." if knob.choices else "")


def _component(name: str, knob: Knob) -> Any:
    """The Gradio component that takes a knob's value."""
    about: dict[str, Any] = {"label": name, "info": _told(knob), "visible": False}
    match knob.kind:
        case "integer" | "number":
            bounds = {"minimum": knob.minimum, "maximum": knob.maximum}
            return gr.Number(value=None, precision=0 if knob.kind == "integer" else None, **bounds, **about)
        case "flag":
            return gr.Checkbox(value=True, **about)
        case "loras":
            component = gr.JSON(value=None, label=name, visible=False)
            # Its own schema, {}, is none that MCP's checks accept. A subclass would make Gradio write files beside this one.
            component.api_info = lambda: {"type": "array", "items": {"type": "object"}}
            return component
        case "name" if knob.choices:
            return gr.Dropdown(choices=list(knob.choices), value=None, **about)
        case _:
            return gr.Textbox(value=None, **about)
